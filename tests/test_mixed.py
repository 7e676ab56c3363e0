"""Rounds that lack some of their distributions."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sqs_codec as sqs
from tests.kit import CODECS, CODINGS, SEEDS, any_mixed, any_round, codecs, make_codec

pytestmark = pytest.mark.usefixtures("backend")

Q = sqs.SparseDistribution([17, 40, 999], [90, 6, 4], 1000)


def mixed_round(tokens, counts, distributions, resolution=100, vocab_size=1000):
    return sqs.MixedRound(
        tokens, counts, distributions, resolution=resolution, vocab_size=vocab_size
    )


@settings(max_examples=150, deadline=None)
@given(codecs(), SEEDS, st.integers(1, 8) | st.sampled_from([255, 256]))
def test_mixed_rounds_come_back(codec, seed, length):
    mixed = any_mixed(np.random.default_rng(seed), codec, length)
    data = codec.encode_mixed(mixed)
    found = codec.decode_mixed(data)
    assert found == mixed
    assert (found.resolution, found.vocab_size) == (mixed.resolution, mixed.vocab_size)
    if codec.coding != "entropy":
        widths = [(n - 1).bit_length() for n in (codec.vocab_size, codec.resolution)]
        bits = 8 + sum(
            1
            + (
                sum(widths)
                if q is None
                else codec.bits(q) + (len(q.token_ids) - 1).bit_length()
            )
            for q in mixed.distributions
        )
        assert len(data) == -(-bits // 8)


def test_the_extremes_of_every_field():
    for name in CODECS:
        for vocab_size, resolution in [(2, 1), (2, 2), (1000, 100), (1 << 20, 1 << 16)]:
            codec = make_codec(name, vocab_size, resolution)
            for token in (0, vocab_size - 1):
                for count in {1, max(1, resolution - 1), resolution}:
                    for length in (1, 255, 256):
                        mixed = mixed_round(
                            [token] * length,
                            [count] * length,
                            [None] * length,
                            resolution,
                            vocab_size,
                        )
                        assert codec.decode_mixed(codec.encode_mixed(mixed)) == mixed


@pytest.mark.parametrize("name", CODECS)
def test_what_is_left_out_takes_few_bits(name):
    """And a round that lacks nothing hardly more than one that may lack nothing."""
    codec, rng = make_codec(name, 49152), np.random.default_rng(0)
    saved = spent = 0
    for _ in range(50):
        round_ = any_round(rng, codec, length=5)
        sizes = [
            len(codec.encode_mixed(sqs.MixedRound.of(round_, sent)))
            for sent in ([True] * 5, [True, True, False, False, False], [False] * 5)
        ]
        whole = len(codec.encode_round(round_))
        assert 0 <= sizes[0] - whole <= 1
        assert sizes[2] <= 1 + 5 * (1 + 31 + 8) // 8
        saved += sizes[1] < sizes[0]
        spent += sizes[2]
    assert saved > 40
    assert spent < 50 * 5 * 4


def test_likely_tokens_take_fewer_bits():
    """Than fields of fixed width would: low ids, and all counts."""
    rng = np.random.default_rng(0)
    tokens = (49152 ** rng.random(200)).astype(int) - 1
    counts = np.where(rng.random(200) < 0.3, 100, rng.integers(1, 101, 200))
    mixed = mixed_round(tokens, counts, [None] * 200, vocab_size=49152)
    sizes = {c: len(sqs.Codec(49152, coding=c).encode_mixed(mixed)) for c in CODINGS}
    assert sizes["entropy"] < 0.9 * sizes["bitpack"]
    assert sizes["enumerative"] == sizes["bitpack"]


@pytest.mark.parametrize("coding", CODINGS)
def test_what_does_not_fit(coding):
    codec = sqs.Codec(1000, 100, coding)
    for resolution, vocab_size in [(99, 1000), (100, 1001)]:
        other = mixed_round([1], [1], [None], resolution, vocab_size)
        with pytest.raises(ValueError, match="the mixed round doesn't fit the codec"):
            codec.encode_mixed(other)
    with pytest.raises(TypeError, match="mixed must be a MixedRound, got Round"):
        codec.encode_mixed(sqs.Round([Q], [17]))


def test_too_many_survivors_for_a_packet():
    codec = sqs.Codec(1 << 16, 1 << 16)
    q = sqs.SparseDistribution(np.arange(1 << 16), np.ones(1 << 16, int), 1 << 16)
    most = mixed_round([0] * 17, [1] * 17, [q] * 16 + [None], 1 << 16, 1 << 16)
    assert codec.decode_mixed(codec.encode_mixed(most)) == most
    with pytest.raises(ValueError, match="draft fewer tokens"):
        codec.encode_mixed(most.with_distribution(16, q))
    ranks = sqs.Codec(1 << 16, 1 << 16, "enumerative")
    with pytest.raises(ValueError, match="holds at most 1024 tokens, got 65536"):
        ranks.encode_mixed(most)


@pytest.mark.parametrize("name", CODECS)
def test_the_receivers_limit_counts_what_is_sent(name):
    codec, rng = make_codec(name, 5000, 1000), np.random.default_rng(1)
    for _ in range(20):
        mixed = any_mixed(rng, codec)
        data = codec.encode_mixed(mixed)
        n = sum(len(q.token_ids) for q in mixed.distributions if q is not None)
        assert codec.decode_mixed(data, max_survivors=max(n, 1)) == mixed
        if n > 1:
            with pytest.raises(sqs.PacketError, match="more survivors than max_surv"):
                codec.decode_mixed(data, max_survivors=n - 1)


def test_packets_of_any_kind():
    codec = sqs.Codec(1000)
    mixed = mixed_round(np.array([5, 17]), np.array([7, 90], np.uint16), [None, Q])
    data = codec.encode_mixed(mixed)
    for wrap in (bytes, bytearray, memoryview):
        assert codec.decode_mixed(wrap(data)).tokens == (5, 17)
    with pytest.raises(TypeError):
        codec.decode_mixed("text")


# Mixed rounds as values


def test_a_value():
    mixed = mixed_round([17, 4], [90, 38], [Q, None])
    assert len(mixed) == 2
    assert mixed.probs.dtype == np.float64
    assert mixed.probs.tolist() == [0.9, 0.38]
    same = mixed_round(np.array([17, 4]), [90, 38], (Q, None), np.uint8(100))
    assert same == mixed
    assert hash(same) == hash(mixed)
    assert pickle.loads(pickle.dumps(mixed)) == mixed
    assert mixed != mixed_round([17, 4], [90, 39], [Q, None])
    assert mixed != mixed_round([17, 4], [90, 38], [None, None])
    assert mixed != mixed_round([17, 4], [90, 38], [None, None], resolution=101)


def test_some_of_a_round():
    round_ = sqs.Round([Q, Q, Q], [40, 17, 999])
    mixed = sqs.MixedRound.of(round_, [False, True, np.False_])
    assert mixed == mixed_round([40, 17, 999], [6, 90, 4], [None, Q, None])
    whole = mixed.with_distribution(0, Q).with_distribution(2, Q)
    assert whole == sqs.MixedRound.of(round_, [True] * 3)
    assert mixed.distributions[0] is None
    with pytest.raises(ValueError, match="for each of 3 positions, got 2"):
        sqs.MixedRound.of(round_, [True, False])
    with pytest.raises(TypeError, match="round_ must be a Round"):
        sqs.MixedRound.of(mixed, [True] * 3)
    with pytest.raises(ValueError, match=r"position must be in \[0, 2\], got 3"):
        mixed.with_distribution(3, Q)
    with pytest.raises(TypeError, match=r"distributions\[0\] must be a Sparse"):
        mixed.with_distribution(0, "q")
    lighter = sqs.SparseDistribution([17, 40, 999], [91, 5, 4], 1000)
    with pytest.raises(ValueError, match="counts the drafted token 40 5 times"):
        mixed.with_distribution(0, lighter)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([], [], []), ValueError, "expected 1 to 256 tokens"),
        (([1] * 257, [1] * 257, [None] * 257), ValueError, "expected 1 to 256 tokens"),
        (([1, 2], [1], [None, None]), ValueError, "got 2, 1 and 2"),
        (([1], [1], []), ValueError, "got 1, 1 and 0"),
        (([1000], [1], [None]), ValueError, r"tokens\[0\] = 1000 lies outside the voc"),
        (([-1], [1], [None]), ValueError, r"tokens\[0\] = -1 lies outside"),
        (([1], [0], [None]), ValueError, r"counts\[0\] = 0 is not in \[1, 100\]"),
        (([1], [101], [None]), ValueError, r"counts\[0\] = 101 is not in \[1, 100\]"),
        (([1.5], [1], [None]), TypeError, "integer"),
        (([1], ["1"], [None]), TypeError, "integer"),
        ((1, [1], [None]), TypeError, "tokens must be a sequence of integers, got 1"),
        (([17], [90], ["q"]), TypeError, r"distributions\[0\] must be a SparseDist"),
        (([17], [89], [Q]), ValueError, "counts the drafted token 17 90 times"),
        (([18], [1], [Q]), ValueError, "counts the drafted token 18 0 times"),
        (([17], [90], [Q], 101), ValueError, "resolution 101, got 1000 and 100"),
        (([17], [90], [Q], 100, 999), ValueError, "vocabulary 999 and resolution"),
        (([17], [1], [None], 0), ValueError, "resolution must be"),
        (([17], [1], [None], 100, 1 << 21), ValueError, "vocab_size must be"),
    ],
)
def test_bad_values(arguments, error, message):
    with pytest.raises(error, match=message):
        mixed_round(*arguments)
