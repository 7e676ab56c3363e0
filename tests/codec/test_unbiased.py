"""Counts that are right on average, on every core and on the device's path.

`tests/reference` computes them with Python's integers, from the cumulated weights.
"""

from fractions import Fraction
from itertools import accumulate, pairwise

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec._backend import native, numba
from sqs_codec._base.errors import Status
from sqs_codec._codec.rows import as_rows
from tests.codec.test_gumbel import CORES, random_row, rows_alike
from tests.drafts import VOCAB_SIZE, held_out, load_drafts
from tests.kit import Given, softmax
from tests.reference import sqs_reference as reference

ALL = [*CORES, "numba", pytest.param("torch", marks=pytest.mark.torch)]
TEMPERATURES = [0, 1e-40, 0.3, 1, 3, 1e40]
FULL = 2**64


def core(name, vocab_size, resolution):
    if name == "numba":
        return numba.Core(vocab_size, resolution, 0, None)
    return native.Core(vocab_size, resolution, 0, None, isa=native.ISAS[name])


def count(name, rows, numbers, resolution, t):
    """Return what a core, or torch's path for devices, makes of rows."""
    vocab_size = rows.shape[1]
    if name == "torch":
        torch = pytest.importorskip("torch")
        from sqs_codec.torch import _unbiased

        codec = sqs.Codec(vocab_size, resolution)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_unbiased, "is_on_host", lambda rows: False)
            patch.setattr(_unbiased, "AT_ONCE", 3 * vocab_size)
            given = torch.tensor(rows), t, lambda n: np.array(numbers, np.uint64)
            return _unbiased.round_rows(codec, *given)
    given = np.array(numbers, np.uint64)
    status, done, *found = core(name, vocab_size, resolution).quantize_unbiased(
        rows, given, float(t)
    )
    assert (status, done) == (Status.OK, len(rows))
    return as_rows(*found, vocab_size, resolution)


@pytest.mark.parametrize("resolution", [1, 3, 50, 65536])
@pytest.mark.parametrize("name", ALL)
def test_the_mean_over_all_draws_is_the_distribution(name, resolution):
    """Up to any token: exactly, but that it is rounded down to a multiple of 2^-64.

    What tokens up to one count together grows with the number. So where it is the
    same for two numbers it is for those between, and all there are can be summed up.
    """
    logits = [3, -np.inf, 0.5, 0.5, 2, -31.7, 9, -np.inf, 8.3, 0.5, -3, -14.25, -9]
    row = np.array(logits, np.float32)
    weights = [*accumulate(reference.whole_weights(row, 0.7))]
    shares = [Fraction(resolution * end, weights[-1]) for end in weights]
    # At these numbers the tokens up to one get a mark more.
    steps = {-((s % 1 - 1) * FULL // 1) for s in shares if s.denominator > 1}
    ends = sorted({0, *map(int, steps), FULL})
    places = [place for a, b in pairwise(ends) for place in (a, b - 1)]
    found = count(name, np.tile(row, (len(places), 1)), places, resolution, 0.7)
    up_to = (found.to_dense(np.float64) * resolution).round().astype(int).cumsum(1)
    assert np.array_equal(up_to[::2], up_to[1::2])
    assert np.all(up_to[2::2] >= up_to[:-2:2])
    sizes = [b - a for a, b in pairwise(ends)]
    sums = [
        sum(size * int(n) for size, n in zip(sizes, of_token, strict=True))
        for of_token in up_to[::2].T
    ]
    assert sums == [s * FULL // 1 for s in shares]


@pytest.mark.parametrize("vocab_size", [2, 3, 16, 17, 255, 256, 257, 1000, 5000])
@pytest.mark.parametrize("name", ALL)
def test_every_core_counts_as_the_reference_does(name, vocab_size):
    """And each count is its share of the resolution, rounded down or up."""
    rng = np.random.default_rng(vocab_size)
    for i in range(30):
        row, t = random_row(rng, vocab_size), float(rng.choice(TEMPERATURES))
        resolution = int(rng.choice([1, 7, 50, 1000, 65536]))
        number = [0, FULL - 1, int(rng.integers(FULL, dtype=np.uint64))][i % 3]
        (q,) = count(name, row[None], [number], resolution, t)
        found = q.token_ids.tolist(), q.counts.tolist()
        assert found == reference.quantize_unbiased(row, t, resolution, number)
        if t > 0:
            dense = np.zeros(vocab_size, int)
            dense[q.token_ids] = q.counts
            weights = reference.whole_weights(row.astype(np.float64), t)
            total = sum(weights)
            floors = [resolution * w // total for w in weights]
            assert np.all((dense == floors) | (dense == np.add(floors, 1)))


@pytest.mark.parametrize("name", ALL)
def test_the_largest_rows(name):
    """Weights with the largest possible sum, and a single token."""
    size = 1 << 20
    rows = np.zeros((2, size), np.float16)
    rows[1] = -np.inf
    rows[1, size - 1] = -65504
    found = count(name, rows, [FULL - 1, 5], 65536, 1.0)
    assert found[0].token_ids.tolist() == list(range(0, size, 16))
    assert (found[1].token_ids, found[1].counts) == (size - 1, 65536)


@pytest.mark.parametrize("name", [*CORES, "numba"])
def test_every_core_accepts_the_same_rows(name):
    numbers = [5, FULL // 3, FULL - 7]
    rows, same, wide, brain = rows_alike()
    expected = count(name, rows, numbers, 100, 0.7)
    assert all(count(name, given, numbers, 100, 0.7) == expected for given in same)
    expected = count(name, wide, numbers, 100, 0.7)
    assert count(name, brain, numbers, 100, 0.7) == expected


def test_a_batch_equals_its_single_rows():
    """With any number of threads, all rows' random numbers are drawn at once."""
    codec = sqs.Codec(300, 40)
    rows = np.random.default_rng(4).normal(0, 2, (600, 300))[:, ::-1]
    numbers = np.random.default_rng(9).integers(0, FULL, size=600, dtype=np.uint64)
    singles = [
        codec.quantize_unbiased(row, temperature=0.7, rng=Given([number]))
        for row, number in zip(rows, numbers.tolist(), strict=True)
    ]
    for threads in (1, 2, 5):
        rng = np.random.default_rng(9)
        found = codec.quantize_unbiased_rows(
            rows, temperature=0.7, rng=rng, threads=threads
        )
        assert found == sqs.SparseRows.stack(singles)
    assert {q.dropped_mass for q in singles} == {0.0}
    assert len(codec.quantize_unbiased_rows(rows[:0], rng=rng)) == 0
    for q in singles[:20]:
        assert codec.decode(codec.encode(q)) == q


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_bad_row_is_named(value):
    codec, rng = sqs.Codec(300, 9), np.random.default_rng(0)
    for place in 0, 255, 299:
        rows = np.zeros((6, 300))
        rows[4] = -np.inf
        rows[4, place] = value
        is_masked = value == -np.inf
        said = ": every .*masked" if is_masked else rf"\[{place}\] is {value}"
        with pytest.raises(ValueError, match=rf"logits\[4\]{said}"):
            codec.quantize_unbiased_rows(rows, rng=rng, threads=2)
        with pytest.raises(ValueError, match=f"logits{said}"):
            codec.quantize_unbiased(rows[4], rng=rng)


def test_few_bytes_and_a_small_error():
    """On real rows that nothing was fitted to; 50 draws err by 0.11."""
    drafts, rng = load_drafts(), np.random.default_rng(1)
    codec = sqs.Codec(VOCAB_SIZE, 50, prior=sqs.Prior.builtin("smollm2"))
    sizes, errors = [], []
    for i in np.flatnonzero(held_out(drafts))[::2]:
        row = drafts.row(int(i))
        q = codec.quantize_unbiased(row, rng=rng)
        sizes.append(len(codec.encode(q)))
        errors.append(np.square(q.to_dense(np.float64) - softmax(row, 1.0)).sum())
    size, error = np.mean(sizes), np.sqrt(np.mean(errors))
    print(f"{len(sizes)} rows: {size:.1f} bytes, error {error:.4f}")
    assert size <= 24
    assert error <= 0.065
