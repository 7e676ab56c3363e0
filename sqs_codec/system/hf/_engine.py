"""The engine of a Hugging Face model."""

from __future__ import annotations

from sqs_codec.system.engine import BatchEngine, EngineConfig
from sqs_codec.system.hf._cloud import Cloud
from sqs_codec.system.hf._models import ModelError, load_model

__all__ = ["make_engine"]


def make_engine(config: EngineConfig) -> BatchEngine:
    """Load the model that a configuration names, and make an engine of it."""
    if config.options:
        raise ModelError(
            f"the engine transformers takes no options, not {', '.join(config.options)}"
        )
    target = load_model(
        config.target,
        device=config.device,
        dtype=config.dtype,
        revision=config.revision,
    )
    cloud = Cloud(
        target.model,
        vocab_size=target.vocab_size,
        tokenizer=target.tokenizer,
        max_memory=config.max_memory << 20,
    )
    summary = f"{target.summary} {target.placement}"
    if config.target_ms:
        summary += f", held to {config.target_ms:g} ms a pass,"
    return BatchEngine(
        cloud,
        summary=summary,
        tokenizer=cloud.fingerprint,
        pace=config.target_ms / 1e3,
    )
