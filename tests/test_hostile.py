"""Whatever the bytes, decoding ends in a distribution or in PacketError."""

import time

import numpy as np
import pytest

import sqs_codec as sqs
from tests.kit import CODINGS, random_distribution

pytestmark = pytest.mark.usefixtures("backend")

PACKETS = 100_000


def mutate(rng: np.random.Generator, packet: bytes) -> bytes:
    """Flip bits, cut, extend or overwrite."""
    data = bytearray(packet)
    for _ in range(rng.integers(1, 4)):
        kind = rng.integers(8)
        if kind < 4 and data:
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        elif kind == 4:
            del data[rng.integers(len(data) + 1) :]
        elif kind == 5:
            data += rng.bytes(int(rng.integers(1, 4)))
        elif kind == 6:
            data[: len(data) // 2] = rng.bytes(len(data) // 2)
        else:
            data = bytearray(rng.bytes(len(data)))
    return bytes(data)


@pytest.mark.parametrize("coding", CODINGS)
def test_mutated_packets(coding):
    """100 000 packets of several codecs; what decodes is encoded the same."""
    seed = int(time.time())
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    codecs = [
        sqs.Codec(vocab_size, resolution, coding)
        for vocab_size, resolution in [
            (2, 1),
            (8, 10),
            (1000, 100),
            (49152, 100),
            (1 << 20, 1 << 16),
        ]
    ]
    decoded = 0
    for i in range(PACKETS // 100):
        codec = codecs[i % len(codecs)]
        k = int(rng.integers(1, min(16, codec.max_support) + 1))
        q = random_distribution(rng, codec.vocab_size, codec.resolution, k)
        single = codec.encode(q)
        both = codec.encode_round([q, q], [q.sample(rng), q.sample(rng)])
        for _ in range(50):
            packet = mutate(rng, single)
            try:
                assert codec.encode(codec.decode(packet)) == packet
                decoded += 1
            except sqs.PacketError:
                pass
            packet = mutate(rng, both)
            try:
                found = codec.decode_round(packet)
                again = codec.encode_round(found.distributions, found.tokens)
                assert again == packet
                decoded += 1
            except sqs.PacketError:
                pass
    assert decoded > PACKETS // 100  # mutation leaves some packets legal


@pytest.mark.parametrize("coding", CODINGS)
def test_megabytes_of_anything(coding):
    codec = sqs.Codec(1 << 20, 1 << 16, coding)
    rng = np.random.default_rng(0)
    for data in (bytes(1 << 20), b"\xff" * (1 << 20), rng.bytes(1 << 20)):
        with pytest.raises(sqs.PacketError):
            codec.decode(data)
    with pytest.raises(sqs.PacketError):
        codec.decode_round(b"\xff" * (1 << 16))


def test_slowest_packet_is_bounded():
    """Eight of the largest supports, at the largest vocabulary and resolution."""
    codec = sqs.Codec(1 << 20, 1 << 16)
    rng = np.random.default_rng(0)
    slow = [random_distribution(rng, 1 << 20, 1 << 16, 1024) for _ in range(8)]
    tokens = [q.sample(rng) for q in slow]
    data = codec.encode_round(slow, tokens)
    start = time.perf_counter()
    assert codec.decode_round(data).tokens == tuple(tokens)
    assert time.perf_counter() - start < 10
    small = random_distribution(rng, 1 << 20, 1 << 16, 1)
    with pytest.raises(ValueError, match="draft fewer tokens or use 'bitpack'"):
        codec.encode_round([*slow, small], [*tokens, small.token_ids[0]])


def test_the_most_tokens_of_a_round():
    """256 supports of 181 tokens; 256 * 181^2 is just below 2^23."""
    codec = sqs.Codec(1000, 1000)
    q = random_distribution(np.random.default_rng(0), 1000, 1000, 181)
    tokens = [int(q.token_ids[i % 181]) for i in range(256)]
    data = codec.encode_round([q] * 256, tokens)
    assert codec.decode_round(data).tokens == tuple(tokens)


@pytest.mark.parametrize("spare", [1, 2, 50])
def test_nearly_dense_supports_are_found_as_fast(spare):
    """Supports and cuts that leave few places out, at the largest size."""
    codec = sqs.Codec(1024 + spare, 1024 + spare)
    q = random_distribution(np.random.default_rng(0), 1024 + spare, 1024 + spare, 1024)
    data = codec.encode(q)
    start = time.perf_counter()
    assert codec.decode(data) == q
    assert time.perf_counter() - start < 2
