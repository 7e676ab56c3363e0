"""How far a verdict was from another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

import sqs_codec as sqs
from benchmarks.harness.sessions import drafted as drafted_by
from sqs_codec._codec.verify import Verdict
from sqs_codec.system.session import Job

if TYPE_CHECKING:
    from sqs_codec.system.hf import CachedModel


def margin(model: CachedModel, job: Job, one: Verdict, other: Verdict) -> float:
    """Return how far apart two verdicts on a job are, in probability.

    Where they accept different numbers of tokens, how far the random number was from
    the chance of acceptance at the first of these. Where they draw different tokens,
    how far it was from the part of [0, 1) that belongs to the one or the other. With
    a key, how much less probable the token that wins could have been, where the two
    are first apart, before the other one had won. At
    temperature 0, how much more probable than the second token the first one is, at
    temperature 1. All by the logits that the target gives for the text alone, read
    anew; the job's sampling is by temperature alone.
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
    if job.key is not None:
        tokens = [
            drafted[at] if at < verdict.accepted else verdict.token
            for verdict in (one, other)
        ]
        return _lead(probs, job, at, tokens)
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


def _lead(
    probs: NDArray[np.float64], job: Job, at: int, tokens: Sequence[int]
) -> float:
    """Return how much of its probability the winner of two tokens could lose."""
    assert job.key is not None
    with np.errstate(divide="ignore"):
        guesses = sqs.gumbel_guess(np.log(probs), job.key, len(job.text) + at, 8)
    chances = dict(zip(guesses.tokens, guesses.chances, strict=True))
    loser, winner = sorted(tokens, key=lambda token: chances.get(token, 0.0))
    if winner not in chances:
        return 1.0
    return float(probs[winner] * (1 - chances.get(loser, 0.0) / chances[winner]))


def _distance(ends: NDArray[np.float64], token: int, number: float) -> float:
    """Return how far a number is from a token's part of [0, 1)."""
    start = ends[token - 1] if token else 0.0
    return float(max(start - number, number - ends[token], 0.0))
