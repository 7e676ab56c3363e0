"""Packets of the bitpack and the enumerative coding, as in ``csrc/rank/fields.c``."""

import numpy as np

from sqs_codec._backend.numba import big as bigint
from sqs_codec._backend.numba.bits import get, put, width_of
from sqs_codec._backend.numba.index import index_rank, index_size, index_unrank
from sqs_codec._backend.numba.jit import entry, jit
from sqs_codec._base.errors import Status
from sqs_codec._base.format import (
    MAX_ENUMERATIVE_SQUARES,
    MAX_ENUMERATIVE_SUPPORT,
    ROUND_LENGTH_BITS,
    Coding,
)

# A codec is a tuple (vocab_size, resolution, coding).


@entry
def max_survivors(codec):
    """Return the largest support that a packet of the codec can name."""
    vocab_size, resolution, coding = codec
    most = min(vocab_size, resolution)
    if coding == Coding.ENUMERATIVE:
        return min(most, MAX_ENUMERATIVE_SUPPORT)
    return most


@jit
def rank_width(size):
    bigint.big_subtract(size, bigint.big(1))
    return bigint.big_length(size)


@entry
def distribution_bits(codec, k):
    vocab_size, resolution, coding = codec
    bits = width_of(max_survivors(codec) - 1)
    if coding == Coding.ENUMERATIVE:
        return bits + rank_width(index_size(vocab_size, resolution, k))
    bits += k * width_of(vocab_size - 1)
    return bits + (k - 1) * width_of(resolution - k)


@jit
def put_distribution(packet, at, codec, ids, counts):
    """Write a distribution at bit `at`; return its end."""
    vocab_size, resolution, coding = codec
    k = ids.size
    at = put(packet, at, k - 1, width_of(max_survivors(codec) - 1))
    if coding == Coding.ENUMERATIVE:
        width = rank_width(index_size(vocab_size, resolution, k))
        rank = index_rank(ids, counts, resolution)
        for place in range(width - 1, -1, -1):
            at = put(packet, at, bigint.big_bit(rank, place), 1)
        return at
    for i in range(k):
        at = put(packet, at, np.int64(ids[i]), width_of(vocab_size - 1))
    for i in range(k - 1):
        at = put(packet, at, np.int64(counts[i]) - 1, width_of(resolution - k))
    return at


@entry
def encode(codec, ids, counts):
    bits = distribution_bits(codec, ids.size)
    packet = np.zeros((bits + 7) // 8, np.uint8)
    put_distribution(packet, 0, codec, ids, counts)
    return packet


@entry
def round_bits(codec, survivors):
    bits = ROUND_LENGTH_BITS
    for size in survivors:
        k = np.int64(size)
        bits += distribution_bits(codec, k)
        bits += width_of(k - 1)
    return bits


@entry
def encode_round(codec, ids, counts, survivors, positions):
    bits = round_bits(codec, survivors)
    packet = np.zeros((bits + 7) // 8, np.uint8)
    at = put(packet, 0, survivors.size - 1, ROUND_LENGTH_BITS)
    start = 0
    for i in range(survivors.size):
        k = np.int64(survivors[i])
        end = start + k
        at = put_distribution(packet, at, codec, ids[start:end], counts[start:end])
        at = put(packet, at, np.int64(positions[i]), width_of(k - 1))
        start = end
    return packet


@jit
def get_rank(packet, at, codec, k, room, ids, counts):
    vocab_size, resolution, _ = codec
    if k > room:
        return Status.OVER_LIMIT, at
    largest = index_size(vocab_size, resolution, k)
    width = rank_width(largest)
    if at + width > 8 * packet.size:
        return Status.TRUNCATED, at
    rank = bigint.big(0)
    for i in range(width):
        bigint.big_append(rank, get(packet, at + i, 1))
    if bigint.big_compare(rank, largest) > 0:
        return Status.RANK, at
    index_unrank(rank, vocab_size, resolution, k, ids, counts)
    return Status.OK, at + width


@jit
def get_fields(packet, at, codec, k, room, ids, counts):
    vocab_size, resolution, _ = codec
    id_width = width_of(vocab_size - 1)
    count_width = width_of(resolution - k)
    if at + k * id_width + (k - 1) * count_width > 8 * packet.size:
        return Status.TRUNCATED, at
    if k > room:
        return Status.OVER_LIMIT, at
    for i in range(k):
        ids[i] = get(packet, at, id_width)
        at += id_width
        if ids[i] >= vocab_size:
            return Status.TOKEN_ID, at
        if i > 0 and ids[i] <= ids[i - 1]:
            return Status.TOKEN_ORDER, at
    left = resolution
    for i in range(k - 1):
        counts[i] = get(packet, at, count_width) + 1
        at += count_width
        if counts[i] >= left:
            return Status.COUNTS, at
        left -= np.int64(counts[i])
    counts[k - 1] = left
    return Status.OK, at


@entry
def get_distribution(packet, at, codec, squares, room, ids, counts):
    """Return a status, the end of the distribution, and its number of survivors.

    `squares` is the sum over the round's earlier distributions, `room` the number of
    survivors that the receiver still accepts.
    """
    coding = codec[2]
    most = max_survivors(codec)
    size_width = width_of(most - 1)
    if at + size_width > 8 * packet.size:
        return Status.TRUNCATED, at, 0
    k = get(packet, at, size_width) + 1
    at += size_width
    if k > most:
        return Status.SUPPORT_SIZE, at, 0
    if coding == Coding.ENUMERATIVE and squares + k * k > MAX_ENUMERATIVE_SQUARES:
        return Status.ROUND_SUPPORT, at, 0
    if coding == Coding.ENUMERATIVE:
        status, at = get_rank(packet, at, codec, k, room, ids, counts)
    else:
        status, at = get_fields(packet, at, codec, k, room, ids, counts)
    return status, at, k


@entry
def get_position(packet, at, k):
    """Return a status, the end of the position, and the position."""
    width = width_of(k - 1)
    if at + width > 8 * packet.size:
        return Status.TRUNCATED, at, 0
    position = get(packet, at, width)
    return Status.OK if position < k else Status.TOKEN_POSITION, at + width, position


@entry
def get_padding(packet, at):
    """Return the status of the bits from `at`, where the fields end."""
    left = 8 * packet.size - at
    if left >= 8:
        return Status.TRAILING_BYTES
    return Status.OK if get(packet, at, left) == 0 else Status.PADDING


def decode(packet, codec, most):
    """Return a status, ids and counts of at most `most` survivors."""
    ids, counts = room_for_one(codec)
    status, at, k = get_distribution(packet, 0, codec, 0, most, ids, counts)
    if status == Status.OK:
        status = get_padding(packet, at)
    return status, ids[:k], counts[:k]


def room_for_one(codec):
    """Return arrays for the ids and counts of any distribution."""
    room = min(codec[:2])
    return np.empty(room, np.uint32), np.empty(room, np.uint32)


def decode_round(packet, codec, most):
    """Return a status, ids, counts, survivors (at most `most`) and positions."""
    if not packet.size:
        return (Status.TRUNCATED,)
    ids, counts = room_for_one(codec)
    all_ids, all_counts, survivors, positions = [], [], [], []
    at = ROUND_LENGTH_BITS
    squares = 0
    for _ in range(get(packet, 0, ROUND_LENGTH_BITS) + 1):
        left = most - sum(survivors)
        status, at, k = get_distribution(packet, at, codec, squares, left, ids, counts)
        if status == Status.OK:
            status, at, position = get_position(packet, at, k)
        if status != Status.OK:
            return (status,)
        squares += k * k
        all_ids.append(ids[:k].copy())
        all_counts.append(counts[:k].copy())
        survivors.append(k)
        positions.append(position)
    return (
        get_padding(packet, at),
        np.concatenate(all_ids),
        np.concatenate(all_counts),
        np.array(survivors, np.uint32),
        np.array(positions, np.uint32),
    )
