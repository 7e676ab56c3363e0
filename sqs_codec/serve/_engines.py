"""The engines that `sqs serve` knows by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqs_codec.serve._engine import Engine

__all__ = ["ENGINES", "EngineConfig", "make_engine"]

ENGINES = ("transformers", "vllm")


@dataclass(frozen=True)
class EngineConfig:
    """Which engine to run, in plain JSON types.

    Attributes
    ----------
    engine : str
        One of `ENGINES`.
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
    if config.engine == "vllm":
        from sqs_codec.vllm import VllmEngine

        return VllmEngine(config.target, max_memory=config.max_memory)

    from sqs_codec.hf import Cloud, load_model
    from sqs_codec.serve._batch import BatchEngine

    target = load_model(config.target)
    cloud = Cloud(
        target.model,
        vocab_size=target.vocab_size,
        tokenizer=target.tokenizer,
        max_memory=config.max_memory << 20,
    )
    return BatchEngine(cloud, summary=target.summary, tokenizer=cloud.fingerprint)
