"""The theory's formulas against brute force, and its bounds against adversaries."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import sqs_codec as sqs
from sqs_codec import theory

THREE = sqs.SparseDistribution([1], [4], 3)


def is_ceiling(bits, count):
    """Return whether bits = ceil(log2(count)), by its definition."""
    return count <= 2**bits < 2 * count


@pytest.mark.parametrize("exponent", [1, 16, 52, 53, 54, 64, 200])
def test_ceilings_are_exact_next_to_powers_of_two(exponent):
    # C(n, 1) = n puts the argument where floats can't tell it from a power of two.
    power = 2**exponent
    assert theory.paper_support_bits(power, 1) == exponent
    assert theory.paper_support_bits(power + 1, 1) == exponent + 1
    assert theory.paper_count_bits(2, power - 1) == exponent
    assert theory.paper_count_bits(2, power) == exponent + 1
    assert theory.enumerative_bits(power, 1, 1) == exponent
    assert theory.enumerative_bits(power + 1, 1, 1) == exponent + 1


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 300))
def test_formulas_meet_their_definitions(vocab, size, resolution):
    assume(size <= vocab)
    supports = math.comb(vocab, size)
    of_support = theory.paper_support_bits(vocab, size)
    assert is_ceiling(of_support, supports)
    of_counts = theory.paper_count_bits(size, resolution)
    assert is_ceiling(of_counts, math.comb(resolution + size - 1, size - 1))
    both = theory.paper_bits(vocab, size, resolution)
    assert both == of_support + of_counts
    conformal = theory.paper_bits(vocab, size, resolution, conformal=True)
    assert is_ceiling(conformal - both, vocab)
    if size <= resolution:
        joint = supports * math.comb(resolution - 1, size - 1)
        assert is_ceiling(theory.enumerative_bits(vocab, size, resolution), joint)


@given(st.integers(2, 2**20), st.integers(1, 128), st.integers(1, 2**16), st.data())
def test_survivors_only_never_exceeds_the_paper(vocab, support, resolution, data):
    support = min(support, vocab)
    survivors = data.draw(st.integers(1, min(support, resolution)))
    ours = theory.enumerative_bits(vocab, survivors, resolution)
    saved = math.comb(vocab - survivors, support - survivors).bit_length() - 1
    assert ours + saved <= theory.paper_bits(vocab, support, resolution)


def test_numpy_integers_do_not_wrap():
    resolution, support = np.uint16(65535), np.uint8(255)
    bits = theory.paper_count_bits(support, resolution)
    assert bits == theory.paper_count_bits(255, 65535)


@given(st.integers(2, 1 << 20), st.integers(1, 1 << 16), st.integers(1, 500))
def test_bound_of_the_entropy_code_is_the_theorems(vocab, resolution, survivors):
    most = min(vocab, resolution)
    k = min(survivors, most)
    number = math.comb(vocab, k) * math.comb(resolution - 1, k - 1)
    exact = 1.05 * math.log2(number) + math.log2(most) + 9
    found = theory.entropy_bits_bound(vocab, k, resolution)
    assert exact - 1e-6 <= found < exact + 1 + 1e-6


def quantized(probs, resolution, support):
    """Return what the codec makes of a distribution, and its total variation."""
    codec = sqs.Codec(len(probs), resolution)
    q = codec.quantize_probs(probs, sqs.TopK(support), dropped_mass=True)
    return q, theory.total_variation(probs, q.to_dense(np.float64))


@given(st.lists(st.integers(0, 6), min_size=2, max_size=6), st.integers(1, 12))
def test_the_quantizer_stays_within_the_bound(weights, resolution):
    """Small weights, so that ties are frequent; no count is changed twice."""
    assume(sum(weights) > 0)
    support = np.count_nonzero(weights)
    probs = np.array(weights) / sum(weights)
    q, found = quantized(probs, resolution, support)
    assert np.abs(q.to_dense(np.float64) - probs).max() <= (1 + 1e-9) / resolution
    assert found <= theory.quantizer_tv_bound(support, resolution) + 1e-12


@pytest.mark.parametrize("support", [2, 4, 10])
def test_the_quantizer_bound_is_attained(support):
    """By half integers after scaling, with one token that takes up the rest."""
    resolution = 4 * support
    exact = np.full(support, 0.5)
    exact[-1] = resolution - exact[:-1].sum()
    _, found = quantized(exact / resolution, resolution, support)
    assert found == pytest.approx(theory.quantizer_tv_bound(support, resolution))


@given(st.integers(2, 8), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_the_rejection_bound_holds_and_acceptance_is_the_rest(vocab, resolution, seed):
    rng = np.random.default_rng(seed)
    draft, target = rng.dirichlet(np.full(vocab, 0.5), size=2)
    support = int(rng.integers(1, vocab + 1))
    q, _ = quantized(draft, resolution, support)
    dense = q.to_dense(np.float64)
    accepted = theory.acceptance_rate(target, q)
    assert accepted == pytest.approx(float(np.minimum(target, dense).sum()), abs=1e-12)
    rejected = theory.total_variation(target, dense)
    assert accepted == pytest.approx(1.0 - rejected, abs=1e-12)
    mismatch = theory.total_variation(target, draft)
    given_ = [mismatch], [q.dropped_mass], [support], resolution
    assert rejected <= theory.rejection_bound(*given_) + 1e-12


def test_acceptance_rate_divides_by_the_sum_as_verify_does():
    q = sqs.SparseDistribution([0, 2], [1, 1], 3)
    p = np.array([0.25, 0.25, 0.5])
    assert theory.acceptance_rate(p, q) == 0.75
    assert theory.acceptance_rate(p * (1 + 2**-11), q) == pytest.approx(0.75, abs=1e-15)


def test_total_variation_at_its_ends():
    assert theory.total_variation([0.3, 0.7], [0.3, 0.7]) == 0.0
    assert theory.total_variation([1.0, 0.0, 0.0], [0.0, 0.1, 0.9]) == 1.0


def test_rejection_bound_sums_and_broadcasts_the_resolution():
    mismatch, dropped, support = [0.5, 0.25], [0.0, 0.125], [4, 8]
    assert theory.rejection_bound(mismatch, dropped, support, 8) == 1.25
    assert theory.rejection_bound(mismatch, dropped, support, [8, 16]) == 1.125
    assert theory.rejection_bound([], [], [], 8) == 0.0


unit = st.fractions(0, 1, max_denominator=1000)


@given(
    alpha=unit,
    eta=st.fractions(Fraction(1, 1000), 1),
    beta=st.fractions(-3, 3, max_denominator=1000),
    losses=st.lists(st.one_of(st.sampled_from([Fraction(0), Fraction(1)]), unit)),
)
def test_the_conformal_bound_holds_on_every_path(alpha, eta, beta, losses):
    first, total, clipped = beta, Fraction(0), Fraction(0)
    for steps, loss in enumerate(losses, start=1):
        dropped = loss if beta > 0 else Fraction(0)
        total += dropped
        clipped += max(Fraction(0), beta - eta * (dropped - alpha) - 1)
        beta = min(Fraction(1), beta - eta * (dropped - alpha))
        mean = total / steps
        # The identity and the floor that docs/theory.md derives the bounds from.
        assert mean == alpha + (first - beta - clipped) / (eta * steps)
        assert beta >= min(first, -eta * (1 - alpha))
        sharp = alpha + max(Fraction(0), first + eta * (1 - alpha)) / (eta * steps)
        assert mean <= sharp
        bound = theory.conformal_bound(float(alpha), float(eta), float(first), steps)
        assert float(sharp) <= bound * (1 + 1e-12)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("paper_support_bits", (0, 1), "vocab_size must be at least 1, got 0"),
        ("paper_support_bits", (8, 9), r"support must be in \[1, 8\], got 9"),
        ("paper_support_bits", (8, 0), r"support must be in \[1, 8\], got 0"),
        ("paper_count_bits", (0, 1), "support"),
        ("paper_count_bits", (1, 0), "resolution"),
        ("entropy_bits_bound", (8, 9, 100), r"survivors must be in \[1, 8\]"),
        ("entropy_bits_bound", (8, 1, 0), "resolution must be at least 1"),
        ("enumerative_bits", (8, 9, 100), r"survivors must be in \[1, 8\]"),
        ("enumerative_bits", (100, 9, 8), r"survivors must be in \[1, 8\]"),
        ("enumerative_bits", (8, 1, 0), "resolution"),
        ("quantizer_tv_bound", (0, 1), "support"),
        ("quantizer_tv_bound", (1, 0), "resolution"),
        ("rejection_bound", ([1.5], [0.0], [1], 1), "mismatch"),
        ("rejection_bound", ([0.5], [-0.1], [1], 1), "dropped_mass"),
        ("rejection_bound", ([math.nan], [0.0], [1], 1), "mismatch"),
        ("rejection_bound", ([0.5], [0.0], [0], 1), "support"),
        ("rejection_bound", ([0.5], [0.0], [1], 0), "resolution"),
        ("rejection_bound", ([0.5], [0.0, 0.0], [1], 1), "one shape"),
        ("rejection_bound", (0.5, 0.0, 1, 1), "one shape"),
        ("rejection_bound", ([0.5], [0.0], [1], [1, 2]), "resolution must be a scalar"),
        ("conformal_bound", (1.5, 0.1, 0.1, 1), "alpha"),
        ("conformal_bound", (0.5, 0.0, 0.1, 1), "eta"),
        ("conformal_bound", (0.01, 10.0, 0.5, 1), "can fail for larger steps"),
        ("acceptance_rate", ([0.5, 0.5], THREE), "vocabulary of 3 tokens, got 2"),
        ("conformal_bound", (0.5, 0.1, math.nan, 1), "beta"),
        ("conformal_bound", (0.5, 0.1, 0.1, 0), "steps"),
        ("total_variation", ([0.5, 0.5], [1.0]), "same shape"),
        ("total_variation", ([0.5, 0.6], [0.5, 0.5]), "p must sum to 1"),
        ("total_variation", ([0.5, 0.5], [1.5, -0.5]), "q must be finite"),
        ("total_variation", ([[1.0]], [1.0]), "p must have shape"),
        ("total_variation", ([], []), "p must sum to 1"),
    ],
)
def test_arguments_out_of_range_are_named(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(theory, name)(*arguments)
    with pytest.raises(TypeError, match=r"must be an integer, got 2\.5$"):
        theory.paper_support_bits(8, 2.5)
