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


def reznik(probs, resolution):
    """The lattice point in rational arithmetic, and the indices that were adjusted."""
    exact = [resolution * p for p in probs]
    counts = [math.floor(y + Fraction(1, 2)) for y in exact]
    errors = [b - y for b, y in zip(counts, exact, strict=True)]
    excess = sum(counts) - resolution
    step = -1 if excess > 0 else 1
    # The higher id loses first, the lower id gains first.
    order = sorted(range(len(probs)), key=lambda i: (step * errors[i], step * i))
    touched = order[: abs(excess)]
    for i in touched:
        counts[i] += step
    return counts, touched


@st.composite
def distributions(draw, max_size=6):
    """Rational distributions with small weights, so that ties are frequent."""
    weights = draw(st.lists(st.integers(0, 6), min_size=1, max_size=max_size))
    assume(sum(weights) > 0)
    return [Fraction(w, sum(weights)) for w in weights]


def variation(counts, probs, resolution):
    """Total variation of a lattice point and the distribution it stands for."""
    pairs = zip(counts, probs, strict=True)
    return sum((abs(Fraction(b, resolution) - p) for b, p in pairs), Fraction(0)) / 2


def smallest_power(count):
    """ceil(log2(count)) by its definition."""
    bits = 0
    while 2**bits < count:
        bits += 1
    return bits


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
    assert theory.paper_support_bits(vocab, size) == smallest_power(supports)
    points = math.comb(resolution + size - 1, size - 1)
    assert theory.paper_count_bits(size, resolution) == smallest_power(points)
    both = smallest_power(supports) + smallest_power(points)
    assert theory.paper_bits(vocab, size, resolution) == both
    conformal = theory.paper_bits(vocab, size, resolution, conformal=True)
    assert conformal == both + smallest_power(vocab)
    if size <= resolution:
        joint = supports * math.comb(resolution - 1, size - 1)
        assert theory.enumerative_bits(vocab, size, resolution) == smallest_power(joint)


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


@given(distributions(), st.integers(1, 12))
def test_the_lattice_point_touches_an_index_once_within_the_bound(probs, resolution):
    counts, touched = reznik(probs, resolution)
    assert sum(counts) == resolution
    assert min(counts) >= 0
    assert 2 * len(touched) <= len(probs)
    tv = variation(counts, probs, resolution)
    assert tv <= Fraction(len(probs), 4 * resolution)
    assert float(tv) <= theory.quantizer_tv_bound(len(probs), resolution)


@pytest.mark.parametrize("support", [2, 4, 10])
def test_the_quantizer_bound_is_attained(support):
    resolution = 4 * support
    # Half integers after scaling, with one token taking up the rest.
    exact = [Fraction(1, 2)] * (support - 1)
    exact.append(resolution - sum(exact, Fraction(0)))
    probs = [y / resolution for y in exact]
    counts, _ = reznik(probs, resolution)
    tv = variation(counts, probs, resolution)
    assert float(tv) == theory.quantizer_tv_bound(support, resolution)


@given(st.integers(2, 8), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_the_rejection_bound_holds_and_acceptance_is_the_rest(vocab, resolution, seed):
    rng = np.random.default_rng(seed)
    q, p = rng.dirichlet(np.full(vocab, 0.5), size=2)
    support = int(rng.integers(1, vocab + 1))
    kept = np.sort(np.argsort(-q, kind="stable")[:support])
    mass = [Fraction(float(x)) for x in q[kept]]
    counts = np.array(reznik([m / sum(mass) for m in mass], resolution)[0], np.uint32)
    alive = counts > 0
    quantized = sqs.SparseDistribution(
        kept[alive].astype(np.uint32), counts[alive], vocab
    )
    dense = np.zeros(vocab)
    dense[kept] = counts / resolution

    accepted = theory.acceptance_rate(p, quantized)
    assert accepted == pytest.approx(float(np.minimum(p, dense).sum()), abs=1e-12)
    rejected = theory.total_variation(p, dense)
    assert accepted == pytest.approx(1.0 - rejected, abs=1e-12)

    dropped = float(np.delete(q, kept).sum())
    bound = theory.rejection_bound(
        [theory.total_variation(p, q)], [dropped], [support], resolution
    )
    assert rejected <= bound + 1e-12


def test_acceptance_rate_divides_by_the_sum_as_verify_does():
    q = sqs.SparseDistribution(
        np.array([0, 2], np.uint32), np.array([1, 1], np.uint32), 3
    )
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
        ("paper_bits", (8, 9, 1), "support"),
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
