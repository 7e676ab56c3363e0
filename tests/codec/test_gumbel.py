"""Tokens drawn by numbers that both ends share.

`tests/reference/gumbel.py` makes all numbers and skips none; `csrc/gumbel.c` and Numba
make few.
"""

import math
from decimal import Decimal
from functools import partial

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec import Sampling
from sqs_codec._backend import native, numba
from sqs_codec._base.errors import Status
from sqs_codec._codec import gumbel
from tests.backends import using
from tests.reference import gumbel as reference

KEY = bytes(range(16))
CORES = [*(name for name, isa in native.ISAS.items() if native.lib.sqs_find_isa(isa))]
SIZES = [2, 3, 63, 64, 65, 1000, 1024, 1025, 4097, 49_152]
TEMPERATURES = [0, 1e-40, 1e-20, 0.1, 0.7, 1, 3, 1e35, 1e300]


def race(name):
    """Return what a core draws by."""
    if name == "numba":
        return numba.Core.gumbel
    return partial(native.Core.gumbel, isa=native.ISAS[name])


def random_row(rng, vocab_size):
    """Return logits that are spread, equal, far apart, masked or steep by blocks."""
    row = rng.normal(0, rng.choice([0, 0.01, 1, 4, 20, 1e4]), vocab_size)
    if rng.random() < 0.3:
        row = np.round(row)
    if rng.random() < 0.3:
        row[rng.random(vocab_size) < rng.choice([0.1, 0.9, 0.999])] = -np.inf
    if rng.random() < 0.2:
        row[:: int(rng.integers(60, 70))] += 20
    row[rng.integers(vocab_size)] = 1
    return row.astype(rng.choice(["f2", "f4", "f8"]))


@pytest.mark.parametrize("vocab_size", SIZES)
@pytest.mark.parametrize("name", [*CORES, "numba"])
def test_every_core_agrees_with_the_reference(name, vocab_size):
    rng = np.random.default_rng(vocab_size)
    ours = race(name)
    for _ in range(40 if vocab_size < 10_000 else 6):
        row, most = random_row(rng, vocab_size), int(rng.integers(1, 9))
        temperature = float(rng.choice(TEMPERATURES))
        if row.dtype == np.float64 and temperature > 1:
            row *= min(temperature, 1e303)
        key = rng.integers(2**32, size=4, dtype=np.uint32)
        position = int(rng.integers(2**64, dtype=np.uint64))
        found = ours(row, temperature, key, position, most)
        expected = reference.race(row, temperature, key.tolist(), position, most)
        assert found == (Status.OK, 1, [expected])


def rows_alike():
    """Return rows, the same of any type, with anything between them and locked.

    And rows in bfloat16, with the same in single precision.
    """
    rows = np.random.default_rng(3).normal(0, 4, (3, 1000)).astype(np.float16)
    apart = np.full((3, 1007), np.nan, np.float32)
    apart[:, :1000] = rows
    frozen = rows.copy()
    frozen.flags.writeable = False
    brain = (rows.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    wide = (brain.astype(np.uint32) << 16).view(np.float32)
    same = rows, rows.astype(np.float32), apart[:, :1000], frozen
    return rows.astype(np.float64), same, wide, brain


@pytest.mark.parametrize("name", [*CORES, "numba"])
def test_every_core_accepts_the_same_rows(name):
    words, ours = np.arange(4, dtype=np.uint32), race(name)
    rows, same, wide, brain = rows_alike()
    expected = ours(rows, 0.7, words, 5, 3)
    assert all(ours(given, 0.7, words, 5, 3) == expected for given in same)
    expected = ours(wide, 0.7, words, 5, 3)
    assert ours(brain, 0.7, words, 5, 3) == expected
    one = [ours(row, 0.7, words, 5 + i, 3)[2][0] for i, row in enumerate(wide)]
    assert expected == (Status.OK, 3, one)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", [*CORES, "numba"])
def test_a_bad_value_is_found_at_any_position(name, dtype):
    ours, words = race(name), np.zeros(4, np.uint32)
    rows = np.full((2, 300), -np.inf, dtype)
    rows[0, 7] = 0
    assert ours(rows, 0.7, words, 0, 1)[:2] == (Status.ALL_MASKED, 1)
    for bad in (np.nan, np.inf):
        for place in range(300):
            rows[1, place] = bad
            found = ours(rows, 0.7, words, 0, 1)
            assert found[:2] == (Status.NOT_FINITE, 1)
            rows[1, place] = -np.inf


@pytest.mark.parametrize("temperature", [0, 1e-40, 0.7, 5])
def test_the_first_guess_is_the_draw(temperature):
    rng = np.random.default_rng(1)
    for position in range(200):
        row = random_row(rng, 100)
        place = row, KEY, position
        sampling = Sampling(temperature)
        guesses = sqs.gumbel_guess(*place, 8, sampling=sampling)
        token = sqs.gumbel_draw(*place, sampling=sampling)
        assert guesses.tokens[0] == token
        assert len(set(guesses.tokens)) == len(guesses.tokens) == len(guesses.chances)
        assert [*guesses.chances] == sorted(guesses.chances, reverse=True)
        assert sum(guesses.chances) == pytest.approx(1)
        some = sqs.gumbel_guess(*place, 2, sampling=sampling)
        assert some.tokens == guesses.tokens[:2]
        assert some.chances == guesses.chances[:2]


@pytest.mark.parametrize("temperature", [0, 0.7])
def test_its_own_draws_are_verified(temperature):
    rows = np.random.default_rng(2).normal(0, 2, (6, 50))
    options = {"sampling": Sampling(temperature, top_k=20)}
    own = [sqs.gumbel_draw(row, KEY, 9 + i, **options) for i, row in enumerate(rows)]
    for accepted in range(6):
        drafted = own[:5]
        if accepted < 5:
            drafted[accepted] = (own[accepted] + 1) % 50
        verdict = sqs.gumbel_verify(drafted, rows, KEY, 9, **options)
        assert verdict == sqs.Verdict(accepted, own[accepted])
    assert sqs.gumbel_verify([], rows[:1], KEY, 9, **options).token == own[0]


CUTS = [
    # sampling, tokens that can be drawn of these logits
    ({}, {0, 1, 2, 3, 4, 6}),
    ({"top_k": 2}, {1, 3}),
    ({"top_k": 3}, {1, 3, 0}),
    ({"top_k": 100}, {0, 1, 2, 3, 4, 6}),
    ({"top_p": 0.0}, {1}),
    ({"top_p": 0.29}, {1, 3}),
    ({"top_p": 0.51}, {1, 3, 0}),
    ({"top_p": 0.74}, {0, 1, 2, 3}),
    ({"top_p": 0.76}, {0, 1, 2, 3, 4}),
    ({"top_k": 3, "top_p": 0.5}, {1, 3}),
    ({"min_p": 0.51}, {1, 3}),
    ({"min_p": 0.49}, {0, 1, 2, 3, 4, 6}),
    ({"min_p": 0.2, "temperature": 0.5}, {0, 1, 2, 3, 4, 6}),
    ({"min_p": 0.3, "temperature": 0.5}, {1, 3}),
]


@pytest.mark.parametrize(("sampling", "tokens"), CUTS)
def test_ties_at_a_cut_keep_the_lower_ids(sampling, tokens):
    """With p of 1/8, 1/4, 1/8, 1/4, 1/8, 0, 1/8."""
    row = np.log(np.array([1, 2, 1, 2, 1, 0.5, 1]) / 8)
    row[5] = -np.inf
    how = Sampling(**sampling)
    drawn = {sqs.gumbel_draw(row, KEY, i, sampling=how) for i in range(200)}
    assert drawn == tokens


def test_a_wide_nucleus_is_found():
    """Of many tokens that are about as likely."""
    row = np.random.default_rng(4).normal(0, 0.1, 3000).astype(np.float32)
    p = np.exp(row.astype(float))
    order = np.argsort(-row, kind="stable")
    n = int(np.searchsorted(np.cumsum(p[order]) / p.sum(), 0.5)) + 1
    masked = np.full_like(row, -np.inf)
    masked[order[:n]] = row[order[:n]]
    for i in range(20):
        drawn = sqs.gumbel_draw(row, KEY, i, sampling=Sampling(top_p=0.5))
        assert drawn == sqs.gumbel_draw(masked, KEY, i)


@pytest.mark.parametrize("kind", [np.float16, Decimal])
def test_any_positive_temperature_works(kind):
    rows = random_row(np.random.default_rng(3), 80)[None]
    for call, given in (
        (sqs.gumbel_draw, (rows[0], KEY, 0)),
        (sqs.gumbel_guess, (rows[0], KEY, 0, 2)),
        (sqs.gumbel_verify, ([], rows, KEY, 0)),
    ):
        samplings = [Sampling(t, top_k=9) for t in (kind("0.5"), 0.5)]
        found = [call(*given, sampling=sampling) for sampling in samplings]
        assert found[0] == found[1]


def zipf(size, power):
    """Return logits of a power law, in shuffled order."""
    ranks = np.random.default_rng(0).permutation(size) + 1
    return -power * np.log(ranks)


def rare():
    """Return logits of 2^18 tokens: one has half of the probability."""
    logits = np.zeros(1 << 18)
    logits[1000] = math.log(logits.size - 1)
    return logits


@pytest.mark.parametrize(
    "logits",
    [zipf(65, 0.5), zipf(100, 2.0), zipf(40, 12.0), rare()],
    ids=["odd sizes", "skewed", "steep", "rare"],
)
def test_draws_follow_the_softmax(logits):
    draws, batch = 30_000, 1000
    key = np.random.default_rng(1).integers(2**32, size=4, dtype=np.uint32)
    rows = np.broadcast_to(logits.astype(np.float32), (batch, logits.size))
    with using("native"):
        best = [
            tokens[0]
            for at in range(0, draws, batch)
            for tokens, _ in gumbel.race(rows, 1.0, key, at, 1, str)
        ]
    weights = np.exp(logits - logits.max())
    expected = weights / weights.sum() * draws
    # Neighbors share a bin until ten draws are expected in it.
    bins = (expected.cumsum() // 10.0).astype(int)
    expected = np.bincount(bins, expected)
    seen = np.bincount(bins[best], minlength=expected.size)
    some = expected > 0
    square = ((seen - expected)[some] ** 2 / expected[some]).sum()
    # Laurent and Massart 2000, lemma 1: more has a probability of at most exp(-x).
    k, x = np.count_nonzero(some) - 1, 6
    assert square < k + 2 * math.sqrt(k * x) + 2 * x
