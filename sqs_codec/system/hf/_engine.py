"""The engine of a Hugging Face model."""

from collections.abc import Sequence
from typing import Any

import torch

from sqs_codec import Verdict
from sqs_codec.system._caching import TextPiece, pass_seconds
from sqs_codec.system.engine import BatchEngine, EngineConfig
from sqs_codec.system.hf._cloud import Cloud
from sqs_codec.system.hf._models import ModelError, load_model
from sqs_codec.system.hf._ragged import Cache
from sqs_codec.system.session import Job

FEW = 32  # forward passes of fewer tokens use the fastest number of threads
WORSE = 1.5  # the search for it stops if a time exceeds the best by this factor


def make_engine(config: EngineConfig) -> BatchEngine:
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
    on_cpu = target.model.device.type == "cpu"
    cloud = (ThreadedCloud if on_cpu else Cloud)(
        target.model,
        vocab_size=target.vocab_size,
        tokenizer=target.tokenizer,
        max_memory=config.max_memory << 20,
    )
    return BatchEngine(
        cloud,
        summary=f"{target.summary} {target.placement}",
        tokenizer=cloud.fingerprint,
        target_ms=config.target_ms,
    )


class ThreadedCloud(Cloud):
    """A `Cloud` on a CPU that uses fewer threads in short forward passes."""

    # Threads wait for each other at each layer. With a small model and few tokens they
    # wait for longer than one thread takes for everything.

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._all = torch.get_num_threads()
        times: dict[int, float] = {}
        for shift in range(self._all.bit_length()):
            self._few = self._all >> shift
            times[self._few] = pass_seconds(self)
            if times[self._few] > WORSE * min(times.values()):
                break
        self._few = min(times, key=times.__getitem__)

    def _verify(
        self, pieces: Sequence[TextPiece[Cache]], jobs: Sequence[Job]
    ) -> list[Verdict | None]:
        tokens = sum(len(piece.tokens) for piece in pieces)
        torch.set_num_threads(self._few if tokens < FEW else self._all)
        return super()._verify(pieces, jobs)
