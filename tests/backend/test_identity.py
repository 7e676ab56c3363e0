"""C, Numba and the reference make the same bytes of the same logits."""

import math

import numba
import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec._backend.numba import quantize, rows
from sqs_codec._base.errors import Status, packet_error
from sqs_codec._codec.keep import limits_of
from tests.backends import BACKENDS, using
from tests.kit import (
    CODINGS,
    TIMES,
    any_distribution,
    any_prior,
    as_lists,
    entropy_bits,
    mutate,
    parsed,
    random_keep,
    random_logits,
    random_probs,
)
from tests.reference import BrokenRuleError, entropy
from tests.reference import sqs_reference as reference

TEMPERATURES = [0, 1e-40, 0.3, 0.7, 1.0, 5.0]


def on_each(*given):
    """Yield a codec of each backend. The slow reference is called once."""
    for name in BACKENDS:
        with using(name):
            codec = sqs.Codec(*given)
            assert name in codec._core.__module__
        yield codec


def check_quantized(shape, row, keep, temperature, codings=()):
    """Check the counts of a row of logits, and their packets of some codings."""
    given = temperature, *limits_of(keep), shape[1]
    ids, counts, mass = reference.quantize_logits(row, *given)
    for codec in on_each(*shape):
        q = codec.quantize(row, keep, temperature=temperature, dropped_mass=True)
        assert as_lists(q) == (ids, counts, mass)
        assert codec.quantize(row, keep, temperature=temperature) == q
    for coding in codings:
        if len(ids) <= sqs.Codec(*shape, coding).max_survivors:
            packet = reference.encode(ids, counts, *shape, coding)
            for codec in on_each(*shape, coding):
                assert codec.encode(q) == packet
                assert as_lists(codec.decode(packet)) == (ids, counts, None)


@pytest.mark.parametrize("seed", range(400 * TIMES))
def test_awkward_logits(seed):
    rng = np.random.default_rng(seed)
    vocab_size = int(rng.choice([2, 3, 15, 16, 17, 64, 65, 300, 1200]))
    resolution = int(rng.choice([1, 2, 3, 100, 1000, 1 << 16]))
    row, keep = random_logits(rng, vocab_size), random_keep(rng)
    temperature = float(rng.choice(TEMPERATURES))
    check_quantized((vocab_size, resolution), row, keep, temperature, CODINGS)


@pytest.mark.parametrize("seed", range(60))
def test_rules_at_the_very_limit(seed):
    """Parameters that equal a token's probability, or differ from it by rounding."""
    rng = np.random.default_rng(seed)
    vocab_size = int(rng.choice([2, 17, 300, 1200]))
    row, temperature = random_logits(rng, vocab_size), float(rng.choice([0.3, 0.7, 5]))
    unnormalised = np.array(reference.unnormalised_softmax(row, temperature))
    ranked = np.argsort(-row.astype(float), kind="stable")
    total = reference.striped_sum(unnormalised)
    for at in {0, 1, *rng.integers(0, min(vocab_size, 100), 5).tolist()}:
        p = unnormalised[ranked[at]]
        exact = p / total
        for value in (exact, np.nextafter(exact, 0), np.nextafter(exact, 1)):
            check_quantized((vocab_size, 100), row, sqs.Threshold(value), temperature)


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0])
def test_logits_near_powers_of_two(temperature):
    """The rounded exponent decides, not the exact one."""
    for exponent in range(1, 60):
        row = np.zeros(33, np.float32)
        row[1:] = -exponent * temperature * math.log(2)
        row[1:].view(np.uint32)[:] += np.arange(-16, 16, dtype=np.int32).view(np.uint32)
        keep = sqs.Threshold(2.0**-exponent / (1 + 32 * 2.0**-exponent))
        check_quantized((33, 100), row, keep, temperature)


@pytest.mark.parametrize("seed", range(100))
def test_probabilities(seed):
    rng = np.random.default_rng(seed)
    vocab_size = int(rng.choice([2, 17, 300]))
    probs, keep = random_probs(rng, vocab_size), random_keep(rng)
    expected = reference.quantize_probs(probs, *limits_of(keep), 100)
    for codec in on_each(vocab_size):
        q = codec.quantize_probs(probs, keep, dropped_mass=True)
        assert as_lists(q) == expected


@pytest.mark.parametrize("keep", [sqs.TopK(64), sqs.Threshold(1e-3)])
@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_real_drafts(real_rows, keep, temperature):
    for row in real_rows:
        check_quantized((49152, 100), row, keep, temperature, CODINGS[1:])


@pytest.mark.filterwarnings("ignore:these logits look like")  # as 0.9995 and 0 do
def test_every_float16_widens_exactly(pytestconfig):
    """The count of one of two tokens tells the last bit. With --quick some patterns."""
    patterns = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    patterns = patterns[:: 7 if pytestconfig.getoption("quick") else 1]
    for codec in on_each(2, 1 << 16):
        for value in patterns[np.isfinite(patterns)]:
            row = np.array([value, -1], np.float16)  # no pair of probabilities
            given = {"keep": sqs.TopK(2), "temperature": abs(float(value)) or 1.0}
            single = codec.quantize(row.astype(np.float32), **given)
            assert codec.quantize(row, **given) == single


# The entropy coding


def random_codec(rng):
    vocab_size = int(rng.choice([2, 3, 17, 40, 256, 1000, 49152, 262144, 1 << 20]))
    prior = any_prior(rng, vocab_size) if rng.random() < 0.6 else None
    return vocab_size, int(rng.choice([1, 7, 100, 1000, 1 << 16])), "entropy", prior


def as_pairs(distributions):
    return [as_lists(q)[:2] for q in distributions]


@pytest.mark.parametrize("seed", range(60))
def test_entropy_packets(seed):
    rng = np.random.default_rng(seed)
    given = random_codec(rng)
    q = any_distribution(rng, sqs.Codec(*given), most=300)
    common = *given[:2], parsed(given[3])
    packet = entropy.encode(*as_lists(q)[:2], *common)
    assert entropy.decode(packet, *common) == as_lists(q)[:2]
    for codec in on_each(*given):
        assert codec.encode(q) == packet
        assert codec.decode(packet) == q


@pytest.mark.parametrize("seed", range(12))
def test_entropy_rounds_and_sequences(seed):
    rng = np.random.default_rng(seed)
    given = random_codec(rng)
    codec, common = sqs.Codec(*given), (*given[:2], parsed(given[3]))
    drafted = [any_distribution(rng, codec, most) for most in (60, 400, 60, 60)]
    drawn = [*drafted, *(any_distribution(rng, codec, 60) for _ in range(6))]
    sequence = entropy.encode_sequence(as_pairs(drawn), *common)
    assert entropy.decode_sequence(sequence, *common) == as_pairs(drawn)
    tokens = [q.sample(rng) for q in drafted]
    packet = entropy.encode_round(as_pairs(drafted), tokens, *common)
    assert entropy.decode_round(packet, *common) == (as_pairs(drafted), tokens)
    for codec in on_each(*given):
        assert codec.encode_sequence(drawn) == sequence
        assert list(codec.decode_sequence(sequence)) == drawn
        assert codec.encode_round(drafted, tokens) == packet
        assert codec.decode_round(packet) == sqs.Round(drafted, tokens)


def test_bits_are_the_same_estimate():
    """Estimated where models fit and the support is small and sparse."""
    rng = np.random.default_rng(0)
    estimated = 0
    for _ in range(300):
        given = random_codec(rng)
        codec = sqs.Codec(*given)
        q = any_distribution(rng, codec, most=300)
        k = q.token_ids.size
        ids, counts, _ = as_lists(q)
        size, prior = codec.vocab_size, parsed(codec.prior)
        parts = [
            entropy.counts_costs(size, q.resolution, counts),
            entropy.ids_costs(size, ids, entropy.Memory(), prior),
        ]
        bits = entropy_bits(codec, q)
        if k <= 128 and 4 * k <= codec.vocab_size and all(a <= b for a, b in parts):
            estimated += 1
            bits = sum(model for model, _ in parts) / entropy.BIT
        assert {each.bits(q) for each in on_each(*given)} == {math.ceil(bits)}
    assert 50 < estimated < 250


def as_reference(found):
    """Return what a codec decoded as the reference gives it."""
    if isinstance(found, sqs.SparseDistribution):
        return as_lists(found)[:2]
    if isinstance(found, sqs.SparseRows):
        return as_pairs(found)
    return as_pairs(found.distributions), list(found.tokens)


@pytest.mark.parametrize("name", ["decode", "decode_round", "decode_sequence"])
def test_mutated_packets_mean_the_same(name):
    """Or break the same rule."""
    rng = np.random.default_rng(len(name))
    rules = set()
    for _ in range(60):
        given = random_codec(rng)
        codec, *codecs = sqs.Codec(*given), *on_each(*given)
        prior, q = parsed(given[3]), any_distribution(rng, codec, most=12)
        good = {
            "decode": lambda c, q: c.encode(q),
            "decode_round": lambda c, q: c.encode_round([q, q], [q.sample(rng)] * 2),
            "decode_sequence": lambda c, q: c.encode_sequence([q, q]),
        }[name](codec, q)
        for _ in range(10):
            packet = mutate(rng, good)
            rule = None
            try:
                expected = getattr(entropy, name)(packet, *given[:2], prior=prior)
            except BrokenRuleError as error:
                (rule,) = error.args
                expected = str(packet_error(Status[rule], len(packet)))
            for each in codecs:
                try:
                    got = as_reference(getattr(each, name)(packet))
                except sqs.PacketError as error:
                    got = str(error)
                assert got == expected
            rules.add(rule)
    assert rules == {None, "TRUNCATED", "TRAILING_BYTES", "PADDING"}


def test_numba_overruns_nothing_if_a_row_changes_meanwhile():
    """AddressSanitizer checks the C core, in tests/c/changing.c."""
    select = numba.njit(lambda row, maxima: rows.select_from(row, maxima, 1.0))
    leave = numba.njit(lambda ids, counts: quantize.survivors(ids, counts))
    maxima = np.full(rows.softmax.LANES, -np.inf)
    maxima[3] = 1  # as they were
    assert select(np.ones(rows.softmax.GROUP), maxima).size == rows.softmax.GROUP
    ids, counts = leave(np.arange(3), np.array([-1, 7, -1]))
    assert (ids.tolist(), counts.tolist()) == ([1], [7])
