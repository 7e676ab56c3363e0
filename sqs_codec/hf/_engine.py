"""The engine of a Hugging Face model."""

from __future__ import annotations

from sqs_codec.engine import BatchEngine, EngineConfig
from sqs_codec.hf._cloud import Cloud
from sqs_codec.hf._models import load_model

__all__ = ["make_engine"]


def make_engine(config: EngineConfig) -> BatchEngine:
    """Load the model that a configuration names, and make an engine of it."""
    target = load_model(config.target)
    cloud = Cloud(
        target.model,
        vocab_size=target.vocab_size,
        tokenizer=target.tokenizer,
        max_memory=config.max_memory << 20,
    )
    return BatchEngine(cloud, summary=target.summary, tokenizer=cloud.fingerprint)
