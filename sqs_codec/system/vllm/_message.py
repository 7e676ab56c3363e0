"""Messages between the engine and vLLM's worker: jobs in, two numbers out."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from sqs_codec import Codec, Sampling
from sqs_codec.system.session import Job, Read, VerifyHints, VerifyRound

TASK = "token_classify"
"""The pooling task of requests. vLLM's second model runner accepts no custom tasks."""

READ = 0, 0  # answer if there was nothing to verify
SHORT = -1, 0  # answer if logits are missing, as tokens are in the prefix cache
FAILED = -2, 0  # answer if verification failed

_codec = lru_cache(maxsize=64)(Codec)


def pack_job(job: Job) -> dict[str, Any]:
    """Return the fields of a job for a request, in plain types."""
    if isinstance(job, Read):
        return {}
    fields: dict[str, Any] = {"sampling": job.sampling.config()}
    if isinstance(job, VerifyHints):
        shared = {"key": job.key, "hints": [*job.hints], "position": len(job.text)}
        return fields | shared
    fields["draws"] = job.draws.tolist()
    if job.round is not None:
        codec = _codec(job.round.vocab_size, job.round.resolution)
        fields["packet"] = codec.encode_round(job.round)
        fields["resolution"] = codec.resolution
    return fields


def count_wanted(fields: Mapping[str, Any]) -> int:
    """Return the number of logits that a request wants, at its last positions."""
    if "task" in fields:
        return int(fields["wanted"])
    if "key" in fields:
        return len(fields["hints"]) + 1
    return len(fields.get("draws", ()))


def unpack_job(fields: Mapping[str, Any], vocab_size: int) -> VerifyHints | VerifyRound:
    """Return the job of a request, without a session; its text has the right length."""
    sampling = Sampling.from_config(fields["sampling"])
    if "key" in fields:
        text, hints = range(fields["position"]), fields["hints"]
        return VerifyHints(b"", text, hints, fields["key"], sampling)
    round_, packet = None, fields.get("packet")
    if packet is not None:
        round_ = _codec(vocab_size, fields["resolution"]).decode_round(packet)
    return VerifyRound(b"", (), round_, np.array(fields["draws"]), sampling)
