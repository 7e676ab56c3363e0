"""How jobs are verified by the logits of a Hugging Face model."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np
import torch

from sqs_codec import Verdict
from sqs_codec.system.session import Job, Sampling
from sqs_codec.torch import gumbel_verify, verify_rounds
from sqs_codec.torch._tensors import detached

__all__ = ["truncated", "verify_jobs"]

FIRST_LOOK = 512
"""How many of the largest logits are looked at before a top-p sorts them all."""


def verify_jobs(jobs: Sequence[Job], logits: torch.Tensor) -> list[Verdict | None]:
    """Return the verdict on each job, None where its text is only to be read.

    As `sqs_codec.system.session.verify_jobs`, on logits where they are: for rounds
    together, and for hints, an accelerator is waited for twice.

    Parameters
    ----------
    jobs : sequence of Job
    logits : torch.Tensor of float16, bfloat16, float32 or float64 [n, V]
    """
    rows = detached("logits", logits)
    parts = torch.split(rows, [job.wanted for job in jobs])
    cut = [truncated(part, job.sampling) for job, part in zip(jobs, parts, strict=True)]
    uncut = all(map(operator.is_, cut, parts))  # what is only scaled isn't copied
    wanted = [i for i, job in enumerate(jobs) if job.wanted]
    verdicts: dict[int, Verdict] = {}
    for verify, keyed in (_verify_rounds, False), (_verify_hints, True):
        own = [i for i in wanted if keyed == (jobs[i].key is not None)]
        if not own:
            continue
        if not uncut or len(own) < len(jobs):
            rows = torch.cat([cut[i] for i in own])
        found = verify([jobs[i] for i in own], rows)
        verdicts |= zip(own, found, strict=True)
    return [verdicts.get(i) for i in range(len(jobs))]


def _verify_rounds(jobs: Sequence[Job], rows: torch.Tensor) -> list[Verdict]:
    return verify_rounds(
        [job.round_ for job in jobs],
        rows,
        np.concatenate([job.draws for job in jobs]),
        temperature=[job.sampling.temperature for job in jobs],
    )


def _verify_hints(jobs: Sequence[Job], rows: torch.Tensor) -> list[Verdict]:
    return gumbel_verify(
        [job.hints for job in jobs],
        rows,
        [job.key or b"" for job in jobs],
        [len(job.text) for job in jobs],
        temperature=[job.sampling.temperature for job in jobs],
    )


def truncated(rows: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Return logits [n, V] with -inf for the tokens that are never to be drawn.

    Those that `sqs_codec.gumbel_draw` leaves, tie for tie, in float64 as there. Sums
    are added up in another order: where the probabilities of `top_p` or `min_p` are
    nearer to the limit than that rounds, some 1e-13 of it, a token more or less may
    stay. Which stay depends on the temperature, but it isn't applied.
    """
    temperature, top_k, top_p, min_p = sampling.config().values()
    if not temperature or (top_k, top_p, min_p) == (0, 1, 0):
        return rows
    top, size = rows.amax(1, keepdim=True).double(), rows.shape[1]

    def weigh(part: torch.Tensor) -> torch.Tensor:
        """Return probabilities times a factor, so that the largest is 1."""
        return torch.exp((part.double() - top) / temperature)

    if 0 < top_k < size:
        values = rows.topk(top_k, 1).values
        goals = top_p * weigh(values).sum(1, keepdim=True)
    elif top_p < 1:
        values = rows.topk(min(FIRST_LOOK, size), 1).values
        goals = top_p * weigh(rows).sum(1, keepdim=True)
        if (weigh(values).sum(1, keepdim=True) < goals).any():
            values = rows.sort(1, descending=True).values
    else:
        return rows.masked_fill(weigh(rows) < min_p, -torch.inf)
    weights = weigh(values)
    counts = (weights >= min_p).sum(1, keepdim=True).clamp(min=1)
    if top_p < 1:
        before = (weights.cumsum(1) < goals).sum(1, keepdim=True)
        counts = counts.minimum((before + 1).clamp(max=values.shape[1]))
    return _largest(rows, values, counts)


def _largest(
    rows: torch.Tensor, values: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """Mask all but so many of the largest logits of each row, of equal ones the first.

    `values` has the largest, in descending order.
    """
    least = values.gather(1, counts - 1)
    equal = rows == least
    spare = counts - (rows > least).sum(1, keepdim=True)
    cut = (rows < least) | (equal & (equal.cumsum(1) > spare))
    return rows.masked_fill(cut, -torch.inf)
