"""Engines by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple

from sqs_codec.system._base.devices import DEVICES, DTYPES
from sqs_codec.system.engine._protocol import Engine

__all__ = ["ENGINES", "EngineConfig", "make_engine"]


class _Maker(NamedTuple):
    module: str  # whose `make_engine` makes one of an `EngineConfig`
    packages: tuple[str, ...] = ()  # besides transformers; extras have their names


ENGINES = {
    "transformers": _Maker("sqs_codec.system.hf._engine"),
    "vllm": _Maker("sqs_codec.system.vllm._engine", ("vllm",)),
}
"""What makes engines. Modules are imported when they are asked for: each needs packages
that the others do without."""


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
    device : str
        One of `DEVICES`; ``"auto"`` is a GPU if there is one. vLLM has its own.
    dtype : str
        One of `DTYPES`; ``"auto"`` is the checkpoint's own, but float32 on a CPU. On a
        GPU, vLLM chooses by itself.
    revision : str or None
        A branch, tag or commit of the model on the hub.
    target_ms : float
        Milliseconds that a pass of the model takes at least, as `BatchEngine` has it.
    options : mapping
        What else the engine takes: arguments of ``vllm.AsyncEngineArgs``.
    """

    engine: str = "transformers"
    target: str | None = None
    max_memory: int = 1024
    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    target_ms: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {"engine": [*ENGINES], "device": DEVICES, "dtype": DTYPES}
        for name, values in known.items():
            if (value := getattr(self, name)) not in values:
                choices = ", ".join(values)
                raise ValueError(f"{name} must be one of {choices}, not {value!r}")
        if self.target_ms and self.engine != "transformers":
            raise ValueError(
                f"target_ms is for the engine transformers: {self.engine} can't be "
                f"held to a pace"
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
    engine: Engine = import_module(ENGINES[config.engine].module).make_engine(config)
    return engine
