"""What may go with a distribution or in its place: tail mass, drafted tokens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sqs_codec as sqs
from tests.kit import CODINGS, random_distribution, wire_resolution

pytestmark = pytest.mark.usefixtures("backend")


@st.composite
def codecs_and_tokens(draw):
    coding = draw(st.sampled_from(CODINGS))
    rule = draw(st.sampled_from([1, 2, 100, 1 << 16]) | st.integers(1, 1 << 16))
    if coding == "entropy" and draw(st.booleans()):
        rule = sqs.Resolution()
    codec = sqs.Codec(draw(st.integers(2, 1 << 20)), rule, coding)
    length = draw(st.integers(1, 8) | st.sampled_from([255, 256]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    resolutions = [
        wire_resolution(codec) or 1 << int(rng.integers(17)) for _ in range(length)
    ]
    counts = [int(rng.integers(1, most + 1)) for most in resolutions]
    tokens = rng.integers(0, codec.vocab_size, length).tolist()
    return codec, (tuple(tokens), tuple(counts), tuple(resolutions))


@settings(max_examples=150, deadline=None)
@given(codecs_and_tokens())
def test_tokens_come_back(case):
    codec, drafted = case
    data = codec.encode_tokens(*drafted)
    assert codec.decode_tokens(data) == sqs.DraftedTokens(*drafted)
    if codec.coding != "entropy":
        width = sum((n - 1).bit_length() for n in (codec.vocab_size, codec.resolution))
        assert len(data) == -(-(8 + len(drafted[0]) * width) // 8)


def test_the_extremes_of_every_field():
    for coding in CODINGS:
        for vocab_size, resolution in [(2, 1), (1000, 100), (1 << 20, 1 << 16)]:
            codec = sqs.Codec(vocab_size, resolution, coding)
            for token in (0, vocab_size - 1):
                for count in (1, resolution):
                    for length in (1, 255, 256):
                        data = codec.encode_tokens([token] * length, [count] * length)
                        found = codec.decode_tokens(data)
                        assert found.tokens == (token,) * length
                        assert found.counts == (count,) * length
                        assert found.resolutions == (resolution,) * length


def test_resolutions_are_sent_along():
    codec = sqs.Codec(1000, sqs.Resolution())
    drafted = [5, 6, 7], [3, 1, 65536], [64, 1, 65536]
    found = codec.decode_tokens(codec.encode_tokens(*drafted))
    assert found == sqs.DraftedTokens(*map(tuple, drafted))
    assert found.probs.tolist() == [3 / 64, 1, 1]
    with pytest.raises(ValueError, match="resolutions must be given"):
        codec.encode_tokens([5], [3])


def test_drafted_tokens_as_a_value():
    found = sqs.DraftedTokens((17, 4), (90, 38), (100, 100))
    assert len(found) == 2
    assert found.probs.dtype == np.float64
    assert found.probs.tolist() == [0.9, 0.38]
    assert hash(found) == hash(sqs.DraftedTokens((17, 4), (90, 38), (100, 100)))
    assert found != sqs.DraftedTokens((17, 4), (90, 39), (100, 100))


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
        (([], []), ValueError, "expected 1 to 256 tokens with a count .* got"),
        (([1] * 257, [1] * 257), ValueError, "expected 1 to 256 tokens"),
        (([1, 2], [1]), ValueError, "got 2, 1 and 2"),
        (([1], [1], [100, 100]), ValueError, "got 1, 1 and 2"),
        (([1000], [1]), ValueError, r"tokens\[0\] = 1000 lies outside the vocabulary"),
        (([-1], [1]), ValueError, r"tokens\[0\] = -1 lies outside"),
        (([1], [0]), ValueError, r"counts\[0\] = 0 is not in \[1, 100\]"),
        (([1], [101]), ValueError, r"counts\[0\] = 101 is not in \[1, 100\]"),
        (([1], [1], [99]), ValueError, "expected resolution 100, got 99"),
        (([1.5], [1]), TypeError, "integer"),
        (([1], ["1"]), TypeError, "integer"),
    ],
)
def test_bad_tokens(coding, arguments, error, message):
    with pytest.raises(error, match=message):
        sqs.Codec(1000, 100, coding).encode_tokens(*arguments)


def test_bad_resolutions():
    codec = sqs.Codec(1000, sqs.Resolution())
    for wrong in (0, 3, 100, 1 << 17):
        with pytest.raises(ValueError, match=f"power of two up to 65536, got {wrong}"):
            codec.encode_tokens([1], [1], [wrong])


def test_packets_of_any_kind():
    codec = sqs.Codec(1000)
    data = codec.encode_tokens(np.array([5, 6]), np.array([7, 8], np.uint16))
    for wrap in (bytes, bytearray, memoryview):
        assert codec.decode_tokens(wrap(data)).tokens == (5, 6)
    with pytest.raises(TypeError):
        codec.decode_tokens("text")


# Tail mass


@pytest.fixture(params=[*CODINGS, "variable"])
def codec(request):
    """Return one that sends the tail mass."""
    if request.param == "variable":
        return sqs.Codec(1000, sqs.Resolution(), tail_mass=True)
    return sqs.Codec(1000, 100, request.param, tail_mass=True)


def test_tail_mass_comes_back(codec):
    plain = sqs.Codec(codec.vocab_size, codec.resolution, codec.coding)
    rng = np.random.default_rng(0)
    for mass in [0, 2**-17, 2**-16, 0.25, 1 / 3, 1 - 2**-16, 1, *rng.random(50)]:
        p = random_distribution(rng, 1000, wire_resolution(codec) or 64, 9)
        q = sqs.SparseDistribution(p.token_ids, p.counts, 1000, dropped_mass=mass)
        data = codec.encode(q)
        found = codec.decode(data)
        assert found == q
        assert 0 <= found.dropped_mass < 1
        step = 2**-16 if mass > 1 - 2**-16 else 2**-17
        assert abs(found.dropped_mass - mass) <= step
        assert data[:-2] == plain.encode(q)
        assert codec.bits(q) == plain.bits(q) + 16
        again = codec.encode(found)
        assert again == data


def test_tail_mass_of_a_row(codec):
    row = np.random.default_rng(0).normal(0, 3, 1000)
    q = codec.quantize(row, sqs.TopK(20))
    assert q.dropped_mass > 0.1
    found = codec.decode(codec.encode(q))
    assert found.dropped_mass == pytest.approx(q.dropped_mass, abs=2**-17)
    token = int(q.token_ids[0])
    round_ = codec.decode_round(codec.encode_round([q], [token]))
    assert round_.distributions[0].dropped_mass is None


def test_tail_mass_that_is_missing(codec):
    q = random_distribution(
        np.random.default_rng(0), 1000, wire_resolution(codec) or 64, 9
    )
    assert q.dropped_mass is None
    with pytest.raises(ValueError, match="q has no dropped_mass"):
        codec.encode(q)
    data = codec.encode(
        sqs.SparseDistribution(q.token_ids, q.counts, 1000, dropped_mass=0.5)
    )
    for size in range(len(data)):
        with pytest.raises(sqs.PacketError, match=f"packet of {size} bytes"):
            codec.decode(data[:size])
    with pytest.raises(sqs.PacketError, match=r"packet of 1 bytes: .* inside"):
        codec.decode(data[:1])
    with pytest.raises(sqs.PacketError, match=r"bytes follow|ends with"):
        codec.decode(data[:-2] + b"\0\0\0")


def test_codecs_with_and_without_tail_mass_differ():
    assert sqs.Codec(1000, tail_mass=True) != sqs.Codec(1000)
    q = sqs.SparseDistribution([3], [100], 1000, dropped_mass=0.5)
    with pytest.raises(sqs.PacketError):
        sqs.Codec(1000).decode(sqs.Codec(1000, tail_mass=True).encode(q))
