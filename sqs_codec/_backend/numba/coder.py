"""The range coder, as in ``csrc/entropy/coder.h``: an array of int64 and a packet."""

import numpy as np

from sqs_codec._backend.numba.fixed import BIT, log2, log2_small
from sqs_codec._backend.numba.jit import inlined, jit, leaf
from sqs_codec._backend.numba.model import CODER_BITS, CODER_LEAST_BITS
from sqs_codec._base.errors import Status
from sqs_codec._base.format import MAX_ENTROPY_SURVIVORS

# Numba gives each integer literal its own type and compiles the called function again
# for it. Arguments are therefore int64.
ZERO, WEIGHT_ONE = np.int64(0), np.int64(1)
EVEN = np.int64(128)  # even odds, in 256ths

WRITE, READ, METER = np.arange(3)

# Indices in the array. ALLOWED is the number of further survivors that the format
# allows in the packet, ROOM the number that the receiver accepts. CODE is for reading,
# LOW for writing.
MODE, STATUS, SHIFTS, RANGE, LOW, COST, ALLOWED, ROOM = range(8)
CODE = LOW


@jit
def new_coder(mode):
    coder = np.zeros(8, np.int64)
    coder[MODE] = mode
    coder[RANGE] = 1 << CODER_BITS
    coder[ALLOWED] = MAX_ENTROPY_SURVIVORS
    coder[ROOM] = MAX_ENTROPY_SURVIVORS
    return coder


@leaf
def byte_at(packet, at):
    """Return a byte of the packet, or 0 after its end."""
    return np.int64(packet[at]) if at < packet.size else 0


@jit
def new_reader(packet, most):
    """Return a coder that reads at most `most` survivors."""
    coder = new_coder(READ)
    coder[ROOM] = most
    for i in range(CODER_BITS // 8):
        coder[CODE] = coder[CODE] << 8 | byte_at(packet, i)
    return coder


@leaf
def carry(coder, packet):
    """Add one to the number in the packet."""
    at = coder[SHIFTS] - 1
    while packet[at] == 255:
        packet[at] = 0
        at -= 1
    packet[at] += np.uint8(1)


@leaf
def narrow(coder, packet, start, width):
    if coder[MODE] == READ:
        coder[CODE] -= start
        while width <= 1 << CODER_LEAST_BITS:
            following = byte_at(packet, coder[SHIFTS] + CODER_BITS // 8)
            coder[CODE] = coder[CODE] << 8 | following
            width <<= 8
            coder[SHIFTS] += 1
    else:
        low = coder[LOW] + start
        if low >> CODER_BITS:
            carry(coder, packet)
        while width <= 1 << CODER_LEAST_BITS:
            packet[coder[SHIFTS]] = low >> CODER_LEAST_BITS & 255
            low <<= 8
            width <<= 8
            coder[SHIFTS] += 1
        coder[LOW] = low & (1 << CODER_BITS) - 1
    coder[RANGE] = width


@leaf
def narrow_to_value(coder, packet, unit, below, weight, last):
    """Narrow to a value's share; the last value also gets the rounding remainder."""
    start = unit * below
    narrow(coder, packet, start, coder[RANGE] - start if last else unit * weight)


@leaf
def going(coder, packet):
    """Return whether another symbol can be coded: the packet hasn't ended."""
    ended = coder[MODE] == READ and coder[SHIFTS] >= packet.size
    if ended and coder[STATUS] == Status.OK:
        coder[STATUS] = Status.TRUNCATED
    return coder[STATUS] == Status.OK


# The cost of a bit for each chance in 256ths.
BIT_COSTS = np.array([0] + [8 * BIT - log2_small(x) for x in range(1, 257)])


@inlined
def code_bit(coder, packet, chance, bit):
    if coder[MODE] == METER:
        coder[COST] += BIT_COSTS[chance if bit else 256 - chance]
        return bit
    if not going(coder, packet):
        return False
    zeros = (coder[RANGE] >> 8) * (256 - chance)
    if coder[MODE] == READ:
        bit = coder[CODE] >= zeros
    if bit:
        narrow(coder, packet, zeros, coder[RANGE] - zeros)
    else:
        narrow(coder, packet, ZERO, zeros)
    return bit


@leaf
def code_uniform(coder, packet, n, value):
    if not going(coder, packet):
        return 0
    unit = coder[RANGE] // n
    if coder[MODE] == READ:
        value = min(coder[CODE] // unit, n - 1)
    narrow_to_value(coder, packet, unit, value, WEIGHT_ONE, value + 1 == n)
    return value


@leaf
def code_weighted(coder, packet, weights, total, last, value):
    """Code one of the values 0 .. last, whose weights sum to the total."""
    if not going(coder, packet):
        return ZERO
    unit = coder[RANGE] // total
    reading = coder[MODE] == READ
    target = coder[CODE] // unit if reading else 0
    below = ZERO
    i = ZERO
    while i < last and (below + weights[i] <= target if reading else i < value):
        below += weights[i]
        i += 1
    narrow_to_value(coder, packet, unit, below, weights[i], i == last)
    return i


@leaf
def admit(coder, k):
    """Count a distribution's survivors; return whether the limits allow them."""
    if coder[STATUS] == Status.OK and k > min(coder[ALLOWED], coder[ROOM]):
        of_format = coder[ALLOWED] <= coder[ROOM]
        coder[STATUS] = Status.ROUND_SUPPORT if of_format else Status.OVER_LIMIT
    coder[ALLOWED] -= k
    coder[ROOM] -= k
    return coder[STATUS] == Status.OK


@leaf
def bits_spent(coder):
    """Return the bits spent, rounded up."""
    # log2 takes arguments below 2^53; the lowest bits don't matter.
    range_ = coder[RANGE] >> (CODER_BITS - CODER_LEAST_BITS)
    narrowed = CODER_LEAST_BITS * BIT - log2(range_)
    return 8 * coder[SHIFTS] + (narrowed + BIT - 1) // BIT


@jit
def finish_writing(coder, packet):
    """Return the packet, cut from the longer array that it was written to."""
    last = coder[LOW] + (1 << CODER_LEAST_BITS) - 1
    if last >> CODER_BITS:
        carry(coder, packet)
    packet[coder[SHIFTS]] = last >> CODER_LEAST_BITS & 255
    return packet[: coder[SHIFTS] + 1].copy()


@leaf
def check_end(coder, packet):
    if coder[STATUS] != Status.OK:
        return coder[STATUS]
    if packet.size <= coder[SHIFTS]:
        return Status.TRUNCATED
    if packet.size > coder[SHIFTS] + 1:
        return Status.TRAILING_BYTES
    return Status.PADDING if coder[CODE] >> CODER_LEAST_BITS else Status.OK
