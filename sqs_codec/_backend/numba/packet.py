"""Packets of the entropy coding, as in ``csrc/entropy/packet.c``.

All integers are int64, because Numba combines a uint64 and an int64 to a float64. None
needs the 64th bit.
"""

import numpy as np

from sqs_codec._backend.numba import coder as coding
from sqs_codec._backend.numba import modes
from sqs_codec._backend.numba.counts import descending
from sqs_codec._backend.numba.fixed import BIT
from sqs_codec._backend.numba.jit import entry, jit, leaf
from sqs_codec._backend.numba.memory import memory_learn, new_memory, no_memory
from sqs_codec._backend.numba.model import MORE_CHANCE
from sqs_codec._base.errors import Status
from sqs_codec._base.format import MAX_ROUND, MAX_SEQUENCE

# int64, for the reason in coder.py.
MORE = np.int64(MORE_CHANCE)
LENGTHS = np.int64(MAX_SEQUENCE)
FIRST_ROOM = 1024  # for survivors

# The bits of larger supports are counted by encoding them; csrc derives the limit from
# the error per member.
MOST_ESTIMATED = 128
# The bits of supports with more than vocab_size / SPARSE tokens are counted, too.
SPARSE = 4


@jit
def encode_bound(length, survivors):
    """Return an upper bound of a packet's bytes.

    A distribution takes at most 4 bits for each of two modes, 13 for a class, and 16
    for a size. A position takes 16 and whether another follows 2; a sequence has a
    length instead. A survivor takes 31 bits for its id, 8 for each of 16 splits of its
    count, and 16 for its group. The coder buffers 7 bytes. The rest is for rounding.
    """
    return 16 + 16 * length + 24 * survivors


@jit
def code_distribution(coder, packet, codec, memory, ids, counts):
    """Code a distribution; return its ids and counts. Reading ignores the arguments."""
    uniform_counts = False
    writing = coder[coding.MODE] == coding.WRITE
    if writing:
        parts = descending(counts)
        by_model, uniformly = modes.counts_costs(codec, parts)
        uniform_counts = uniformly < by_model
    else:
        parts = np.empty(min(codec[0], codec[1]), np.int64)
    counts = modes.code_counts(coder, packet, codec, counts, parts, uniform_counts)
    if not writing:
        ids = np.empty(counts.size, np.int64)
    modes.code_ids(coder, packet, codec, memory, ids)
    return ids, counts


@entry
def encode(codec, ids, counts):
    """Return the packet and its number of bits before padding."""
    coder = coding.new_coder(coding.WRITE)
    packet = np.empty(encode_bound(1, ids.size), np.uint8)
    given = ids.astype(np.int64), counts.astype(np.int64)
    code_distribution(coder, packet, codec, no_memory(), *given)
    spent = coding.bits_spent(coder)
    return coding.finish_writing(coder, packet), spent


@entry
def bits(codec, ids, counts):
    if ids.size <= min(MOST_ESTIMATED, codec[0] // SPARSE):
        cost, modeled = modes.distribution_cost(codec, ids, counts)
        if modeled:
            return (cost + BIT - 1) // BIT
    return encode(codec, ids, counts)[1]


@entry
def decode(packet, codec, most):
    """Return a status, ids and counts of at most `most` survivors."""
    packet = packet.copy()  # coders are compiled for writable packets only
    coder = coding.new_reader(packet, most)
    none = np.empty(0, np.int64)
    ids, counts = code_distribution(coder, packet, codec, no_memory(), none, none)
    status = coding.check_end(coder, packet)
    return status, ids.astype(np.uint32), counts.astype(np.uint32)


# Rounds and sequences. Sequences have a length instead of positions.


@leaf
def code_more(coder, packet, length, more):
    return length < MAX_ROUND and coding.code_bit(coder, packet, MORE, more)


@entry
def encode_round(codec, ids, counts, survivors, positions):
    """Return the packet of a round, or of a sequence if there are no positions."""
    coder = coding.new_coder(coding.WRITE)
    packet = np.empty(encode_bound(survivors.size, ids.size), np.uint8)
    memory = new_memory()
    drafted = positions.size > 0
    if not drafted:
        coding.code_uniform(coder, packet, LENGTHS, np.int64(survivors.size - 1))
    start = 0
    for i in range(survivors.size):
        end = start + np.int64(survivors[i])
        these_ids = ids[start:end].astype(np.int64)
        these = counts[start:end].astype(np.int64)
        code_distribution(coder, packet, codec, memory, these_ids, these)
        memory_learn(memory, these_ids)
        if drafted:
            modes.code_position(coder, packet, these, np.int64(positions[i]))
            code_more(coder, packet, i + 1, i + 1 < survivors.size)
        start = end
    return coding.finish_writing(coder, packet)


@leaf
def copy_values(values, to, at):
    """Set part of an array; this compiles much faster than assigning to a slice."""
    for i in range(values.size):
        to[at + i] = values[i]


@jit
def with_room(values, used, n):
    """Return the array, or a larger copy, with room for n more values."""
    if used + n <= values.size:
        return values
    larger = np.empty(max(2 * values.size, used + n), np.uint32)
    copy_values(values[:used], larger, coding.ZERO)
    return larger


@entry
def decode_round(packet, codec, most, sequence):
    """Return a status, ids, counts, survivors and positions.

    Reads the first `sequence` distributions of a sequence, or a round if that is 0.
    """
    drafted = sequence == 0
    packet = packet.copy()
    coder = coding.new_reader(packet, most)
    memory = new_memory()
    none = np.empty(0, np.int64)
    all_ids = np.empty(FIRST_ROOM, np.uint32)
    all_counts = np.empty(FIRST_ROOM, np.uint32)
    longest = whole = np.int64(MAX_ROUND)
    if not drafted:
        whole = 1 + coding.code_uniform(coder, packet, LENGTHS, coding.ZERO)
        longest = min(whole, np.int64(sequence))
    survivors = np.zeros(longest, np.uint32)
    positions = np.zeros(longest, np.uint32)
    used = coding.ZERO
    length = 0
    going_on = coder[coding.STATUS] == Status.OK
    while going_on:
        ids, counts = code_distribution(coder, packet, codec, memory, none, none)
        survivors[length] = ids.size
        if drafted:
            positions[length] = modes.code_position(coder, packet, counts, coding.ZERO)
        if coder[coding.STATUS] != Status.OK:
            break
        memory_learn(memory, ids)
        all_ids = with_room(all_ids, used, ids.size)
        all_counts = with_room(all_counts, used, ids.size)
        copy_values(ids, all_ids, used)
        copy_values(counts, all_counts, used)
        used += ids.size
        length += 1
        going_on = length < longest
        if drafted:
            going_on = code_more(coder, packet, length, False)
    ends = drafted or longest == whole
    return (
        coding.check_end(coder, packet) if ends else coder[coding.STATUS],
        all_ids[:used],
        all_counts[:used],
        survivors[:length],
        positions[:length],
    )
