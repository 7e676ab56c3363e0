"""Drafted tokens and their counts, in place of their distributions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sqs_codec as sqs
from tests.kit import CODECS, CODINGS, SEEDS, any_tokens, codecs, make_codec

pytestmark = pytest.mark.usefixtures("backend")


@settings(max_examples=150, deadline=None)
@given(codecs(), SEEDS, st.integers(1, 8) | st.sampled_from([255, 256]))
def test_tokens_come_back(codec, seed, length):
    drafted = any_tokens(np.random.default_rng(seed), codec, length)
    data = codec.encode_tokens(drafted)
    assert codec.encode_tokens(drafted.tokens, drafted.counts) == data
    assert codec.decode_tokens(data) == drafted
    if codec.coding != "entropy":
        width = sum((n - 1).bit_length() for n in (codec.vocab_size, codec.resolution))
        assert len(data) == -(-(8 + length * width) // 8)


def test_the_extremes_of_every_field():
    for name in CODECS:
        for vocab_size, resolution in [(2, 1), (1000, 100), (1 << 20, 1 << 16)]:
            codec = make_codec(name, vocab_size, resolution)
            for token in (0, vocab_size - 1):
                for count in (1, resolution):
                    for length in (1, 255, 256):
                        data = codec.encode_tokens([token] * length, [count] * length)
                        found = codec.decode_tokens(data)
                        assert found.tokens == (token,) * length
                        assert found.counts == (count,) * length
                        assert found.resolution == resolution


def test_drafted_tokens_as_a_value():
    found = sqs.DraftedTokens((17, 4), (90, 38), 100)
    assert len(found) == 2
    assert found.probs.dtype == np.float64
    assert found.probs.tolist() == [0.9, 0.38]
    assert found == sqs.DraftedTokens(np.array([17, 4]), [90, 38], np.uint8(100))
    assert hash(found) == hash(sqs.DraftedTokens((17, 4), (90, 38), 100))
    assert found != sqs.DraftedTokens((17, 4), (90, 39), 100)
    assert found != sqs.DraftedTokens((17, 4), (90, 38), 101)


def test_likely_tokens_take_fewer_bits():
    """Than fields of fixed width would: low ids, and counts near the resolution."""
    rng = np.random.default_rng(0)
    tokens = (49152 ** rng.random(200)).astype(int) - 1
    counts = np.maximum(1, 100 * rng.random(200) ** 0.5).astype(int)
    sizes = {
        coding: len(sqs.Codec(49152, coding=coding).encode_tokens(tokens, counts))
        for coding in CODINGS
    }
    assert sizes["entropy"] < 0.9 * sizes["bitpack"]
    assert sizes["enumerative"] == sizes["bitpack"]


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([], []), ValueError, "expected 1 to 256 tokens and a count of each"),
        (([1] * 257, [1] * 257), ValueError, "expected 1 to 256 tokens"),
        (([1, 2], [1]), ValueError, "got 2 tokens and 1 counts"),
        (([1000], [1]), ValueError, r"tokens\[0\] = 1000 lies outside the vocabulary"),
        (([-1], [1]), ValueError, r"tokens\[0\] = -1 lies outside"),
        (([1], [0]), ValueError, r"counts\[0\] = 0 is not in \[1, 100\]"),
        (([1], [101]), ValueError, r"counts\[0\] = 101 is not in \[1, 100\]"),
        (([1],), TypeError, "expected tokens and counts, or DraftedTokens alone"),
        ((sqs.DraftedTokens([1], [1], 100), [1]), TypeError, "DraftedTokens alone"),
        ((sqs.DraftedTokens([1], [1], 99),), ValueError, "resolution 100, got 99"),
        (([1.5], [1]), TypeError, "integer"),
        (([1], ["1"]), TypeError, "integer"),
        ((1, [1]), TypeError, "tokens must be a sequence of integers, got 1"),
        (("1", [1]), TypeError, "tokens must be a sequence of integers, got '1'"),
    ],
)
def test_bad_tokens(coding, arguments, error, message):
    with pytest.raises(error, match=message):
        sqs.Codec(1000, 100, coding).encode_tokens(*arguments)


def test_packets_of_any_kind():
    codec = sqs.Codec(1000)
    data = codec.encode_tokens(np.array([5, 6]), np.array([7, 8], np.uint16))
    for wrap in (bytes, bytearray, memoryview):
        assert codec.decode_tokens(wrap(data)).tokens == (5, 6)
    with pytest.raises(TypeError):
        codec.decode_tokens("text")
