"""Engines by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from sqs_codec._base import checks
from sqs_codec.system._base import kinds
from sqs_codec.system._base.kinds import Device, Dtype, Kind
from sqs_codec.system.engine._protocol import Engine

EngineName = Literal["transformers", "vllm", "llama.cpp"]
"""Engines that come with the package."""

ENGINES: dict[EngineName, Kind] = {
    "transformers": kinds.TRANSFORMERS,
    "vllm": kinds.VLLM,
    "llama.cpp": kinds.LLAMA_CPP,
}
"""The kind of model of each engine. `make_engine` imports an engine's package only when
needed: each has dependencies of its own."""


@dataclass(frozen=True)
class EngineConfig:
    """Configuration of an engine, in plain JSON types.

    Attributes
    ----------
    engine : EngineName or None
        None is llama.cpp for a GGUF file, else transformers.
    target : str or None
        A Hugging Face model, by directory or name, or a file that ends in ``.gguf``.
        None is SmolLM2-135M-Instruct.
    max_memory : int
        MiB for the KV caches of all sessions.
    device : Device
        vLLM and llama.cpp choose it themselves.
    dtype : Dtype
        With ``"auto"``, vLLM chooses it on a GPU.
    revision : str or None
        Branch, tag or commit of the model on the hub.
    target_ms : float
        Minimum milliseconds per forward pass, to imitate a larger model.
    options : mapping
        Further options of the engine: arguments of ``vllm.AsyncEngineArgs``, or
        options of llama.cpp.
    """

    engine: EngineName | None = None
    target: str | None = None
    max_memory: int = 1024
    device: Device = "auto"
    dtype: Dtype = "auto"
    revision: str | None = None
    target_ms: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        is_gguf = kinds.kind_of(self.target) is kinds.LLAMA_CPP
        if self.engine is None:
            own = "llama.cpp" if is_gguf else "transformers"
            object.__setattr__(self, "engine", own)
        checks.one_of("engine", self.engine, EngineName)
        if is_gguf and self.engine != "llama.cpp":
            raise ValueError(
                f"{self.target} is a GGUF file, which {self.engine} can't run; use "
                "the engine llama.cpp"
            )
        checks.one_of("device", self.device, Device)
        checks.one_of("dtype", self.dtype, Dtype)
        checks.finite("target_ms", self.target_ms, 0, 60_000)
        if self.target_ms and self.engine == "vllm":
            raise ValueError("target_ms can't be used with vllm")

    @property
    def kind(self) -> Kind:
        """The kind of model that the engine runs."""
        assert self.engine is not None  # `__post_init__` sets it
        return ENGINES[self.engine]


def make_engine(config: EngineConfig) -> Engine:
    """Make an engine; call its `open` next. It may load a model.

    Raises
    ------
    ValueError or OSError
        The model can't be served; the message says why.
    ImportError
        The engine isn't installed.
    """
    room = import_module(f"sqs_codec.system.{config.kind.room}._engine")
    engine: Engine = room.make_engine(config)
    return engine
