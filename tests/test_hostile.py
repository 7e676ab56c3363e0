"""Whatever the bytes, decoding ends in what it is for or in PacketError."""

import copy
import time

import numpy as np
import pytest

import sqs_codec as sqs
from tests.kit import (
    CODINGS,
    likely_distribution,
    mutate,
    random_distribution,
    wire_resolution,
)

pytestmark = pytest.mark.usefixtures("backend")

PACKETS = 100_000


def any_resolution(codec, rng):
    return wire_resolution(codec) or 1 << int(rng.integers(17))


def any_distribution(codec, rng):
    resolution = any_resolution(codec, rng)
    k = int(rng.integers(1, min(16, codec.max_support, resolution) + 1))
    make = [random_distribution, likely_distribution][rng.integers(2)]
    return make(rng, codec.vocab_size, resolution, k)


def any_round(codec, rng):
    q = any_distribution(codec, rng)
    return sqs.Round([q, q], [q.sample(rng), q.sample(rng)])


def any_tokens(codec, rng):
    length = int(rng.integers(1, 6))
    resolutions = [any_resolution(codec, rng) for _ in range(length)]
    counts = [int(rng.integers(1, most + 1)) for most in resolutions]
    tokens = codec.vocab_size * rng.random(length) ** 4
    return sqs.DraftedTokens(
        tuple(tokens.astype(int).tolist()), tuple(counts), tuple(resolutions)
    )


def clone(end):
    """Return a copy of one end of a stream that learns on its own."""
    twin = copy.copy(end)
    twin._memory = end._memory.copy()
    return twin


def ends(kind, codec, rng):
    """Return three functions: one of `codec` and `rng`, to packet, from packet."""
    if kind == "distribution":
        return any_distribution, codec.encode, codec.decode
    if kind == "tokens":
        return (
            any_tokens,
            lambda d: codec.encode_tokens(d.tokens, d.counts, d.resolutions),
            codec.decode_tokens,
        )
    if kind == "round":
        return (
            any_round,
            lambda r: codec.encode_round(r.distributions, r.tokens),
            codec.decode_round,
        )
    edge, cloud = sqs.StreamEncoder(codec), sqs.StreamDecoder(codec)
    for _ in range(4):
        round_ = any_round(codec, rng)
        cloud.decode_round(edge.encode_round(round_.distributions, round_.tokens))
    return (
        any_round,
        lambda r: clone(edge).encode_round(r.distributions, r.tokens),
        lambda packet: clone(cloud).decode_round(packet),
    )


KINDS = ["distribution", "round", "tokens", "stream"]


@pytest.mark.parametrize("coding", CODINGS)
def test_mutated_packets(coding):
    """100 000 packets of several codecs; what decodes is encoded the same.

    But for the entropy coding, where there may be two ways to say the same.
    """
    seed = int(time.time())
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    shapes = [(2, 1), (8, 10), (1000, 100), (49152, 100), (1 << 20, 1 << 16)]
    kinds = KINDS[:3]
    if coding == "entropy":
        shapes += [(2, sqs.Resolution()), (49152, sqs.Resolution())]
        kinds = KINDS
    sources = [
        (codec, *ends(kind, codec, rng))
        for codec in (sqs.Codec(*shape, coding) for shape in shapes)
        for kind in kinds
    ]
    decoded = same = 0
    for i in range(PACKETS // 100):
        codec, make, encode, decode = sources[i % len(sources)]
        good = encode(make(codec, rng))
        for _ in range(100):
            packet = mutate(rng, good)
            try:
                found = decode(packet)
            except sqs.PacketError:
                continue
            again = encode(found)
            decoded += 1
            same += again == packet
            assert again == packet or (coding == "entropy" and decode(again) == found)
    print(f"{decoded} of {PACKETS} are legal, {same} of them encoded the same")
    assert decoded > PACKETS // 100  # mutation leaves some packets legal


@pytest.mark.parametrize(
    ("resolution", "coding"),
    [*((1 << 16, coding) for coding in CODINGS), (sqs.Resolution(), "entropy")],
)
def test_megabytes_of_anything(resolution, coding):
    codec = sqs.Codec(1 << 20, resolution, coding)
    rng = np.random.default_rng(0)
    for data in (bytes(1 << 20), b"\xff" * (1 << 20), rng.bytes(1 << 20)):
        for decode in (codec.decode, codec.decode_tokens):
            with pytest.raises(sqs.PacketError):
                decode(data)
    for data in (bytes(1 << 16), b"\xff" * (1 << 16), rng.bytes(1 << 16)):
        with pytest.raises(sqs.PacketError):
            codec.decode_round(data)
        if codec.coding == "entropy":
            with pytest.raises(sqs.PacketError):
                sqs.StreamDecoder(codec).decode_round(b"\x80\0\0\0" + data)


def test_slowest_packet_is_bounded():
    """Eight of the largest supports, at the largest vocabulary and resolution."""
    codec = sqs.Codec(1 << 20, 1 << 16, "enumerative")
    rng = np.random.default_rng(0)
    slow = [random_distribution(rng, 1 << 20, 1 << 16, 1024) for _ in range(8)]
    tokens = [q.sample(rng) for q in slow]
    data = codec.encode_round(slow, tokens)
    start = time.perf_counter()
    assert codec.decode_round(data).tokens == tuple(tokens)
    assert time.perf_counter() - start < 10
    small = random_distribution(rng, 1 << 20, 1 << 16, 1)
    with pytest.raises(ValueError, match="draft fewer tokens"):
        codec.encode_round([*slow, small], [*tokens, small.token_ids[0]])


def test_the_most_tokens_of_a_round():
    """256 supports of 181 tokens; 256 * 181^2 is just below 2^23."""
    codec = sqs.Codec(1000, 1000, "enumerative")
    q = random_distribution(np.random.default_rng(0), 1000, 1000, 181)
    tokens = [int(q.token_ids[i % 181]) for i in range(256)]
    data = codec.encode_round([q] * 256, tokens)
    assert codec.decode_round(data).tokens == tuple(tokens)


@pytest.mark.parametrize("spare", [1, 2, 50])
def test_nearly_dense_supports_are_found_as_fast(spare):
    """Supports and cuts that leave few places out, at the largest size."""
    codec = sqs.Codec(1024 + spare, 1024 + spare, "enumerative")
    q = random_distribution(np.random.default_rng(0), 1024 + spare, 1024 + spare, 1024)
    data = codec.encode(q)
    start = time.perf_counter()
    assert codec.decode(data) == q
    assert time.perf_counter() - start < 2


def staircase(rng, vocab_size, different):
    """Return a distribution with counts of 1, 2, ... and as many more of 1."""
    steps = np.arange(1, different + 1)
    left = (1 << 16) - steps.sum()
    counts = rng.permutation(np.concatenate([steps, np.ones(left, int)]))
    ids = np.sort(rng.permutation(vocab_size)[: counts.size])
    return sqs.SparseDistribution(ids, counts, vocab_size)


@pytest.mark.parametrize("vocab_size", [1 << 16, 1 << 20])
@pytest.mark.parametrize("different", [0, 2, 250, 360])
def test_slowest_entropy_packet_is_bounded(different, vocab_size):
    """As many tokens as a round may hold, in all ways that could take long."""
    codec = sqs.Codec(vocab_size, 1 << 16)
    rng = np.random.default_rng(0)
    q = staircase(rng, vocab_size, different)
    length = min(256, (1 << 20) // q.token_ids.size)
    tokens = [q.sample(rng) for _ in range(length)]
    data = codec.encode_round([q] * length, tokens)
    start = time.perf_counter()
    assert codec.decode_round(data).tokens == tuple(tokens)
    assert time.perf_counter() - start < 5
    if length < 256:
        with pytest.raises(ValueError, match="draft fewer tokens"):
            codec.encode_round([q] * (length + 1), [*tokens, tokens[0]])


def test_slowest_stream_is_bounded():
    """The largest supports that are remembered, and the memory full."""
    codec = sqs.Codec(1 << 20, 1 << 16)
    rng = np.random.default_rng(0)
    drafted = [random_distribution(rng, 1 << 20, 1 << 16, 256) for _ in range(256)]
    tokens = [q.sample(rng) for q in drafted]
    edge, cloud = sqs.StreamEncoder(codec), sqs.StreamDecoder(codec)
    data = edge.encode_round(drafted, tokens)
    start = time.perf_counter()
    assert cloud.decode_round(data).tokens == tuple(tokens)
    assert time.perf_counter() - start < 5
