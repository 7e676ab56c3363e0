"""How far a verdict was from another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from sqs_codec._codec.verify import Verdict, Wanted
from sqs_codec.session import Job

if TYPE_CHECKING:
    from sqs_codec.hf._models import CachedModel


def margin(
    model: CachedModel, job: Job, one: Verdict | Wanted, other: Verdict | Wanted
) -> float:
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
    one, other : Verdict or Wanted
        They differ.
    """
    drafted = [] if job.round_ is None else list(job.round_.tokens)
    logits = torch.from_numpy(model.logits([*job.text, *drafted], len(drafted) + 1))
    counts = sorted(map(_accepted, (one, other)))
    at = counts[0]
    row, temperature = logits[at].double(), job.sampling.temperature
    if not temperature:
        first, second = row.softmax(-1).topk(2).values.tolist()
        return float(first - second)
    probs: NDArray[np.float64] = (row / temperature).softmax(-1).numpy()
    if counts[0] < counts[1]:
        assert job.round_ is not None
        token = job.round_.tokens[at]
        chance = min(1.0, probs[token] / job.round_.distributions[at].prob(token))
        return abs(float(job.draws[at] - chance))
    number = job.draws[at]
    if at < len(drafted):  # the rejected token's number is spent
        assert job.round_ is not None
        q = job.round_.distributions[at]
        probs = np.maximum(probs - q.to_dense(np.float64), 0)
        number = job.draws[at + 1]
    ends = np.cumsum(probs) / probs.sum()
    assert isinstance(one, Verdict)
    assert isinstance(other, Verdict)
    return max(_distance(ends, verdict.token, number) for verdict in (one, other))


def _accepted(verdict: Verdict | Wanted) -> int:
    return verdict.accepted if isinstance(verdict, Verdict) else verdict.position


def _distance(ends: NDArray[np.float64], token: int, number: float) -> float:
    """Return how far a number is from a token's part of [0, 1)."""
    start = ends[token - 1] if token else 0.0
    return float(max(start - number, number - ends[token], 0.0))
