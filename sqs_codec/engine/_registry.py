"""Engines by name."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from sqs_codec.engine._protocol import Engine

__all__ = ["ENGINES", "EngineConfig", "make_engine"]

ENGINES = {"transformers": "sqs_codec.hf._engine", "vllm": "sqs_codec.vllm._engine"}
"""Modules whose `make_engine` makes one of an `EngineConfig`. They are imported when
they are asked for: each needs packages that the others do without."""


@dataclass(frozen=True)
class EngineConfig:
    """Which engine to run, in plain JSON types.

    Attributes
    ----------
    engine : str
        A key of `ENGINES`.
    target : str or None
        A Hugging Face model, by directory or name. None is SmolLM2-135M-Instruct.
    max_memory : int
        MiB for the keys and values of all sessions.
    """

    engine: str = "transformers"
    target: str | None = None
    max_memory: int = 1024

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(
                f"engine must be one of {', '.join(ENGINES)}, not {self.engine!r}"
            )


def make_engine(config: EngineConfig) -> Engine:
    """Make an engine, which is still to be opened. It may load a model.

    Raises
    ------
    ValueError or OSError
        The model can't be served; the message says why.
    ImportError
        The engine isn't installed.
    """
    engine: Engine = import_module(ENGINES[config.engine]).make_engine(config)
    return engine
