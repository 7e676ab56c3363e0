"""What the models of the entropy coding cost in real numbers.

The coder works with integers: chances in 256ths, powers from tables, a range that is
cut into whole shares. Here the same models are evaluated in floating point, without
a coder, so that what the integers and the bytes add can be told. ``docs/format.md``
defines the models; only `Recent`, which is integers by definition, is computed as
the format has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from sqs_codec._model import ID_WEIGHTS, SPLIT_CHANCES

UNIFORM_CHANCE = 16 / 256
MORE_CHANCE = 192 / 256
MAX_ROUND = 256
MAX_EXPONENT = 16
FIRST_HOME = 6
ONE_TOKEN_CHANCE = 64 / 256
CLASSES = (4, 7)
FULL_DEPTH, TOP_DEPTH = 3, 8

ID_EDGES = np.array([0, *(e << b for b in range(4, 19) for e in (2, 3)), 1 << 20])
ID_STARTS = np.concatenate([[0], np.cumsum(np.diff(ID_EDGES) * np.array(ID_WEIGHTS))])
"""What all ids below each bucket weigh."""

MEMORY_TOKENS = 512
MEMORY_SUPPORT = 256
NEW_WEIGHT = 1024
LEAST_WEIGHT = 32


@dataclass
class Parts:
    """Bits by what they say.

    Attributes
    ----------
    resolution : float
        The exponent of a resolution that is sent along.
    size : float
        How many tokens: spent where counts are coded uniformly, and otherwise
        implied by counts that add up to the resolution.
    counts, ids : float
        With the bit that chooses between model and uniform.
    token : float
        The drafted token, -log2 of its probability.
    framing : float
        Whether another distribution follows.
    """

    resolution: float = 0.0
    size: float = 0.0
    counts: float = 0.0
    ids: float = 0.0
    token: float = 0.0
    framing: float = 0.0

    @property
    def total(self) -> float:
        """The sum."""
        return float(sum(getattr(self, field.name) for field in fields(self)))

    def add(self, other: Parts) -> None:
        """Add up part by part."""
        for field in fields(self):
            both = getattr(self, field.name) + getattr(other, field.name)
            setattr(self, field.name, both)


class Recent:
    """The tokens of recent supports, which the ids of the next are likely among."""

    def __init__(self) -> None:
        self.ids = np.zeros(0, np.int64)
        self.weights = np.zeros(0, np.int64)
        self.seen = 0
        self.home = FIRST_HOME

    def unit(self, vocab_size: int) -> int:
        """Return what one unit of weight counts in the mixed model."""
        if not self.weights.size:
            return 0
        whole = int(id_position(np.array([vocab_size]))[0])
        return whole * self.seen // (self.seen + 8) // int(self.weights.sum())

    def learn(self, ids: NDArray[np.int64]) -> None:
        """Let all fade and add a support, unless it is very large."""
        if ids.size > MEMORY_SUPPORT:
            return
        self.seen = min(self.seen + 1, 255)
        faded = self.weights - (self.weights >> 5)
        merged = np.union1d(self.ids, ids)
        weights = np.zeros(merged.size, np.int64)
        weights[np.searchsorted(merged, self.ids)] = faded
        weights[np.searchsorted(merged, ids)] += NEW_WEIGHT
        least = LEAST_WEIGHT
        stays = weights >= least
        while stays.sum() > MEMORY_TOKENS:
            least *= 2
            stays = weights >= least
        self.ids, self.weights = merged[stays], weights[stays]


def id_position(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what all ids below each of `ids` weigh in the static model."""
    bucket = np.searchsorted(ID_EDGES, ids, side="right") - 1
    bucket = np.minimum(bucket, len(ID_WEIGHTS) - 1)
    inside = (ids - ID_EDGES[bucket]) * np.array(ID_WEIGHTS)[bucket]
    return np.asarray(ID_STARTS[bucket] + inside)


def round_parts(
    distributions: Sequence[sqs.SparseDistribution],
    tokens: Sequence[int],
    *,
    sends_resolution: bool,
) -> Parts:
    """Return what a self-contained round costs ideally.

    Parameters
    ----------
    distributions, tokens : sequence
        As `Codec.encode_round` takes them.
    sends_resolution : bool
        Whether the codec's resolution is a rule.

    Examples
    --------
    >>> q = sqs.SparseDistribution([3], [100], vocab_size=49152)
    >>> parts = round_parts([q, q], [3, 3], sends_resolution=False)
    >>> parts.token, round(parts.framing, 2)
    (0.0, 2.42)
    """
    parts, recent = Parts(), Recent()
    for q, token in zip(distributions, tokens, strict=True):
        if sends_resolution:
            parts.resolution += exponent_bits(recent, q.resolution.bit_length() - 1)
        parts.add(distribution_parts(q, recent))
        parts.token -= math.log2(q.prob(token))
        recent.learn(q.token_ids.astype(np.int64))
    parts.framing -= (len(tokens) - 1) * math.log2(MORE_CHANCE)
    if len(tokens) < MAX_ROUND:
        parts.framing -= math.log2(1 - MORE_CHANCE)
    return parts


def exponent_bits(recent: Recent, exponent: int) -> float:
    """Return the bits of a resolution's exponent."""
    if exponent == 0:
        return -math.log2(ONE_TOKEN_CHANCE)
    bits = -math.log2(1 - ONE_TOKEN_CHANCE)
    home, recent.home = recent.home, exponent
    if exponent == home:
        return bits + 1
    bits += 1 + (1 < home < MAX_EXPONENT)
    # An even bit at every place passed on the way tells whether to stop there.
    return bits + abs(exponent - home) - (exponent in (1, MAX_EXPONENT))


def distribution_parts(q: sqs.SparseDistribution, recent: Recent) -> Parts:
    """Return what one distribution costs, each half by model or uniformly."""
    modelled, uniform = -math.log2(1 - UNIFORM_CHANCE), -math.log2(UNIFORM_CHANCE)
    parts = Parts()
    k = len(q.counts)
    size = math.log2(min(q.vocab_size, q.resolution))
    parts.counts = modelled + counts_bits(q)
    evenly = uniform + log2_binomial(q.resolution - 1, k - 1)
    if size + evenly < parts.counts:
        parts.size, parts.counts = size, evenly
    ids = q.token_ids.astype(np.int64)
    parts.ids = min(
        modelled + ids_bits(ids, q.vocab_size, recent),
        uniform + log2_binomial(q.vocab_size, k),
    )
    return parts


def counts_bits(q: sqs.SparseDistribution) -> float:
    """Return the bits of the descending counts, and of which token has which."""
    counts = np.sort(q.counts.astype(np.int64))[::-1]
    left, limit, bits = q.resolution, q.resolution, 0.0
    for i, count in enumerate(counts.tolist()):
        low = -(-left // (q.vocab_size - i))
        bits += count_bits(low, min(limit, left), left, count)
        left, limit = left - count, count
    _, repeats = np.unique(counts, return_counts=True)
    return bits + log2_factorial(counts.size) - sum(map(log2_factorial, repeats))


@lru_cache(maxsize=1 << 20)
def count_bits(low: int, high: int, left: int, count: int) -> float:
    """Return the bits of one count, by halving low..high."""
    chances = SPLIT_CHANCES[
        (min(high.bit_length() - 1, CLASSES[0]) - 1) * CLASSES[1]
        + min((left // high).bit_length(), CLASSES[1])
        - 1
    ]
    bits, node, depth = 0.0, 1, 0
    while low < high:
        chance = 0.5
        if depth < FULL_DEPTH:
            chance = chances[node - 1] / 256
        elif depth < TOP_DEPTH and node == (2 << depth) - 1:
            chance = chances[(1 << FULL_DEPTH) - 1 + depth - FULL_DEPTH] / 256
        middle = (low + high) // 2
        up = count > middle
        bits -= math.log2(chance if up else 1 - chance)
        low, high = (middle + 1, high) if up else (low, middle)
        node, depth = 2 * node + up, depth + 1
    return bits


def ids_bits(ids: NDArray[np.int64], vocab_size: int, recent: Recent) -> float:
    """Return the bits of a support, each id the least of those to come."""
    unit = recent.unit(vocab_size)
    sums = np.concatenate([[0], np.cumsum(recent.weights)])

    def rest(x: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return what each x and all ids above it weigh."""
        ends = np.array([vocab_size])
        below = id_position(x) + unit * sums[np.searchsorted(recent.ids, x)]
        return np.asarray(id_position(ends)[0] + unit * sums[-1] - below, np.float64)

    left = np.arange(ids.size, 0, -1)
    first = np.concatenate([[0], ids[:-1] + 1])
    last = vocab_size - left
    at = rest(ids)
    bits = left * (np.log2(rest(first)) - np.log2(at))
    # The last id that leaves room for the others takes the chances of all above it.
    inner = ids < last
    share = (at - rest(ids + 1))[inner] / at[inner]
    bits[inner] -= np.log2(-np.expm1(left[inner] * np.log1p(-share)))
    return float(bits[first < last].sum())


def log2_factorial(n: int) -> float:
    """Return log2 n!."""
    return math.lgamma(int(n) + 1) / math.log(2)


def log2_binomial(n: int, k: int) -> float:
    """Return log2 of n over k."""
    return log2_factorial(n) - log2_factorial(k) - log2_factorial(n - k)
