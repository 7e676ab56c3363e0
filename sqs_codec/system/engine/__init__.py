"""Engines, which run a target model for a server.

* `Engine`, `EngineInfo`: the interface
* `BatchEngine`: an engine of a `sqs_codec.system.session.Verifier`
* `EngineConfig`, `make_engine`: the engines of `sqs serve`, by name
* `measure_steps`: measures the time to verify 1 token and 6 tokens
"""

from sqs_codec.system.engine._batch import BatchEngine
from sqs_codec.system.engine._protocol import Engine, EngineInfo, measure_steps
from sqs_codec.system.engine._registry import EngineConfig, EngineName, make_engine

__all__ = [
    "BatchEngine",
    "Engine",
    "EngineConfig",
    "EngineInfo",
    "EngineName",
    "make_engine",
    "measure_steps",
]
