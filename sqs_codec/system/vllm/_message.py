"""What crosses between the engine and vLLM's worker: jobs in, two numbers out."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from sqs_codec import Codec, Sampling
from sqs_codec.system.session import Job

TASK = "token_classify"
"""The pooling task of requests: vLLM's second model runner knows no task of plugins."""

READ = 0, 0  # the answer where nothing was to be verified
SHORT = -1, 0  # the answer where rows are missing: those of tokens in the prefix cache
FAILED = -2, 0  # the answer where verifying failed

_codec = lru_cache(maxsize=64)(Codec)


def pack_job(job: Job) -> dict[str, Any]:
    """Return what a request is to carry beside its text, in plain types."""
    fields: dict[str, Any] = {"sampling": job.sampling.config()}
    if job.key is not None:
        shared = {"key": job.key, "hints": [*job.hints], "position": len(job.text)}
        return fields | shared
    fields["draws"] = job.draws.tolist()
    if job.round_ is not None:
        codec = _codec(job.round_.vocab_size, job.round_.resolution)
        fields["packet"] = codec.encode_round(job.round_)
        fields["resolution"] = codec.resolution
    return fields


def count_wanted(fields: Mapping[str, Any]) -> int:
    """Return how many rows of logits a request wants, at its text's end."""
    if "task" in fields:
        return int(fields["wanted"])
    if "key" in fields:
        return len(fields["hints"]) + 1
    return len(fields.get("draws", ()))


def unpack_job(fields: Mapping[str, Any], vocab_size: int) -> Job:
    """Return the job of a request, without session and with a text of that length."""
    sampling = Sampling.from_config(fields["sampling"])
    if "key" in fields:
        text, hints = range(fields["position"]), fields["hints"]
        return Job(b"", text, None, np.empty(0), sampling, hints, fields["key"])
    round_, packet = None, fields.get("packet")
    if packet is not None:
        round_ = _codec(vocab_size, fields["resolution"]).decode_round(packet)
    return Job(b"", (), round_, np.array(fields["draws"]), sampling)
