"""Packets of the bitpack and the enumerative coding, as in ``csrc/rank/fields.c``."""

from __future__ import annotations

import numpy as np

from sqs_codec._backend.numba.big import (
    big,
    big_append,
    big_bits,
    big_compare,
    big_length,
    big_subtract,
)
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

OK = int(Status.OK)
TRUNCATED = int(Status.TRUNCATED)
TRAILING_BYTES = int(Status.TRAILING_BYTES)
PADDING = int(Status.PADDING)
SUPPORT_SIZE = int(Status.SUPPORT_SIZE)
RANK = int(Status.RANK)
TOKEN_ID = int(Status.TOKEN_ID)
TOKEN_ORDER = int(Status.TOKEN_ORDER)
COUNTS = int(Status.COUNTS)
TOKEN_POSITION = int(Status.TOKEN_POSITION)
ROUND_SUPPORT = int(Status.ROUND_SUPPORT)
NO_SPACE = int(Status.NO_SPACE)

ENUMERATIVE = int(Coding.ENUMERATIVE)


@jit
def max_support(vocab_size, resolution, coding):
    """Return the largest support that a packet of the codec can name."""
    most = min(vocab_size, resolution)
    if coding == ENUMERATIVE:
        return min(most, MAX_ENUMERATIVE_SUPPORT)
    return most


@jit
def rank_width(size):
    """Return the width of a rank below `size`, which becomes the largest rank."""
    big_subtract(size, big(1))
    return big_length(size)


@entry
def distribution_bits(vocab_size, resolution, coding, k):
    """Return the bits of a distribution with k tokens."""
    bits = width_of(max_support(vocab_size, resolution, coding) - 1)
    if coding == ENUMERATIVE:
        return bits + rank_width(index_size(vocab_size, resolution, k))
    bits += k * width_of(vocab_size - 1)
    return bits + (k - 1) * width_of(resolution - k)


@jit
def put_distribution(packet, at, vocab_size, resolution, coding, ids, counts):
    """Write a distribution at bit `at`; return where it ends."""
    k = ids.size
    size_width = width_of(max_support(vocab_size, resolution, coding) - 1)
    at = put(packet, at, k - 1, size_width)
    if coding == ENUMERATIVE:
        width = rank_width(index_size(vocab_size, resolution, k))
        rank = index_rank(ids, counts, resolution)
        for place in range(width - 1, -1, -1):
            at = put(packet, at, big_bits(rank, place, 1), 1)
        return at
    for i in range(k):
        at = put(packet, at, np.int64(ids[i]), width_of(vocab_size - 1))
    for i in range(k - 1):
        at = put(packet, at, np.int64(counts[i]) - 1, width_of(resolution - k))
    return at


@entry
def encode(vocab_size, resolution, coding, ids, counts):
    """Return the packet of a distribution."""
    bits = distribution_bits(vocab_size, resolution, coding, ids.size)
    packet = np.zeros((bits + 7) // 8, np.uint8)
    put_distribution(packet, 0, vocab_size, resolution, coding, ids, counts)
    return packet


@entry
def round_bits(vocab_size, resolution, coding, survivors):
    """Return the bits of a round."""
    bits = ROUND_LENGTH_BITS
    for size in survivors:
        k = np.int64(size)
        bits += distribution_bits(vocab_size, resolution, coding, k)
        bits += width_of(k - 1)
    return bits


@entry
def encode_round(vocab_size, resolution, coding, ids, counts, survivors, positions):
    """Return the packet of a round."""
    bits = round_bits(vocab_size, resolution, coding, survivors)
    packet = np.zeros((bits + 7) // 8, np.uint8)
    at = put(packet, 0, survivors.size - 1, ROUND_LENGTH_BITS)
    start = 0
    for i in range(survivors.size):
        k = np.int64(survivors[i])
        end = start + k
        these, those = ids[start:end], counts[start:end]
        at = put_distribution(packet, at, vocab_size, resolution, coding, these, those)
        at = put(packet, at, np.int64(positions[i]), width_of(k - 1))
        start = end
    return packet


@jit
def get_rank(packet, at, vocab_size, resolution, k, room, ids, counts):
    """Return a status and where the rank ends."""
    if k > room:
        return NO_SPACE, at
    largest = index_size(vocab_size, resolution, k)
    width = rank_width(largest)
    if at + width > 8 * packet.size:
        return TRUNCATED, at
    rank = big(0)
    for i in range(width):
        big_append(rank, get(packet, at + i, 1), 1)
    if big_compare(rank, largest) > 0:
        return RANK, at
    index_unrank(rank, vocab_size, resolution, k, ids, counts)
    return OK, at + width


@jit
def get_fields(packet, at, vocab_size, resolution, k, room, ids, counts):
    """Return a status and where the fields end."""
    id_width = width_of(vocab_size - 1)
    count_width = width_of(resolution - k)
    if at + k * id_width + (k - 1) * count_width > 8 * packet.size:
        return TRUNCATED, at
    if k > room:
        return NO_SPACE, at
    for i in range(k):
        ids[i] = get(packet, at, id_width)
        at += id_width
        if ids[i] >= vocab_size:
            return TOKEN_ID, at
        if i > 0 and ids[i] <= ids[i - 1]:
            return TOKEN_ORDER, at
    left = resolution
    for i in range(k - 1):
        counts[i] = get(packet, at, count_width) + 1
        at += count_width
        if counts[i] >= left:
            return COUNTS, at
        left -= np.int64(counts[i])
    counts[k - 1] = left
    return OK, at


@entry
def get_distribution(
    packet, at, vocab_size, resolution, coding, squares, room, ids, counts
):
    """Return a status, where the distribution ends, and its survivors.

    `squares` is the sum over the round's earlier distributions, `room` how many
    survivors the receiver still takes.
    """
    most = max_support(vocab_size, resolution, coding)
    size_width = width_of(most - 1)
    if at + size_width > 8 * packet.size:
        return TRUNCATED, at, 0
    k = get(packet, at, size_width) + 1
    at += size_width
    if k > most:
        return SUPPORT_SIZE, at, 0
    if coding == ENUMERATIVE and squares + k * k > MAX_ENUMERATIVE_SQUARES:
        return ROUND_SUPPORT, at, 0
    codec = vocab_size, resolution
    if coding == ENUMERATIVE:
        status, at = get_rank(packet, at, *codec, k, room, ids, counts)
    else:
        status, at = get_fields(packet, at, *codec, k, room, ids, counts)
    return status, at, k


@entry
def get_position(packet, at, k):
    """Return a status, where the position ends, and the position."""
    width = width_of(k - 1)
    if at + width > 8 * packet.size:
        return TRUNCATED, at, 0
    position = get(packet, at, width)
    return OK if position < k else TOKEN_POSITION, at + width, position


@entry
def get_padding(packet, at):
    """Return a status; the fields end at bit `at`."""
    left = 8 * packet.size - at
    if left >= 8:
        return TRAILING_BYTES
    return OK if get(packet, at, left) == 0 else PADDING


@entry
def decode(packet, vocab_size, resolution, coding, most, ids, counts):
    """Return a status and how many survivors there are.

    The receiver takes `most` survivors.
    """
    status, at, k = get_distribution(
        packet, 0, vocab_size, resolution, coding, 0, most, ids, counts
    )
    if status == OK:
        status = get_padding(packet, at)
    return status, k


def decode_round(packet, vocab_size, resolution, coding, most):
    """Return a status and, if it is OK, ids, counts, survivors and positions.

    The receiver takes `most` survivors.
    """
    if not packet.size:
        return (TRUNCATED,)
    codec = vocab_size, resolution, coding
    room = min(vocab_size, resolution)
    ids, counts = np.empty(room, np.uint32), np.empty(room, np.uint32)
    all_ids, all_counts, survivors, positions = [], [], [], []
    at = ROUND_LENGTH_BITS
    squares = 0
    for _ in range(get(packet, 0, ROUND_LENGTH_BITS) + 1):
        left = most - sum(survivors)
        status, at, k = get_distribution(packet, at, *codec, squares, left, ids, counts)
        if status == OK:
            status, at, position = get_position(packet, at, k)
        if status != OK:
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
