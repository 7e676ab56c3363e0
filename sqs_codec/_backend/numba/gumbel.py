"""The smallest of exponential random numbers, as in ``csrc/gumbel.c``.

Unlike there, the bounds of blocks have double precision, and the numbers of all tokens
in the most promising blocks are computed.
"""

import numpy as np

from sqs_codec._backend.numba.jit import entry, jit, leaf
from sqs_codec._backend.numba.softmax import LANES, exp2_f64
from sqs_codec._base.errors import Status
from sqs_codec._base.exp2 import LOG2_E

BLOCK = 64
VECTORS = BLOCK // LANES
LEAST_EXPONENT = -100.0
LEAST_TEMPERATURE = 2.0**-100
LN_2 = 0.6931471805599453
SERIES = tuple(1 / k for k in range(19, 1, -2))
UPPER_OF_BLOCK, UPPER, PLACES, LOWER = map(np.uint64, range(4))
ROUNDS = 10
M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
MASK, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
THREE, FOUR, FIFTEEN, SIX = map(np.uint64, (3, 4, 15, 6))


@leaf
def philox(c0, c1, c2, c3, k0, k1):
    """Return the four words of a counter and a key; all are uint64 below 2^32."""
    for _ in range(ROUNDS):
        p = M0 * c0
        q = M1 * c2
        c0, c1, c2, c3 = q >> HALF ^ c1 ^ k0, q & MASK, p >> HALF ^ c3 ^ k1, p & MASK
        k0 = k0 + W0 & MASK
        k1 = k1 + W1 & MASK
    return c0, c1, c2, c3


@leaf
def word(numbers, stream, i):
    """Return word i of a position's stream."""
    k = np.uint64(i)
    k0, k1, high0, high1 = numbers
    counter = k >> SIX << FOUR | k & FIFTEEN
    w = philox(counter, stream, high0, high1, k0, k1)
    at = k >> FOUR & THREE
    if at < np.uint64(2):
        return w[0] if at == np.uint64(0) else w[1]
    return w[2] if at == np.uint64(2) else w[3]


@leaf
def minus_log(v, u):
    k = 0.0
    s = v / (2.0 - v)
    if v >= 0.25:
        while u < 0.7071:
            u *= 2.0
            k -= 1.0
        s = (1.0 - u) / (1.0 + u)
    q = s * s
    p = 1 / 21
    for c in SERIES:
        p = p * q + c
    return 2.0 * (s + s * q * p) - k * LN_2


@leaf
def exponential(high, low, most):
    unit = 2.0**-32 / (most + 1.0)
    h = np.float64(high)
    v = h * 2.0**-32 + (low + 0.5) * unit
    u = (4294967295.0 - h) * 2.0**-32 + (most - low + 0.5) * unit
    return minus_log(v, u)


@jit
def fill_blocks(row, maxima):
    """Set each block's maximum; return whether the row is free of NaN and +inf."""
    lanes = np.empty(LANES, row.dtype)
    bad = False
    full = row.size // BLOCK
    for b in range(full):
        start = b * BLOCK
        for j in range(LANES):
            best = row[start + j]
            for r in range(VECTORS):
                x = row[start + r * LANES + j]
                bad |= not x < np.inf
                best = x if x > best else best
            lanes[j] = best
        best = lanes[0]
        for j in range(LANES):
            best = lanes[j] if lanes[j] > best else best
        maxima[b] = best
    maxima[full:] = -np.inf
    for i in range(full * BLOCK, row.size):
        bad |= not row[i] < np.inf
        maxima[full] = row[i] if row[i] > maxima[full] else maxima[full]
    return not bad


@leaf
def offer(score, token, scores, ids):
    i = scores.size
    while i > 0 and (
        score < scores[i - 1] or (score == scores[i - 1] and token < ids[i - 1])
    ):
        i -= 1
    for j in range(scores.size - 1, i, -1):
        scores[j] = scores[j - 1]
        ids[j] = ids[j - 1]
    if i < scores.size:
        scores[i] = score
        ids[i] = token


@leaf
def enter_block(row, b, top, scale, numbers, high, scores, ids):
    """Offer the scores of a block's tokens, except those that are clearly too large."""
    low = word(numbers, PLACES, b)
    place = np.int64(low) % BLOCK
    number = exponential(high, np.float64(low >> SIX), 2.0**26 - 1) / BLOCK
    for i in range(b * BLOCK, min((b + 1) * BLOCK, row.size)):
        t = (np.float64(row[i]) - top) * scale
        if not t >= LEAST_EXPONENT:
            continue
        by = exp2_f64(-t)
        own = number
        if number * by > scores[-1]:
            continue
        if i % BLOCK != place:
            upper = word(numbers, UPPER, i)
            if (number + np.float64(upper) * 2.0**-32) * by > scores[-1]:
                continue
            lower = np.float64(word(numbers, LOWER, i))
            own = number + exponential(upper, lower, 2.0**32 - 1)
        offer(own * by, i, scores, ids)


@leaf
def bound_blocks(maxima, top, scale, numbers, words, lows):
    k0, k1, high0, high1 = numbers
    for b in range(0, maxima.size, BLOCK):
        for j in range(LANES):
            counter = np.uint64(b // VECTORS + j)
            w = philox(counter, UPPER_OF_BLOCK, high0, high1, k0, k1)
            for r in range(VECTORS):
                words[b + r * LANES + j] = w[r]
    for b in range(maxima.size):
        t = (np.float64(maxima[b]) - top) * scale
        lows[b] = np.inf
        if t >= LEAST_EXPONENT:
            # Lowered by more than the rounding error.
            lows[b] = np.float64(words[b]) * (2.0**-38 * (1 - 1e-9)) * exp2_f64(-t)


@jit
def run(row, maxima, top, scale, numbers, scores, ids):
    words = np.empty(-(-maxima.size // BLOCK) * BLOCK, np.uint64)
    lows = np.empty(maxima.size)
    bound_blocks(maxima, top, scale, numbers, words, lows)
    for i in range(scores.size + maxima.size):
        b = i - scores.size
        if b < 0:
            b = np.argmin(lows)
        if lows[b] < np.inf and lows[b] <= scores[-1]:
            lows[b] = np.inf
            enter_block(row, b, top, scale, numbers, words[b], scores, ids)


@leaf
def choose(row, maxima, scores, ids):
    for b in range(maxima.size):
        if -np.float64(maxima[b]) > scores[-1]:
            continue
        for i in range(b * BLOCK, min((b + 1) * BLOCK, row.size)):
            score = -np.float64(row[i])
            if score < scores[-1]:
                offer(score, i, scores, ids)


@entry
def race(row, temperature, words, scores, ids):
    """Return a status; set the smallest scores (or infinity) and their ids."""
    scores[:] = np.inf
    maxima = np.empty(-(-row.size // BLOCK), row.dtype)
    if not fill_blocks(row, maxima):
        return Status.NOT_FINITE
    top = np.float64(maxima.max())
    if top == -np.inf:
        return Status.ALL_MASKED
    if temperature < LEAST_TEMPERATURE:
        choose(row, maxima, scores, ids)
    else:
        k0, k1, k2, k3, low, high = words
        c = philox(low, high, k2, k3, k0, k1)
        run(row, maxima, top, LOG2_E / temperature, c, scores, ids)
    return Status.OK
