"""Resolutions that follow the distribution, and points that are worth their bits."""

from __future__ import annotations

import numpy as np
import pytest

import sqs_codec as sqs
from tests.kit import RULES, as_lists, random_keep, random_logits, random_probs, softmax
from tests.reference import entropy
from tests.reference import sqs_reference as reference

pytestmark = pytest.mark.usefixtures("backend")

ERRORS = [1e-9, 0.001, 0.01, 0.1, 1.0]
PRICES = [None, 1e-3, 1.0, 30.0, 300.0, 3000.0, 1e6, 1e300]
TEMPERATURES = [0, 1e-40, 0.3, 0.7, 1.0, 5.0]


def random_resolution(rng: np.random.Generator) -> int | sqs.Resolution:
    """Return a rule more often than a number."""
    if rng.random() < 0.6:
        return sqs.Resolution(float(rng.choice(ERRORS)))
    return int(rng.choice([1, 2, 3, 100, 1000, 1 << 16]))


def expected(
    quantize: str, codec: sqs.Codec, row: np.ndarray, keep: sqs.Keep, *arguments: float
) -> tuple[list[int], list[int], float]:
    """Ask the reference; the last argument is bits_per_tv."""
    *temperature, bits_per_tv = arguments
    resolution, error = codec.resolution, None
    if isinstance(resolution, sqs.Resolution):
        resolution, error = 0, resolution.error
    function = getattr(reference, f"quantize_{quantize}")
    rule = RULES[keep._kind], keep._value
    options = resolution, error, bits_per_tv or 0.0
    return function(row, *temperature, *rule, *options)


def variation(q: sqs.SparseDistribution, probs: np.ndarray) -> float:
    """Return the total variation to a dense distribution."""
    return float(np.maximum(0, q.to_dense(np.float64) - probs).sum())


def bits(q: sqs.SparseDistribution) -> float:
    """Return what counts and ids cost."""
    ids, counts = q.token_ids.tolist(), q.counts.tolist()
    cost = min(entropy.counts_costs(q.vocab_size, q.resolution, counts))
    cost += min(entropy.ids_costs(q.vocab_size, ids, entropy.Memory()))
    return cost / 2**32


def moved(
    codec: sqs.Codec, row: np.ndarray, keep: sqs.Keep, temperature: float
) -> tuple[float, int, float]:
    """Return what quantization alone moves, at which resolution, and the mass."""
    q = codec.quantize(row, keep, temperature)
    everything = sqs.Codec(codec.vocab_size, 1 << 16).quantize(row, keep, temperature)
    assert np.isin(q.token_ids, everything.token_ids).all()
    kept = np.zeros(codec.vocab_size)
    kept[everything.token_ids] = softmax(row, temperature)[everything.token_ids]
    return variation(q, kept / kept.sum()), q.resolution, q.dropped_mass


@pytest.mark.parametrize("seed", range(300))
def test_awkward_logits(seed):
    rng = np.random.default_rng(seed)
    vocab_size = int(rng.choice([2, 3, 15, 17, 64, 65, 300, 700]))
    codec = sqs.Codec(vocab_size, random_resolution(rng), "entropy")
    row, keep = random_logits(rng, vocab_size), random_keep(rng)
    temperature, price = float(rng.choice(TEMPERATURES)), rng.choice(PRICES)
    q = codec.quantize(row, keep, temperature, price)
    assert as_lists(q) == expected("logits", codec, row, keep, temperature, price)


@pytest.mark.parametrize("seed", range(100))
def test_probabilities(seed):
    rng = np.random.default_rng(seed)
    vocab_size = int(rng.choice([2, 17, 300]))
    probs = random_probs(rng, vocab_size)
    codec = sqs.Codec(vocab_size, random_resolution(rng), "entropy")
    keep, price = random_keep(rng), rng.choice(PRICES)
    q = codec.quantize_probs(probs, keep, price)
    assert as_lists(q) == expected("probs", codec, probs, keep, price)


@pytest.mark.parametrize(
    ("resolution", "price"),
    [(sqs.Resolution(), None), (sqs.Resolution(), 1000.0), (100, 1000.0)],
)
def test_real_drafts(real_rows, resolution, price):
    codec = sqs.Codec(49152, resolution, "entropy")
    for row in real_rows[::4]:
        q = codec.quantize(row, sqs.TopK(64), 0.7, price)
        want = expected("logits", codec, row, sqs.TopK(64), 0.7, price)
        assert as_lists(q) == want


@pytest.mark.parametrize("error", [0.003, 0.03])
@pytest.mark.parametrize("keep", [sqs.TopK(64), sqs.Threshold(1e-3), sqs.TopP(0.9)])
def test_the_coarsest_resolution_that_is_fine_enough(real_rows, keep, error):
    codec = sqs.Codec(49152, sqs.Resolution(error), "entropy")
    for row in real_rows:
        distance, resolution, dropped = moved(codec, row, keep, 0.7)
        most = max(error, dropped)
        assert distance <= most + 1e-9
        if resolution > 1:
            coarser = sqs.Codec(49152, resolution // 2, "entropy")
            assert moved(coarser, row, keep, 0.7)[0] > most - 1e-9


@pytest.mark.parametrize("price", [100.0, 1000.0, 5000.0])
def test_no_plain_point_is_better(real_rows, price):
    keep = sqs.TopK(48)
    for row in real_rows[::3]:
        probs = softmax(row, 0.7)
        plain = {
            resolution: sqs.Codec(49152, resolution, "entropy").quantize(row, keep, 0.7)
            for resolution in (100, *(1 << e for e in range(17)))
        }
        sums = {r: bits(q) + price * variation(q, probs) for r, q in plain.items()}
        fixed = sqs.Codec(49152, 100, "entropy").quantize(row, keep, 0.7, price)
        assert bits(fixed) + price * variation(fixed, probs) <= sums.pop(100) + 1e-6
        assert set(fixed.token_ids) <= set(plain[100].token_ids)
        rule = sqs.Codec(49152, sqs.Resolution(), "entropy")
        free = rule.quantize(row, keep, 0.7, price)
        assert bits(free) + price * variation(free, probs) <= min(sums.values()) + 1e-6


@pytest.mark.parametrize("resolution", [128, sqs.Resolution()])
def test_a_higher_price_buys_less_variation_for_more_bits(real_rows, resolution):
    codec = sqs.Codec(49152, resolution, "entropy")
    means = []
    for price in (30.0, 300.0, 3000.0, 30000.0):
        points = [
            (codec.quantize(row, sqs.TopK(64), 0.7, price), softmax(row, 0.7))
            for row in real_rows
        ]
        means.append(np.mean([(-bits(q), variation(q, p)) for q, p in points], axis=0))
    assert np.all(np.diff(means, axis=0) < 0)


def test_resolutions_of_simple_rows():
    def chosen(row, error, k=1 << 20, **options):
        codec = sqs.Codec(len(row), sqs.Resolution(error), "entropy")
        q = codec.quantize(np.array(row, np.float64), sqs.TopK(k), **options)
        return q.counts.tolist()

    assert chosen([0, -np.inf, -np.inf], 1e-9) == [1]
    assert chosen([0, 0], 1e-9) == [1, 1]
    assert chosen([0, np.log(3)], 1e-9) == [1, 3]
    assert chosen([0, np.log(3)], 0.25) == [1]  # three quarters are three too few
    assert chosen([0.0] * 16, 1e-9) == [1] * 16
    assert chosen([0.0] * 16, 1) == [1]
    # A half is dropped, and so as much may be moved.
    assert chosen([0.0] * 16, 1e-9, k=8) == [1] * 4
    assert chosen([0.0] * 16, 1e-9, bits_per_tv=1e9) == [1] * 16
    assert chosen([0.0] * 16, 1e-9, bits_per_tv=1e-9) == [1]
    # Two in three can't be counted in powers of two, with 1e-9 to spare.
    assert sum(chosen([0, np.log(2)], 1e-9)) == 1 << 16
    assert sum(chosen([0.0] * (1 << 17), 1e-9)) == 1 << 16


@pytest.mark.parametrize("price", [None, 300.0])
def test_temperature_zero(price):
    row = np.array([0, 3, 9, 9, -np.inf], np.float32)
    for resolution, counts in [(100, [100]), (sqs.Resolution(), [1])]:
        q = sqs.Codec(5, resolution, "entropy").quantize(row, sqs.TopK(3), 0, price)
        assert (q.token_ids.tolist(), q.counts.tolist()) == ([2], counts)


@pytest.mark.parametrize("resolution", [100, sqs.Resolution()])
def test_masked_tokens_are_never_kept(resolution):
    row = np.array([-np.inf, 1, -np.inf, 1, -np.inf, -np.inf])
    codec = sqs.Codec(6, resolution, "entropy")
    for price in (None, 100.0):
        q = codec.quantize(row, sqs.TopK(6), bits_per_tv=price)
        assert q.token_ids.tolist() == [1, 3]


def test_a_large_support():
    """Only so many tokens are tried."""
    row = np.random.default_rng(0).normal(0, 1, 20000).astype(np.float32)
    codec = sqs.Codec(20000, 1 << 16, "entropy")
    plain = codec.quantize(row, sqs.TopK(5000))
    q = codec.quantize(row, sqs.TopK(5000), bits_per_tv=1e-3)
    dropped = plain.token_ids.size - q.token_ids.size
    assert reference.MOST_TRIALS / 2 < dropped <= reference.MOST_TRIALS
    assert codec.decode(codec.encode(q)) == q


def test_a_drafter_passes_the_price_on():
    codec, keep = sqs.Codec(200, sqs.Resolution(), "entropy"), sqs.TopK(50)
    rows = np.random.default_rng(0).normal(0, 2, (4, 200))
    options = {"rng": np.random.default_rng(1), "bits_per_tv": 200.0}
    edge = sqs.Drafter(codec, keep, **options)
    for row in rows:
        edge.push(row, 0.7)
    sent = codec.decode_round(edge.finish()).distributions
    assert list(sent) == [codec.quantize(row, keep, 0.7, 200.0) for row in rows]
    assert list(sent) != [codec.quantize(row, keep, 0.7) for row in rows]


def test_bad_errors():
    for error in (0, -0.5, 1.5, np.nan):
        with pytest.raises(ValueError, match="error must be"):
            sqs.Resolution(error)
    with pytest.raises(TypeError, match="error must be a number, got"):
        sqs.Resolution("0.1")


@pytest.mark.parametrize(
    ("price", "error", "message"),
    [
        (0, ValueError, "bits_per_tv must be finite and above 0, got 0"),
        (-1.0, ValueError, "above 0, got -1"),
        (np.inf, ValueError, "finite and above 0, got inf"),
        (np.nan, ValueError, "finite and above 0, got nan"),
        ("much", TypeError, "bits_per_tv must be a number, got 'much'"),
    ],
)
def test_bad_prices(price, error, message):
    codec = sqs.Codec(3, 100, "entropy")
    rng = np.random.default_rng(0)
    with pytest.raises(error, match=message):
        codec.quantize(np.zeros(3), sqs.TopK(2), bits_per_tv=price)
    with pytest.raises(error, match=message):
        codec.quantize_probs([0.5, 0.5, 0.0], sqs.TopK(2), price)
    with pytest.raises(error, match=message):
        sqs.Drafter(codec, sqs.TopK(2), rng=rng, bits_per_tv=price)


@pytest.mark.parametrize("coding", ["bitpack", "enumerative"])
def test_other_codings_have_no_price(coding):
    codec = sqs.Codec(3, 100, coding)
    with pytest.raises(ValueError, match=f"of coding 'entropy', not '{coding}'"):
        codec.quantize(np.zeros(3), sqs.TopK(2), bits_per_tv=100)
    with pytest.raises(ValueError, match="only 'entropy' can send one"):
        sqs.Codec(3, sqs.Resolution(), coding)
