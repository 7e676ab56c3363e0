"""The race of shared numbers, once more: all are made, and nothing is skipped.

``docs/theory.md`` defines it to the bit. Arrays stand for all tokens at once.
"""

import numpy as np

from tests.reference.sqs_reference import LN2, TAYLOR_F64

BLOCK = 64
MASK = 2**32 - 1


def philox(counter, key):
    """Return four words for each counter, an iterable of four (arrays of) words."""
    c0, c1, c2, c3 = (np.asarray(c, np.uint64) for c in counter)
    k0, k1 = key
    half, mask = np.uint64(32), np.uint64(MASK)
    for _ in range(10):
        p, q = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1 = q >> half ^ c1 ^ np.uint64(k0), q & mask
        c2, c3 = p >> half ^ c3 ^ np.uint64(k1), p & mask
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def numbers_at(key, position):
    """Return the position's key and the upper half of its counters."""
    c = philox((position & MASK, position >> 32, key[2], key[3]), key[:2])
    c = [int(word) for word in c]
    return c[:2], c[2:]


def words(numbers, stream, k):
    """Return word k of a stream, for each of an array, as a float."""
    key, high = numbers
    four = philox((k // 64 * 16 + k % 16, stream, *high), key)
    return np.choose(k // 16 % 4, np.broadcast_arrays(*four)).astype(float)


def minus_log(v, u):
    """Return -ln(u) of v and u = 1 - v."""
    z, n = np.frexp(u)  # z in [1/2, 1)
    small = z < 0.7071
    z, n = np.where(small, 2 * z, z), n - small
    s = np.where(v < 0.25, v / (2 - v), (1 - z) / (1 + z))
    q = s * s
    p = np.full_like(q, 1 / 21)
    for k in range(19, 1, -2):
        p = p * q + 1 / k
    return 2 * (s + s * q * p) - np.where(v < 0.25, 0, n) * float(LN2)


def exponential(high, low, bits):
    """Return the number of the middle of one of 2^(32 + bits) parts of [0, 1)."""
    unit = 2.0 ** (-32 - bits)
    return minus_log(
        high * 2.0**-32 + (low + 0.5) * unit,
        (MASK - high) * 2.0**-32 + (2.0**bits - 1 - low + 0.5) * unit,
    )


def exponentials(size, key, position):
    """Return E of all tokens."""
    numbers = numbers_at(key, position)
    x = np.arange(size)
    place = words(numbers, 2, x // BLOCK)
    of_block = exponential(words(numbers, 0, x // BLOCK), place // BLOCK, 26) / BLOCK
    own = exponential(words(numbers, 1, x), words(numbers, 3, x), 32)
    return np.where(x % BLOCK == place % BLOCK, of_block, of_block + own)


def exp2(t):
    """Return 2**t of an array."""
    n = (t + 1.5 * 2**52) - 1.5 * 2**52
    p = np.zeros_like(t)
    for c in TAYLOR_F64:
        p = p * (t - n) + c
    return np.ldexp(p, n.astype(int))


def race(row, temperature, key, position, most):
    """Return the ids of the least scores, ascending, ties by id, and these."""
    x = np.asarray(row, np.float64)
    if temperature < 2.0**-100:
        scores = -x
    else:
        with np.errstate(over="ignore"):
            t = (x - x.max()) * (float(1 / LN2) / temperature)
        up = exp2(np.minimum(-t, 100))
        scores = exponentials(x.size, key, position) * up
        scores[~(t >= -100)] = np.inf
    best = np.argsort(scores, kind="stable")[:most]
    best = best[scores[best] < np.inf]
    return best.tolist(), scores[best].tolist()
