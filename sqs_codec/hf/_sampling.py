"""How jobs are verified by the logits of a Hugging Face model."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from sqs_codec._codec.verify import Verdict
from sqs_codec.session import Job, Sampling
from sqs_codec.torch import verify_batch

__all__ = ["truncated", "verify_jobs"]


def verify_jobs(jobs: Sequence[Job], logits: torch.Tensor) -> Sequence[Verdict]:
    """Verify all jobs at once.

    Parameters
    ----------
    jobs : sequence of Job
        Their texts aren't read.
    logits : torch.Tensor [n, V]
        On any device: as many rows as the jobs have draws, in their order.
    """
    if not jobs:
        return []
    parts = torch.split(logits, [len(job.draws) for job in jobs])
    rows = [
        truncated(part, job.sampling) for job, part in zip(jobs, parts, strict=True)
    ]
    return verify_batch(
        [job.round_ for job in jobs],
        # What is only scaled isn't copied.
        torch.cat(rows) if any(map(operator.is_not, rows, parts)) else logits,
        np.concatenate([job.draws for job in jobs]),
        temperature=[job.sampling.temperature for job in jobs],
    )


def truncated(rows: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Return logits [n, V] with -inf for the tokens that are never to be drawn.

    Which these are depends on the temperature, but it isn't applied.
    """
    warpers = LogitsProcessorList()
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    if not warpers or not sampling.temperature:
        return rows
    # A lower temperature leaves the same one token, but overflows float32.
    warpers.insert(0, TemperatureLogitsWarper(max(sampling.temperature, 1e-30)))
    warped = warpers(torch.LongTensor(), rows.float())
    return rows.masked_fill(warped == -torch.inf, -torch.inf)
