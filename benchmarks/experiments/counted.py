"""The time of a completion in rounds, computed without sampling.

Given the completion, the acceptances at its positions are independent. So the expected
number of rounds that start at each position is exact. A round takes the time of its
draft steps, its bits, a round trip and the target's step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from benchmarks.experiments.estimate import ratio
from benchmarks.experiments.experiment import Records
from benchmarks.experiments.models import Models
from benchmarks.harness.rounds import LENGTHS
from benchmarks.schemes import Row, codec
from sqs_codec.system._base.protocol import ROUND_HEAD
from sqs_codec.system.serve._datagram.link import DatagramLink
from tests.world import Steps


class Uplink(NamedTuple):
    """A link: uplink in bits per second, round-trip time in seconds."""

    rate: float
    trip: float

    @property
    def asked(self) -> float:
        """The seconds on the network of a message without drafts and its answer."""
        return self.trip + 8 * (ROUND_HEAD + DatagramLink.overhead) / self.rate

    def __str__(self) -> str:
        unit, name = (1e6, "Mbit/s") if self.rate >= 1e6 else (1e3, "kbit/s")
        return f"{self.rate / unit:g} {name}, {1000 * self.trip:g} ms"


UPLINKS = (Uplink(1e4, 0.1), Uplink(1e5, 0.05), Uplink(1e7, 0.02))
"""A low-bandwidth radio link, a poor mobile link, a good access network."""

Floats = NDArray[np.float64]


class Count(NamedTuple):
    """The expected cost of a completion with rounds of one length."""

    rounds: float
    drafted: float
    bytes: float
    """Bytes of messages without headers."""

    def seconds(self, uplink: Uplink, steps: Steps) -> float:
        """Return the seconds of the completion over a link."""
        message = 8 * DatagramLink.overhead / uplink.rate
        each = uplink.trip + message + steps.target
        drafting = self.drafted * (steps.draft + steps.more)
        return self.rounds * each + drafting + 8 * self.bytes / uplink.rate


def count(accepted: Floats, bits: Floats, length: int) -> Count:
    """Return the expected cost of a completion of n tokens.

    Each token is accepted with probability `accepted` [n] and takes `bits` [n]. A round
    has `length` drafts, fewer at the end.

    >>> count(np.ones(6), np.full(6, 8.0), 2)
    Count(rounds=2.0, drafted=4.0, bytes=12.0)
    """
    n = len(accepted)
    begins = np.zeros(n + 1)  # the probability that a round begins at each position
    begins[0] = 1
    rounds = drafted = size = 0.0
    ends = np.concatenate([[0.0], bits.cumsum()])
    for i in range(n):
        here = min(length, n - 1 - i)
        rounds += begins[i]
        drafted += begins[i] * here
        size += begins[i] * (ROUND_HEAD + math.ceil((ends[i + here] - ends[i]) / 8))
        reached = begins[i] * np.cumprod([1.0, *accepted[i : i + here]])
        begins[i + 1 : i + 1 + here] += reached[:-1] - reached[1:]
        begins[i + 1 + here] += reached[-1]
    return Count(float(rounds), float(drafted), float(size))


def counts(
    models: Models, rows: Iterable[Row], tokens: Sequence[int]
) -> list[list[float]]:
    """Return the expected cost of a completion for each length of rounds."""
    one, keep = codec(models.vocab_size, 100, "entropy", models.prior), sqs.TopK(64)
    found = []
    for row, token in zip(rows, tokens, strict=True):
        q = row.send(keep, one.resolution).q
        # On average, the token takes the entropy of its distribution.
        drawn = -float(q.probs @ np.log2(q.probs))
        found.append((min(1.0, q.prob(token) / row.p[token]), one.bits(q) + drawn))
    accepted, bits = np.array(found).T
    return [list(count(accepted, bits, n)) for n in LENGTHS]


def fastest(
    records: Records, rows: Floats, uplink: Uplink, steps: Steps
) -> dict[str, Any]:
    """Return the length with the most tokens per second; 0 means no draft."""
    steps = steps._replace(draft=records[0]["step"])
    seconds = {0: uplink.asked + rows * steps.target}
    of_lengths = zip(*(record["counts"] for record in records), strict=True)
    for length, texts in zip(LENGTHS, of_lengths, strict=True):
        seconds[length] = np.array([Count(*t).seconds(uplink, steps) for t in texts])
    rates = {length: rows.sum() / taken.sum() for length, taken in seconds.items()}
    best = max(rates, key=rates.__getitem__)
    return {
        "length": best,
        "speed": ratio(rows, seconds[best]).as_json(),
        "alone": float(rates[0]),
    }
