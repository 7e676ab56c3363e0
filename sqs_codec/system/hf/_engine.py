"""The engine of a Hugging Face model."""

from sqs_codec.system.engine import BatchEngine, EngineConfig, paced
from sqs_codec.system.hf._cloud import Cloud
from sqs_codec.system.hf._models import ModelError, load_model


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
    return paced(
        cloud,
        summary=f"{target.summary} {target.placement}",
        tokenizer=cloud.fingerprint,
        target_ms=config.target_ms,
    )
