"""Many distributions at once, in packets of their own and in one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sqs_codec as sqs
from sqs_codec._base.format import MAX_SEQUENCE
from tests.kit import CODECS, SEEDS, any_distribution, codecs, make_codec, timed
from tests.refusals import refuses


def some_rows(codec, n, seed=0, most=40):
    rng = np.random.default_rng(seed)
    drawn = [any_distribution(rng, codec, most) for _ in range(n)]
    return sqs.SparseRows.stack(drawn)


def even_rows(codec, k, n):
    """N rows of the first k tokens."""
    counts = np.ones(k, int)
    counts[0] = codec.resolution - k + 1
    offsets = k * np.arange(n + 1)
    shape = codec.vocab_size, codec.resolution
    return sqs.SparseRows(np.tile(np.arange(k), n), np.tile(counts, n), offsets, *shape)


@given(codec=codecs(), n=st.integers(1, 12), seed=SEEDS, threads=st.integers(1, 3))
def test_packets_match_single_rows(codec, n, seed, threads):
    rows = some_rows(codec, n, seed)
    packets = codec.encode_rows(rows, threads=threads)
    assert packets == [codec.encode(q) for q in rows]
    assert codec.decode_rows(packets, threads=threads) == rows
    assert codec.encode_rows(list(rows)) == packets
    assert codec.decode_rows([*map(memoryview, packets)]) == rows


@given(codec=codecs(["entropy"]), n=st.integers(1, 30), seed=SEEDS)
def test_sequences_there_and_back(codec, n, seed):
    rows = some_rows(codec, n, seed)
    data = codec.encode_sequence(rows)
    assert codec.decode_sequence(bytearray(data)) == rows
    assert codec.encode_sequence(list(rows)) == data


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("threads", [1, 3])
def test_hundreds_of_rows(name, threads):
    """More than a thread takes at a time, and none."""
    codec = make_codec(name, 1000)
    rows = some_rows(codec, 600)
    for part in rows, rows[:0]:
        packets = codec.encode_rows(part, threads=threads)
        assert codec.decode_rows(packets, threads=threads) == part


@pytest.mark.parametrize("name", ["entropy", "prior"])
def test_the_slowest_sequence_is_bounded(name):
    """The most rows, a full memory, and the most tokens that it may learn."""
    codec = make_codec(name, 1 << 15, 16)
    rng = np.random.default_rng(0)
    ids = np.sort(rng.permuted(np.tile(np.arange(1 << 15), (64, 1)), axis=1)[:, :16])
    ids = np.tile(ids, (1 << 10, 1)).ravel()
    offsets = 16 * np.arange(MAX_SEQUENCE + 1)
    rows = sqs.SparseRows(ids, np.ones_like(ids), offsets, 1 << 15, 16)
    data = codec.encode_sequence(rows)
    found, seconds = timed(codec.decode_sequence, data)
    assert found == rows
    assert seconds < 10


def test_rows_that_are_refused():
    small, large = sqs.Codec(2, 1), sqs.Codec(1 << 16, 1 << 16)
    rows = even_rows(small, 1, MAX_SEQUENCE + 1)
    refuses("got 65537 of 65537", small.encode_sequence, rows)
    refuses("got 17 of 1114112", large.encode_sequence, even_rows(large, 1 << 16, 17))
    refuses("1 to 65536 distributions", small.encode_sequence, rows[:0])
    refuses("must not be empty", small.encode_sequence, [])
    words = "packet of 0 bytes: the packet ends"
    refuses(words, small.decode_sequence, b"", error=sqs.PacketError)
    for coding in "bitpack", "enumerative":
        other = sqs.Codec(2, 1, coding)
        refuses("need coding 'entropy'", other.encode_sequence, rows[:1])
        refuses("need coding 'entropy'", other.decode_sequence, b"\0")
    codec = sqs.Codec(2000, 2000, "enumerative")
    for call in codec.encode_rows, sqs.Codec(2000, 4).encode_sequence:
        rows = even_rows(codec, 1100, 3)
        refuses(r"^a row doesn't fit|1100 in row 0", call, rows)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_names_the_packet(name, threads):
    codec = make_codec(name, 1000)
    packets = codec.encode_rows(some_rows(codec, 300))
    for bad in 0, 7, 299:
        wrong = [*packets]
        wrong[bad] += b"\0"
        with pytest.raises(sqs.PacketError, match=rf"^packet {bad}, of .* follow"):
            codec.decode_rows(wrong, threads=threads)
    packets[7] = None
    with pytest.raises(TypeError, match=r"^packets\[7\]: expected bytes, got NoneType"):
        codec.decode_rows(packets)


@pytest.mark.parametrize("name", CODECS)
def test_limits_of_the_receiver(name):
    """Each packet's; that of a sequence is tried on the golden vectors."""
    codec = make_codec(name, 1000)
    rows = some_rows(codec, 9)
    sizes = np.diff(rows.offsets)
    packets, most = codec.encode_rows(rows), int(sizes.max())
    assert codec.decode_rows(packets, max_survivors=most) == rows
    wanted = rf"^packet {sizes.argmax()}, .* max_survivors = {most - 1}$"
    with pytest.raises(sqs.PacketError, match=wanted):
        codec.decode_rows(packets, max_survivors=most - 1)


def test_the_first_rows_can_be_decoded_without_the_rest():
    codec = make_codec("entropy", 1000)
    rows = some_rows(codec, 9)
    data = codec.encode_sequence(rows)
    for n in range(1, 9):
        most = rows[:n].token_ids.size
        assert codec.decode_sequence(data, length=n, max_survivors=most) == rows[:n]
        assert codec.decode_sequence(data + b"\0", length=n) == rows[:n]
        with pytest.raises(sqs.PacketError, match=f"max_survivors = {most - 1}$"):
            codec.decode_sequence(data, length=n, max_survivors=most - 1)
        with pytest.raises(sqs.PacketError, match="ends inside"):
            codec.decode_sequence(codec.encode_sequence(rows[:n])[:-3], length=n)
    for n in 9, 10, 1 << 40:
        assert codec.decode_sequence(data, length=n) == rows
        with pytest.raises(sqs.PacketError, match="follow"):
            codec.decode_sequence(data + b"\0", length=n)
    refuses("length must be at least 1, got 0", codec.decode_sequence, data, length=0)


def test_a_short_packet_of_huge_supports_is_refused_fast():
    """A sequence of all tokens over and over."""
    codec = sqs.Codec(1 << 16, 1 << 16)
    for most, reason in (65_535, "max_survivors = 65535"), (None, "ends inside"):
        with pytest.raises(sqs.PacketError, match=reason):
            codec.decode_sequence(b"\xff" * 8, max_survivors=most)
