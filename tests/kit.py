"""Makers of inputs and checks of properties, for all tests."""

import math
import os
import time
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st
from numpy.typing import ArrayLike

import sqs_codec as sqs
from sqs_codec._base.prior_file import Tables
from tests.reference import entropy
from tests.reference import prior as reference_priors

CODINGS = ["bitpack", "enumerative", "entropy"]
CODECS = [*CODINGS, "prior"]
"""The codecs of `make_codec`."""
KEEPS = {"top_k": sqs.TopK, "threshold": sqs.Threshold}


class Both(sqs.Keep):
    """A rule of a user's, with a limit of each kind."""

    def __init__(self, k: int, beta: float) -> None:
        self.both = k, beta

    def __repr__(self) -> str:
        return f"Both{self.both}"

    def limits(self, state: float) -> tuple[int, float]:
        """See `sqs.Keep.limits`."""
        return self.both


TIMES = int(os.environ.get("TIMES", "1"))
"""Multiplies the random cases of some tests, before a release."""

VOCABS = st.sampled_from([2, 3, 256, 257, 49152, 1 << 20]) | st.integers(2, 1 << 20)
RESOLUTIONS = st.sampled_from([1, 2, 100, 1 << 16]) | st.integers(1, 1 << 16)
SEEDS = st.integers(0, 2**32)

T = TypeVar("T")


def timed(call: Callable[..., T], *given: Any, **options: Any) -> tuple[T, float]:
    """Return a call's result, and the processor seconds that it takes.

    Only of this thread, so that a busy machine changes little.
    """
    began = time.thread_time()
    found = call(*given, **options)
    return found, time.thread_time() - began


@lru_cache(maxsize=64)
def make_prior(vocab_size: int, classes: int, style: int = 0) -> sqs.Prior:
    """Return a prior by a formula, of one of three styles.

    0: weights fall with the id, and each class prefers other ids; 1: random weights,
    up to the largest allowed; 2: a range of ids for each class, and tiny weights
    outside this range.
    """
    rng = np.random.default_rng([vocab_size, classes, style])
    top = 8 * int(math.log2((1 << 31) // vocab_size))  # if all ids weigh that
    kinds = rng.integers(0, 256, vocab_size)
    codes = rng.integers(0, top + 1, (classes, 256))
    if style == 0:
        octaves = np.log2(np.arange(vocab_size) + 1)
        kinds = (12 * octaves + rng.integers(0, 16, vocab_size)).astype(int)
        falling = top - np.arange(256) // 2 - 8
        codes = np.clip(falling + rng.integers(-24, 9, (classes, 256)), 0, top)
    elif style == 2:
        kinds = np.arange(vocab_size) * classes // vocab_size
        codes = np.where(np.arange(256) == np.arange(classes)[:, None], top, top // 9)
    return as_prior(rng.integers(1, 256, (classes + 1, classes)), codes, kinds)


def as_prior(chances: ArrayLike, codes: ArrayLike, kinds: ArrayLike) -> sqs.Prior:
    tables = (np.asarray(table, np.uint8) for table in (chances, codes, kinds))
    return sqs.Prior.from_bytes(Tables(*tables).write())


def any_prior(rng: np.random.Generator, vocab_size: int) -> sqs.Prior:
    """Return a prior, of few classes if it is large."""
    classes = [c for c in (1, 2, 5, 32) if c == 1 or c * vocab_size <= 1 << 20]
    return make_prior(vocab_size, int(rng.choice(classes)), int(rng.integers(3)))


def make_codec(name: str, vocab_size: int, resolution: int = 100) -> sqs.Codec:
    """Return a codec of a coding, or ("prior") of the entropy coding with a prior."""
    if name == "prior":
        return sqs.Codec(vocab_size, resolution, prior=make_prior(vocab_size, 5))
    return sqs.Codec(vocab_size, resolution, name)


@lru_cache(maxsize=16)
def parsed(prior: sqs.Prior | None) -> Any:
    return prior and reference_priors.parse(prior.to_bytes())


def random_set(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
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


Make = Callable[[np.random.Generator, int, int, int], sqs.SparseDistribution]
MAKERS: tuple[Make, Make] = (random_distribution, likely_distribution)


def any_distribution(
    rng: np.random.Generator,
    codec: sqs.Codec,
    most: int = 40,
    makers: Sequence[Make] = MAKERS,
) -> sqs.SparseDistribution:
    """Return a distribution of at most `most` tokens that a codec can hold."""
    k = int(rng.integers(1, min(most, codec.max_survivors) + 1))
    make = makers[rng.integers(len(makers))]
    return make(rng, codec.vocab_size, codec.resolution, k)


def any_round(
    rng: np.random.Generator,
    codec: sqs.Codec,
    length: int | None = None,
    most: int = 40,
    makers: Sequence[Make] = MAKERS,
) -> sqs.Round:
    """Return a round, of one to three distributions unless the length is given."""
    drafted = [
        any_distribution(rng, codec, most, makers)
        for _ in range(length or rng.integers(1, 4))
    ]
    return sqs.Round(drafted, [q.sample(rng) for q in drafted])


@st.composite
def codecs(draw: Any, codings: Sequence[str] = CODINGS) -> sqs.Codec:
    """Draw a codec; of the entropy coding, half have a prior."""
    vocab_size, resolution = draw(VOCABS), draw(RESOLUTIONS)
    coding, prior = draw(st.sampled_from(codings)), None
    if coding == "entropy" and draw(st.booleans()):
        prior = any_prior(np.random.default_rng(draw(SEEDS)), vocab_size)
    return sqs.Codec(vocab_size, resolution, coding, prior)


@st.composite
def codecs_and_distributions(
    draw: Any, coding: str
) -> tuple[sqs.Codec, sqs.SparseDistribution]:
    """Draw a codec and a distribution that it can hold, of any size."""
    codec = draw(codecs([coding]))
    most = codec.max_survivors
    k = draw(st.just(most) | st.integers(1, most) | st.integers(1, min(64, most)))
    make = draw(st.sampled_from(MAKERS))
    rng = np.random.default_rng(draw(SEEDS))
    return codec, make(rng, codec.vocab_size, codec.resolution, k)


def permuted(
    q: sqs.SparseDistribution, rng: np.random.Generator, vocab_size: int
) -> sqs.SparseDistribution:
    """Return the same counts for ids that follow no order."""
    ids = random_set(rng, vocab_size, q.token_ids.size)
    return sqs.SparseDistribution(ids, rng.permutation(q.counts), vocab_size)


def layouts(array: np.ndarray) -> list[np.ndarray]:
    """Return arrays with the same values, each laid out otherwise in memory."""
    shape, dtype = array.shape, array.dtype
    frozen = array.copy()
    frozen.flags.writeable = False
    spread = np.full((*shape, 3), np.nan, dtype)
    spread[..., 1] = array
    gapped = np.full((*shape[:-1], shape[-1] + 5), np.nan, dtype)
    gapped[..., 2:-3] = array
    bytes_ = np.frombuffer(b"\0" + array.tobytes(), np.uint8)
    unaligned = bytes_[1:].view(dtype).reshape(shape)
    turned = np.asfortranarray(array), array[::-1].copy()[::-1]
    return [frozen, spread[..., 1], gapped[..., 2:-3], unaligned, *turned]


def normal_rows(
    seed: int, n: int, vocab_size: int, dtype: Any = np.float32
) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(0, 3, (n, vocab_size))
    return rows.astype(dtype)


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
    k = int(rng.choice([1, 2, 8, 64, 10_000]))
    beta = float(rng.choice([-1, 0, 1e-6, 1e-3, 0.1, 0.5, 2]))
    return [sqs.TopK(k), sqs.Threshold(beta), Both(k, beta)][rng.integers(3)]


class Given(np.random.Generator):
    """Hands out the numbers it was given instead of random ones."""

    def __init__(self, numbers: Sequence[float]) -> None:
        super().__init__(np.random.PCG64(0))
        self.numbers = list(numbers)

    def take(self, size: int) -> list[float]:
        """Return the next numbers."""
        taken, self.numbers = self.numbers[:size], self.numbers[size:]
        return taken

    def integers(self, low: int, high: int = 0, **how: Any) -> Any:
        """Return one integer below a limit, or several of 64 bits."""
        if not how:
            (number,) = self.take(1)
            assert number < low
            return number
        assert (low, high, how["dtype"]) == (0, 2**64, np.uint64)
        return np.array(self.take(how["size"]), np.uint64)

    def random(self, size: int) -> np.ndarray:
        """Return the next numbers, then zeros."""
        taken = self.take(size)
        return np.array(taken + [0.0] * (size - len(taken)))


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


def with_check(data: bytes) -> bytes:
    """Return the file of a prior with the check that belongs to it."""
    return bytes(data[:-4]) + zlib.crc32(data[:-4]).to_bytes(4, "little")


def mutate_prior(rng: np.random.Generator, data: bytes) -> bytes:
    """Change a file of a prior, mostly in a few bytes and with a check that fits."""
    changed = bytearray(data)
    kind = rng.integers(10)
    if kind == 0:
        return mutate(rng, data)
    if kind == 1:
        del changed[rng.integers(1, len(data) + 1) :]
    elif kind == 2:
        changed += rng.bytes(int(rng.integers(1, 4)))
    for _ in range(rng.integers(1, 4)):
        at = rng.integers(min(len(changed), 40) if kind < 6 else len(changed))
        changed[at] = rng.choice([0, 1, 255, changed[at] ^ 1, rng.integers(256)])
    return with_check(changed)


def check_round_trip(codec: sqs.Codec, q: sqs.SparseDistribution) -> bytes:
    """Check that q survives the codec, and its size; return its packet.

    For entropy coding, `bits` is an estimate, if a good one; see
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


def entropy_bits(codec: sqs.Codec, q: sqs.SparseDistribution) -> float:
    """Return what the entropy coding spends on a packet, by the reference."""
    shape = codec.vocab_size, codec.resolution
    return entropy.bits(*as_lists(q)[:2], *shape, parsed(codec.prior))


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
    excess = int(counts.sum() - resolution)
    if excess:
        step = -1 if excess > 0 else 1
        n, order = abs(excess), np.lexsort((step * np.arange(k), step * errors))
        counts[order[:n]] += step
        margin = min(margin, step * (errors[order[n]] - errors[order[n - 1]]))
    dense = np.zeros(logits.size)
    dense[kept] = counts
    return dense, float(margin)
