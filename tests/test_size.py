"""How many bits packets take: what is promised of the entropy coding."""

import math
import time

import numpy as np
import pytest

import sqs_codec as sqs
from benchmarks.drafts import VOCAB_SIZE, load_drafts
from benchmarks.fit_model import held_out
from tests.kit import (
    entropy_bits,
    enumerative_bits,
    likely_distribution,
    permuted,
    random_distribution,
    wire_resolution,
)

pytestmark = pytest.mark.usefixtures("backend")

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
        codec.quantize(drafts.row(int(i)), sqs.TopK(64), temperature)
        for i in kept[::step]
    ]


def within_a_bit(codec, q):
    spent = entropy_bits(codec, q)
    assert len(codec.encode(q)) == spent // 8 + 1
    return abs(codec.bits(q) - spent) <= 1.01  # of which 1 is for rounding up


@pytest.mark.parametrize("resolution", [100, 1000, sqs.Resolution()])
@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0])
def test_bits_of_real_drafts(unseen, temperature, resolution):
    codec = sqs.Codec(VOCAB_SIZE, resolution)
    found = quantized(unseen, temperature, 20, codec)
    assert all(within_a_bit(codec, q) for q in found)


@pytest.mark.parametrize("seed", range(100))
def test_bits_of_anything(seed):
    """Sparse and dense, likely and not."""
    rng = np.random.default_rng(seed)
    vocab_size = int(rng.choice([*VOCABS, 3, 50, 257, 1 << 20]))
    rule = sqs.Resolution() if seed % 2 else int(rng.choice([1, 2, 100, 1000, 65536]))
    codec = sqs.Codec(vocab_size, rule)
    resolution = wire_resolution(codec) or 1 << int(rng.integers(17))
    most = min(vocab_size, resolution)
    for k in (1, most, *rng.integers(1, min(most, 200) + 1, 3)):
        if k <= 2000:
            for make in (random_distribution, likely_distribution):
                assert within_a_bit(codec, make(rng, vocab_size, resolution, int(k)))


def hardly_more(q):
    """Say whether q takes at most 3 % and 8 bits more than a rank does."""
    codec = sqs.Codec(q.vocab_size, q.resolution)
    return codec.bits(q) <= 1.03 * enumerative_bits(q) + 8


@pytest.mark.parametrize("vocab_size", VOCABS)
@pytest.mark.parametrize("resolution", [1, 2, 7, 100, 1000, 65536])
def test_random_supports_and_compositions(vocab_size, resolution):
    rng = np.random.default_rng(vocab_size + resolution)
    most = min(vocab_size, resolution)
    sizes = {1, 2, 3, most, most - 1, most // 2, most // 3, most // 10}
    sizes |= set(rng.integers(1, min(most, 100) + 1, 20).tolist())
    for k in sizes:
        if 1 <= k <= min(most, 3000):  # comb of larger numbers takes long
            for _ in range(4):
                assert hardly_more(random_distribution(rng, vocab_size, resolution, k))


@pytest.mark.parametrize("vocab_size", [VOCAB_SIZE, *VOCABS[2:]])
@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0])
def test_real_drafts_with_permuted_ids(unseen, vocab_size, temperature):
    """As if the vocabulary were in no order, with counts as they are."""
    rng = np.random.default_rng(vocab_size)
    for q in quantized(unseen, temperature, 10):
        assert hardly_more(permuted(q, rng, vocab_size))


@pytest.mark.parametrize("vocab_size", VOCABS)
@pytest.mark.parametrize("resolution", [1, 100, 1000, 65536])
def test_one_hot_and_uniform_distributions(vocab_size, resolution):
    rng = np.random.default_rng(0)
    ids = {0, 1, vocab_size // 2, vocab_size - 1, *rng.integers(0, vocab_size, 50)}
    for token in ids:
        assert hardly_more(sqs.SparseDistribution([token], [resolution], vocab_size))
    for k in (2, 10, 100, 1000):
        if k <= min(vocab_size, resolution):
            counts = np.full(k, resolution // k)
            counts[: resolution - counts.sum()] += 1
            for start in (0, vocab_size // 2, vocab_size - k):
                together = np.arange(start, min(start + k, vocab_size))[:k]
                if together.size == k:
                    q = sqs.SparseDistribution(together, counts, vocab_size)
                    assert hardly_more(q)
                q = permuted(
                    sqs.SparseDistribution(np.arange(k), counts, vocab_size),
                    rng,
                    vocab_size,
                )
                assert hardly_more(q)


@pytest.mark.parametrize(("temperature", "ratio"), [(0.3, 18), (0.7, 6), (1.0, 3.5)])
def test_real_drafts_against_the_papers_formula(unseen, temperature, ratio):
    """K-SQS with K = 64 and l = 100, whose bits the paper counts as 855."""
    formula = math.ceil(math.log2(math.comb(VOCAB_SIZE, 64)))
    formula += math.ceil(math.log2(math.comb(100 + 64 - 1, 64 - 1)))
    assert formula == 855
    codec = sqs.Codec(VOCAB_SIZE)
    mean = np.mean([codec.bits(q) for q in quantized(unseen, temperature)])
    print(f"T = {temperature}: {mean:.1f} bits, {formula / mean:.2f} times fewer")
    assert formula / mean >= ratio


def test_a_stream_takes_less_than_its_rounds(unseen):
    """By more than 5 % at T = 0.7: rounds of four, one stream for all answers."""
    drafts, kept = unseen
    codec, rng = sqs.Codec(VOCAB_SIZE), np.random.default_rng(1)
    edge, cloud = sqs.StreamEncoder(codec), sqs.StreamDecoder(codec)
    alone = streamed = 0
    for prompt in np.unique(drafts.prompt[kept]):
        places = np.flatnonzero(drafts.prompt == prompt)
        for at in range(0, len(places), 4):
            drafted = [
                codec.quantize(drafts.row(int(i)), sqs.TopK(64), 0.7)
                for i in places[at : at + 4]
            ]
            tokens = [q.sample(rng) for q in drafted]
            data = edge.encode_round(drafted, tokens)
            assert cloud.decode_round(data) == sqs.Round(drafted, tokens)
            streamed += len(data)
            alone += len(codec.encode_round(drafted, tokens))
    print(f"{alone} bytes alone, {streamed} in a stream")
    assert streamed < 0.95 * alone


def test_a_round_takes_what_its_parts_do(unseen):
    """One coder for a round: no padding and no length between distributions."""
    codec, rng = sqs.Codec(VOCAB_SIZE), np.random.default_rng(1)
    found = quantized(unseen, 0.7, 4)
    parts = packets = 0
    for at in range(0, len(found), 4):
        drafted = found[at : at + 4]
        tokens = [q.sample(rng) for q in drafted]
        packets += 8 * len(codec.encode_round(drafted, tokens))
        parts += sum(entropy_bits(codec, q) for q in drafted)
        parts -= sum(
            math.log2(q.prob(token)) for q, token in zip(drafted, tokens, strict=True)
        )
    assert packets < 1.01 * parts + 8 * len(found) / 4


def test_bits_of_a_large_support_take_no_longer_than_its_packet():
    """Coding to nowhere must not look for room, time and again."""
    rng = np.random.default_rng(6)
    codec = sqs.Codec(1 << 20, 1 << 16)
    q = random_distribution(rng, 1 << 20, 1 << 16, 60_000)
    times = []
    for work in (codec.encode, codec.bits):
        work(q)  # Numba compiles
        start = time.perf_counter()
        work(q)
        times.append(time.perf_counter() - start)
    assert times[1] < 8 * times[0]
