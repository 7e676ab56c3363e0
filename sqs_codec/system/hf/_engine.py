"""The engine of a Hugging Face model."""

import statistics
import time

import numpy as np

from sqs_codec.system.engine import BatchEngine, EngineConfig
from sqs_codec.system.hf._cloud import Cloud
from sqs_codec.system.hf._models import ModelError, load_model
from sqs_codec.system.session import Job, Sampling


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
        own = 1e3 * _pass_seconds(cloud)
        summary += f", held to {config.target_ms:g} ms a pass (by itself {own:.0f} ms),"
    return BatchEngine(
        cloud, summary=summary, tokenizer=cloud.fingerprint, pace=config.target_ms / 1e3
    )


def _pass_seconds(cloud: Cloud) -> float:
    job = Job(b"pace", [0] * 8, None, np.zeros(1), Sampling())
    times = []
    for _ in range(6):  # the first of them reads the text
        began = time.perf_counter()
        cloud.verify([job])
        times.append(time.perf_counter() - began)
    cloud.forget(job.session)
    return statistics.median(times[1:])
