"""What runs a target model, whatever serves it.

* `Engine`, `EngineInfo`: what a server asks of it
* `BatchEngine`: an engine of a `sqs_codec.system.session.Verifier`
* `EngineConfig`, `make_engine`: the engines that `sqs serve` knows by name
* `measure_steps`: how long an engine takes for 1 token and for 6
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
