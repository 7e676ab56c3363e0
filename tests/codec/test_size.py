"""The number of bits of packets, as promised for the entropy coding."""

import itertools
import math

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec import theory
from tests import kit
from tests.drafts import VOCAB_SIZE, held_out, load_drafts
from tests.reference import entropy

VOCABS = [2, 1000, 152_064, 262_144]


@pytest.fixture(scope="module")
def unseen():
    """Return real drafts that no table was fitted to, and where prompts begin."""
    drafts = load_drafts()
    kept = np.flatnonzero(held_out(drafts))
    return drafts, kept


def quantized(unseen, temperature, step=1, codec=None):
    """Return what is drafted at every `step`-th unseen position."""
    drafts, kept = unseen
    codec = codec or sqs.Codec(VOCAB_SIZE)
    return [
        codec.quantize(drafts.row(int(i)), sqs.TopK(64), temperature=temperature)
        for i in kept[::step]
    ]


def within_a_bit(codec, q, slack=0.01):
    """Return whether `bits` equals the bits spent, rounded up."""
    spent = kit.entropy_bits(codec, q)
    assert len(codec.encode(q)) == spent // 8 + 1
    return abs(codec.bits(q) - spent) <= 1 + slack


@pytest.mark.parametrize("resolution", [100, 1000])
@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0])
def test_bits_of_real_drafts(unseen, temperature, resolution):
    codec = sqs.Codec(VOCAB_SIZE, resolution)
    found = quantized(unseen, temperature, 20, codec)
    assert all(within_a_bit(codec, q) for q in found)


@pytest.mark.parametrize("seed", range(100))
def test_bits_of_random_distributions(seed):
    """Sparse and dense, likely and not."""
    rng = np.random.default_rng(seed)
    vocab_size = int(rng.choice([*VOCABS, 3, 50, 257, 1 << 20]))
    resolution = int(rng.choice([1, 2, 100, 1000, 65536]))
    prior = kit.any_prior(rng, vocab_size) if seed % 2 else None
    codec = sqs.Codec(vocab_size, resolution, prior=prior)
    most = min(vocab_size, resolution)
    for k in (1, most, *rng.integers(1, min(most, 200) + 1, 3)):
        if k <= 2000:
            for make in (kit.random_distribution, kit.likely_distribution):
                assert within_a_bit(codec, make(rng, vocab_size, resolution, int(k)))


@pytest.mark.parametrize("k", [127, 128, 129, 200, 500, 1000, 2000, 3000, 4000])
def test_bits_of_large_likely_supports(k):
    """As the models have them; an estimate strays further with each survivor."""
    rng = np.random.default_rng(k)
    vocab_size, resolution = 1 << 20, 1 << 16
    codec = sqs.Codec(vocab_size, resolution)
    ids = kit.random_set(rng, 2 * k, k)
    ids[k // 2 :] += np.sort(rng.integers(0, 1 << 14, k - k // 2))
    counts = rng.geometric(0.6, k)
    counts[0] += resolution - counts.sum()
    assert within_a_bit(codec, sqs.SparseDistribution(ids, counts, vocab_size))


@pytest.mark.parametrize("last", [1, 2, 3])
@pytest.mark.parametrize("vocab_size", [50, 1000, VOCAB_SIZE, 152_064, 1 << 20])
def test_bits_of_supports_that_end_at_the_last_ids(vocab_size, last):
    """There the last symbol takes all that is left, often more than its probability.

    By a rest of 2^31 where the range is 2^48. It is estimated where the chance is
    2^-10 or more: of 2^48 that is 2^38, and 2^31 more saves 0.011 bits.
    """
    rng = np.random.default_rng(vocab_size + last)
    for resolution in (100, 1000, 65536):
        codec = sqs.Codec(vocab_size, resolution)
        for k in (1, 3, 10, 30):
            q = kit.likely_distribution(rng, vocab_size - last, resolution - last, k)
            ids = [*q.token_ids, *range(vocab_size - last, vocab_size)]
            counts = [*q.counts, *[1] * last]
            q = sqs.SparseDistribution(ids, counts, vocab_size)
            assert within_a_bit(codec, q, slack=0.02)


@pytest.mark.parametrize("k", [8, 32, 64, 128])
@pytest.mark.parametrize("classes", [0, 1, 5])
def test_bits_of_rare_ids(k, classes):
    """Three members near the end, each with a chance of a few units of 2^31."""
    vocab_size, resolution = 1 << 20, 1 << 16
    prior = kit.make_prior(vocab_size, classes) if classes else None
    codec = sqs.Codec(vocab_size, resolution, prior=prior)
    counts = [resolution - k + 1, *[1] * (k - 1)]
    for gap in (0, 1, 7, 63):
        ids = [i + gap * (i > k // 2) for i in range(k - 3)]
        ids += [519_459, 1_048_561, 1_048_574]
        assert within_a_bit(codec, sqs.SparseDistribution(ids, counts, vocab_size))


def rank_bits(q):
    """Return what a rank takes, and a field for any size of support.

    That is what enumerative coding takes, except for its limit of 1024 tokens,
    which spares its field up to 6 bits where the resolution is larger.
    """
    k, most = q.token_ids.size, min(q.vocab_size, q.resolution)
    rank = theory.enumerative_bits(q.vocab_size, k, q.resolution)
    bits = (most - 1).bit_length() + rank
    if k <= 1024:
        field = max((most - 1).bit_length() - 10, 0)
        codec = sqs.Codec(q.vocab_size, q.resolution, "enumerative")
        assert bits == codec.bits(q) + field
    return bits


def hardly_more(q, prior=None):
    """Return whether q takes at most 3 % and 8 bits more than a rank.

    q takes more than `bits` - 1, as `bits` is rounded up.
    """
    codec = sqs.Codec(q.vocab_size, q.resolution, prior=prior)
    return codec.bits(q) - 1 < 1.03 * rank_bits(q) + 8


@pytest.mark.parametrize("vocab_size", VOCABS)
@pytest.mark.parametrize("resolution", [1, 2, 7, 100, 1000, 65536])
def test_random_supports_and_compositions(vocab_size, resolution):
    """And likely supports with permuted ids; with a wrong prior and without one."""
    rng = np.random.default_rng(vocab_size + resolution)
    most = min(vocab_size, resolution)
    sizes = {1, 2, 3, most, most - 1, most // 2, most // 3, most // 10}
    sizes |= set(rng.integers(1, min(most, 100) + 1, 20).tolist())
    for k in sizes:
        if 1 <= k <= min(most, 3000):  # comb of larger numbers takes long
            for make in kit.MAKERS * 2:
                q = make(rng, vocab_size, resolution, k)
                q = kit.permuted(q, rng, vocab_size)
                assert hardly_more(q)
                assert hardly_more(q, kit.any_prior(rng, vocab_size))


@pytest.mark.parametrize("resolution", range(1, 7))
@pytest.mark.parametrize("vocab_size", range(2, 7))
def test_all_distributions_of_a_small_codec(vocab_size, resolution):
    for tokens in itertools.combinations_with_replacement(
        range(vocab_size), resolution
    ):
        ids, counts = np.unique(tokens, return_counts=True)
        assert hardly_more(sqs.SparseDistribution(ids, counts, vocab_size))


@pytest.mark.parametrize("vocab_size", [VOCAB_SIZE, *VOCABS[2:]])
@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0])
def test_real_drafts_with_permuted_ids(unseen, vocab_size, temperature):
    """As if the vocabulary were in no order, with counts as they are."""
    rng = np.random.default_rng(vocab_size)
    prior = kit.make_prior(vocab_size, 5)
    for q in quantized(unseen, temperature, 10):
        found = kit.permuted(q, rng, vocab_size)
        assert hardly_more(found)
        assert hardly_more(found, prior)


@pytest.mark.parametrize("vocab_size", VOCABS)
@pytest.mark.parametrize("resolution", [1, 100, 1000, 65536])
def test_one_hot_and_uniform_distributions(vocab_size, resolution):
    rng = np.random.default_rng(0)
    for k in (1, 2, 10, 100, 1000):
        last = vocab_size - k
        if k <= min(vocab_size, resolution):
            counts = np.full(k, resolution // k)
            counts[: resolution - counts.sum()] += 1
            for start in {0, min(1, last), last, *rng.integers(0, last + 1, 20)}:
                ids = np.arange(start, start + k)
                q = sqs.SparseDistribution(ids, counts, vocab_size)
                assert hardly_more(q)
                assert hardly_more(kit.permuted(q, rng, vocab_size))


# Numbers of docs/report/report.tex, section 4.


def log2_binomial(n, k):
    return math.log2(math.comb(n, k))


def test_the_mean_s_power_barely_exceeds_the_falling_factorial():
    """The second lemma for n up to 1000; its proof covers only larger n."""
    found = []
    for n in range(1, 1001):
        factors = math.log2(math.perm(2 * n, n))
        excess = n * math.log2((3 * n + 1) / 2) - factors
        found.append((excess / log2_binomial(2 * n, n), n))
    assert max(found) == (pytest.approx(0.014644, abs=1e-6), 8)


@pytest.mark.parametrize(
    ("size", "members", "percent"),
    [(49_153, [49_151, 49_152], 2.75), (2050, [2047, 2048, 2049], 1.92)],
)
def test_the_most_expensive_known_sets(size, members, percent):
    """Of N up to 65 536 with 2 members, and up to 5000; they keep the bound."""
    coder, k = entropy.Writer(), len(members)
    entropy.code_uniform_set(coder, "", k, size, members)
    excess = coder.bits() / log2_binomial(size, k) - 1
    assert 100 * excess == pytest.approx(percent, abs=0.005)
    for counts in [*range(1, k), 99], [99, *range(1, k)]:
        assert hardly_more(sqs.SparseDistribution(members, counts, size))


def test_the_field_for_k_of_large_resolutions():
    """It has 6 bits more than in enumerative coding; 3 % don't cover these here."""
    counts = [4533, 4598, 6072, 10089, 13345, 13398, 13501]
    ids = [2685, 4930, 17680, 20173, 33497, 41743, 55746]
    q = sqs.SparseDistribution(ids, counts, 65536)
    assert hardly_more(q)


@pytest.mark.parametrize(
    ("prior", "temperature", "ratio"),
    [
        *((None, 0.3, 18), (None, 0.7, 6), (None, 1.0, 3.5)),
        *(("smollm2", 0.3, 21), ("smollm2", 0.7, 8.2), ("smollm2", 1.0, 4.9)),
    ],
)
def test_real_drafts_against_the_papers_formula(unseen, prior, temperature, ratio):
    """K-SQS with K = 64 and l = 100: 855 bits with the paper's formula."""
    formula = theory.paper_bits(VOCAB_SIZE, 64, 100)
    assert formula == 855
    codec = sqs.Codec(VOCAB_SIZE, prior=prior and sqs.Prior.builtin(prior))
    mean = np.mean([codec.bits(q) for q in quantized(unseen, temperature)])
    assert formula / mean >= ratio


def test_a_sequence_takes_less_than_its_distributions(unseen):
    """By more than 5 % at T = 0.7, as tokens of earlier supports come again."""
    drafts, kept = unseen
    codec = sqs.Codec(VOCAB_SIZE)
    alone = together = 0
    for prompt in np.unique(drafts.prompt[kept]):
        drafted = [
            codec.quantize(drafts.row(int(i)), sqs.TopK(64), temperature=0.7)
            for i in np.flatnonzero(drafts.prompt == prompt)
        ]
        alone += sum(map(codec.bits, drafted))
        together += 8 * len(codec.encode_sequence(drafted))
    print(f"{alone} bits alone, {together} in sequences")
    assert together < 0.95 * alone


def test_a_round_takes_the_bits_of_its_parts(unseen):
    """One coder for a round: no padding and no length between distributions."""
    codec, rng = sqs.Codec(VOCAB_SIZE), np.random.default_rng(1)
    found = quantized(unseen, 0.7, 4)
    parts = packets = 0
    for at in range(0, len(found), 4):
        drafted = found[at : at + 4]
        tokens = [q.sample(rng) for q in drafted]
        packets += 8 * len(codec.encode_round(drafted, tokens))
        parts += sum(kit.entropy_bits(codec, q) for q in drafted)
        parts -= sum(
            math.log2(q.prob(token)) for q, token in zip(drafted, tokens, strict=True)
        )
    assert packets < 1.01 * parts + 8 * len(found) / 4


def test_bits_of_a_large_support_take_no_longer_than_its_packet():
    """Coding to nowhere must not look for room, time and again."""
    rng = np.random.default_rng(6)
    codec = sqs.Codec(1 << 20, 1 << 16)
    q = kit.random_distribution(rng, 1 << 20, 1 << 16, 60_000)
    # Numba compiles at the first call of each.
    works = codec.encode, codec.bits
    times = [min(kit.timed(work, q)[1] for _ in range(4)) for work in works]
    assert times[1] < 8 * times[0]
