"""How far a verdict was from another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness.sessions import drafted as drafted_by
from sqs_codec._codec.verify import Verdict
from sqs_codec.session import Job

if TYPE_CHECKING:
    from sqs_codec.hf._models import CachedModel


def margin(model: CachedModel, job: Job, one: Verdict, other: Verdict) -> float:
    """Return how far apart two verdicts on a job are, in probability.

    Where they accept different numbers of tokens, how far the random number was from
    the chance of acceptance at the first of these. Where they draw different tokens,
    how far it was from the part of [0, 1) that belongs to the one or the other. At
    temperature 0, how much more probable than the second token the first one is, at
    temperature 1. All by the logits that the model gives for the text alone, read anew.

    Parameters
    ----------
    model : CachedModel
        The target.
    job : Job
        Whose sampling is by temperature alone.
    one, other : Verdict
        They differ.
    """
    drafted = drafted_by(job)
    logits = torch.from_numpy(model.logits([*job.text, *drafted], len(drafted) + 1))
    counts = sorted((one.accepted, other.accepted))
    at = counts[0]
    row, temperature = logits[at].double(), job.sampling.temperature
    if not temperature:
        first, second = row.softmax(-1).topk(2).values.tolist()
        return float(first - second)
    probs: NDArray[np.float64] = (row / temperature).softmax(-1).numpy()
    if counts[0] < counts[1]:
        assert job.round_ is not None
        token = drafted[at]
        chance = min(1.0, probs[token] / job.round_.distributions[at].prob(token))
        return abs(float(job.draws[at] - chance))
    number = job.draws[at]
    if at < len(drafted):  # the rejected token's number is spent
        assert job.round_ is not None
        q = job.round_.distributions[at]
        probs = np.maximum(probs - q.to_dense(np.float64), 0)
        number = job.draws[at + 1]
    ends = np.cumsum(probs) / probs.sum()
    return max(_distance(ends, verdict.token, number) for verdict in (one, other))


def _distance(ends: NDArray[np.float64], token: int, number: float) -> float:
    """Return how far a number is from a token's part of [0, 1)."""
    start = ends[token - 1] if token else 0.0
    return float(max(start - number, number - ends[token], 0.0))
