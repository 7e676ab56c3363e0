"""Fields of a packet, the most significant bit first, as in ``csrc/bits.h``."""

import numpy as np

from sqs_codec._backend.numba.jit import entry, jit


@jit
def width_of(most):
    """Return the number of bits that hold 0 .. most."""
    width = 0
    while most:
        width += 1
        most >>= 1
    return width


@jit
def put(packet, at, value, width):
    for shift in range(width - 1, -1, -1):
        packet[at // 8] |= np.uint8((value >> shift & 1) << (7 - at % 8))
        at += 1
    return at


@entry
def get(packet, at, width):
    value = 0
    for i in range(at, at + width):
        value = value << 1 | (np.int64(packet[i // 8]) >> (7 - i % 8) & 1)
    return value
