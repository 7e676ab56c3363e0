"""Makers of inputs and checks of properties, for the tests that follow."""

from __future__ import annotations

import math

import numpy as np

import sqs_codec as sqs
from tests.reference import entropy
from tests.reference import sqs_reference as reference

CODINGS = ["bitpack", "enumerative", "entropy"]
RULES = {0: "top_k", 1: "threshold", 2: "top_p", 3: "min_p"}


def random_set(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Return k of range(n), ascending."""
    if k >= n // 4:
        return np.sort(rng.permutation(n)[:k])
    found = np.unique(rng.integers(0, n, 2 * k + 8))
    while found.size < k:
        found = np.union1d(found, rng.integers(0, n, k))
    return np.sort(rng.permutation(found)[:k])


def random_distribution(
    rng: np.random.Generator, vocab_size: int, resolution: int, k: int
) -> sqs.SparseDistribution:
    """Return a uniformly random support with a uniformly random composition."""
    cuts = random_set(rng, resolution - 1, k - 1) + 1
    counts = np.diff(np.concatenate([[0], cuts, [resolution]]))
    return sqs.SparseDistribution(random_set(rng, vocab_size, k), counts, vocab_size)


def likely_distribution(
    rng: np.random.Generator, vocab_size: int, resolution: int, k: int
) -> sqs.SparseDistribution:
    """Return a distribution of at most k tokens such as a language model has.

    Low ids are frequent, and counts fall off steeply.
    """
    span = math.log(vocab_size)
    ids = np.unique(np.exp(span * rng.random(k)).astype(np.int64) - 1)
    weights = np.exp(-rng.exponential(3, ids.size))
    counts = np.floor(resolution * weights / weights.sum()).astype(np.int64)
    counts[weights.argmax()] += resolution - counts.sum()
    return sqs.SparseDistribution(ids[counts > 0], counts[counts > 0], vocab_size)


def permuted(
    q: sqs.SparseDistribution, rng: np.random.Generator, vocab_size: int
) -> sqs.SparseDistribution:
    """Return the same counts for ids that follow no order."""
    ids = random_set(rng, vocab_size, q.token_ids.size)
    return sqs.SparseDistribution(ids, rng.permutation(q.counts), vocab_size)


def random_logits(rng: np.random.Generator, vocab_size: int) -> np.ndarray:
    """Return logits of a random dtype that try hard to be awkward."""
    row = rng.normal(0, 1, vocab_size) * rng.choice([0, 1e-3, 1, 6, 100, 1e4])
    kind = rng.integers(6)
    if kind == 0:  # ties
        row = np.round(row)
    elif kind == 1:  # subnormals of float32 and of float16
        row *= rng.choice([1e-41, 1e-6])
    elif kind == 2:  # masked tokens
        row[rng.random(vocab_size) < 0.5] = -np.inf
    elif kind == 3:  # one token far ahead
        row[rng.integers(vocab_size)] += 50
    elif kind == 4:  # signed zeros
        row = np.where(rng.random(vocab_size) < 0.5, -0.0, 0.0)
    row[rng.integers(vocab_size)] = 1.0
    with np.errstate(over="ignore"):
        row = row.astype(rng.choice([np.float16, np.float32, np.float64]))
    return np.minimum(row, np.finfo(row.dtype).max)


def random_probs(rng, vocab_size):
    """Return a distribution, peaked or flat, some of it exactly 0."""
    probs = rng.dirichlet(np.full(vocab_size, rng.choice([0.01, 1, 100])))
    probs[probs < 1e-9] = 0
    return probs.astype(rng.choice([np.float32, np.float64]))


def random_keep(rng: np.random.Generator) -> sqs.Keep:
    """Return a rule that isn't always a sensible one."""
    kind = rng.integers(4)
    if kind == 0:
        return sqs.TopK(int(rng.choice([1, 2, 8, 64, 10_000])))
    if kind == 1:
        return sqs.Threshold(float(rng.choice([-1, 0, 1e-6, 1e-3, 0.1, 0.5, 2])))
    if kind == 2:
        return sqs.TopP(float(rng.choice([1e-9, 0.5, 0.9, 1 - 1e-12, 1])))
    return sqs.MinP(float(rng.choice([0, 1e-3, 0.1, 1])))


class Draws(np.random.Generator):
    """Stands in for the edge's generator: hands out the integers it was given."""

    def __init__(self, numbers: list[int]) -> None:
        super().__init__(np.random.PCG64(0))
        self.numbers = list(numbers)

    def integers(self, high: int) -> int:  # type: ignore[override]  # all we need
        """Return the next one."""
        assert self.numbers[0] < high
        return self.numbers.pop(0)


def mutate(rng: np.random.Generator, packet: bytes) -> bytes:
    """Flip bits, cut, extend or overwrite."""
    data = bytearray(packet)
    for _ in range(rng.integers(1, 4)):
        kind = rng.integers(8)
        if kind < 4 and data:
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        elif kind == 4:
            del data[rng.integers(len(data) + 1) :]
        elif kind == 5:
            data += rng.bytes(int(rng.integers(1, 4)))
        elif kind == 6:
            data[: len(data) // 2] = rng.bytes(len(data) // 2)
        else:
            data = bytearray(rng.bytes(len(data)))
    return bytes(data)


def check_round_trip(codec: sqs.Codec, q: sqs.SparseDistribution) -> bytes:
    """Check that q survives the codec, and its size; return its packet.

    What `bits` says of the entropy coding is an estimate, if a good one; see
    test_size.py.
    """
    data = codec.encode(q)
    assert codec.decode(data) == q
    bits = codec.bits(q)
    if codec.coding != "entropy":
        assert len(data) == -(-bits // 8)
    else:
        slack = 3 + bits / 500
        assert 8 * len(data) - 9 - slack <= bits <= 8 * len(data) + slack
    return data


def wire_resolution(codec: sqs.Codec) -> int:
    """Return the resolution as the reference takes it: 0 if it is sent along."""
    resolution = codec.resolution
    return 0 if isinstance(resolution, sqs.Resolution) else resolution


def entropy_bits(codec: sqs.Codec, q: sqs.SparseDistribution) -> float:
    """Return what the entropy coding spends on a packet, by the reference."""
    coder = entropy.Writer()
    entropy.code_distribution(
        coder, q.vocab_size, wire_resolution(codec), entropy.Memory(), *as_lists(q)[:2]
    )
    return 56 + 8 * coder.shifts - math.log2(coder.range)


def enumerative_bits(q: sqs.SparseDistribution) -> float:
    """Return what a rank and the size of the support take, before rounding up."""
    k = q.token_ids.size
    size = math.comb(q.vocab_size, k) * math.comb(q.resolution - 1, k - 1)
    return math.log2(size) + (min(q.vocab_size, q.resolution) - 1).bit_length()


def reference_quantize(
    row: np.ndarray,
    keep: sqs.Keep,
    temperature: float,
    codec: sqs.Codec,
    bits_per_tv: float | None = None,
) -> tuple[list[int], list[int], float]:
    """Ask the reference for (ids, counts, dropped mass)."""
    rule = codec.resolution
    return reference.quantize_logits(
        row,
        temperature,
        RULES[keep._kind],
        keep._value,
        wire_resolution(codec),
        rule.error if isinstance(rule, sqs.Resolution) else None,
        bits_per_tv or 0.0,
    )


def as_lists(q: sqs.SparseDistribution) -> tuple[list[int], list[int], float | None]:
    """Return (ids, counts, dropped mass) as the reference gives them."""
    return q.token_ids.tolist(), q.counts.tolist(), q.dropped_mass


def softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    """NumPy's own, in float64."""
    z = logits.astype(np.float64) / temperature
    e = np.exp(z - z.max())
    return e / e.sum()


def independent_counts(
    logits: np.ndarray, k: int, temperature: float, resolution: int
) -> tuple[np.ndarray, float]:
    """Top-k and Reznik's nearest type by the book, with NumPy in float64.

    Returns the counts of the whole vocabulary, and how far the decisions taken
    were from a tie.
    """
    probs = softmax(logits, temperature)
    kept = np.sort(np.argsort(-logits, kind="stable")[:k])
    exact = resolution * (probs[kept] / probs[kept].sum())
    counts = np.floor(exact + 0.5)
    errors = counts - exact
    margin = np.abs(np.abs(errors) - 0.5).min()
    order = np.lexsort((-np.arange(k), errors))
    excess = int(counts.sum() - resolution)
    if excess > 0:
        counts[order[-excess:]] -= 1
    elif excess < 0:
        order = np.lexsort((np.arange(k), errors))
        counts[order[:-excess]] += 1
    if excess:
        cut = len(order) - excess if excess > 0 else -excess
        margin = min(margin, errors[order[cut]] - errors[order[cut - 1]])
    dense = np.zeros(logits.size)
    dense[kept] = counts
    return dense, float(margin)
