"""What runs a target model, whatever serves it.

* `Engine`, `EngineInfo`: what a server asks of it
* `BatchEngine`, `paced`: an engine of a `sqs_codec.system.session.Verifier`
* `CachingVerifier`, `Piece`, `Reading`: what such verifiers have in common
* `EngineConfig`, `make_engine`: the engines that `sqs serve` knows by name
* `measure_steps`, `pass_seconds`: how long an engine or a verifier takes for a token
"""

from sqs_codec.system._base.kinds import Device, Dtype
from sqs_codec.system.engine._batch import BatchEngine, paced, pass_seconds
from sqs_codec.system.engine._caching import CachingVerifier, Piece, Reading
from sqs_codec.system.engine._protocol import Engine, EngineInfo, measure_steps
from sqs_codec.system.engine._registry import (
    ENGINES,
    EngineConfig,
    EngineName,
    make_engine,
)

__all__ = [
    "ENGINES",
    "BatchEngine",
    "CachingVerifier",
    "Device",
    "Dtype",
    "Engine",
    "EngineConfig",
    "EngineInfo",
    "EngineName",
    "Piece",
    "Reading",
    "make_engine",
    "measure_steps",
    "paced",
    "pass_seconds",
]
