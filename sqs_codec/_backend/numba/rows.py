"""Passes over a row, as in ``csrc/rows``.

What is different is how a compiler is brought to use vector instructions: a pass
goes by groups of values, `DEPTH` vectors of `LANES` values each, in loops over the
lanes whose bodies are all alike.
"""

from __future__ import annotations

import numpy as np

from sqs_codec._backend.numba.jit import entry, jit, leaf, part

LANES = 16
LOG2_E = 1.4426950408889634
MIN_EXPONENT_F32 = np.float32(-100)
MIN_EXPONENT_F64 = -1000.0
ROUND_F32 = np.float32(1.5 * 2**23)
ROUND_F64 = 1.5 * 2**52
ZERO_F32 = np.float32(0)
TAYLOR_F64 = (
    1.3691488853904128e-12,
    2.5678435993488206e-11,
    4.4455382718708116e-10,
    7.054911620801123e-09,
    1.01780860092397e-07,
    1.321548679014431e-06,
    1.5252733804059841e-05,
    0.0001540353039338161,
    0.0013333558146428443,
    0.009618129107628477,
    0.05550410866482158,
    0.24022650695910072,
    0.6931471805599453,
    1.0,
)
C7, C6, C5, C4, C3, C2, C1, C0 = (np.float32(c) for c in TAYLOR_F64[-8:])


@leaf
def exp2_f32(t):
    inside = t >= MIN_EXPONENT_F32
    # Selected rather than skipped, so that all lanes do the same.
    t = t if inside else MIN_EXPONENT_F32
    shifted = t + ROUND_F32
    f = t - (shifted - ROUND_F32)
    p = C7 * f + C6
    p = p * f + C5
    p = p * f + C4
    p = p * f + C3
    p = p * f + C2
    p = p * f + C1
    p = p * f + C0
    # The low bits of `shifted` are n, and those above leave by the shift.
    n = np.float32(shifted).view(np.int32) << 23
    bits = np.int32(np.float32(p).view(np.int32) + n)
    return bits.view(np.float32) if inside else ZERO_F32


@leaf
def exp2_f64(t):
    if not t >= MIN_EXPONENT_F64:
        return 0.0
    shifted = t + ROUND_F64
    f = t - (shifted - ROUND_F64)
    p = 0.0
    for c in TAYLOR_F64:
        p = p * f + c
    n = np.float64(shifted).view(np.int64) << 52
    return np.int64(np.float64(p).view(np.int64) + n).view(np.float64)


DEPTH = 8
GROUP = DEPTH * LANES
BLOCK = 1024
assert BLOCK % GROUP == 0


@leaf
def add_striped(values, lanes):
    """Add value i to lane i mod LANES."""
    groups = values.size // GROUP
    for g in range(groups):
        start = g * GROUP
        for j in range(LANES):
            total = lanes[j]
            for r in range(DEPTH):
                total += np.float64(values[start + r * LANES + j])
            lanes[j] = total
    for i in range(groups * GROUP, values.size):
        lanes[i % LANES] += values[i]


@leaf
def fold_lanes(lanes):
    half = LANES // 2
    while half > 0:
        for i in range(half):
            lanes[i] += lanes[i + half]
        half //= 2
    return lanes[0]


@jit
def striped_sum(values):
    lanes = np.zeros(LANES)
    add_striped(values, lanes)
    return fold_lanes(lanes)


# The narrower types, by their bits.
HALF_TO_FLOAT = np.float32(2.0 ** (127 - 15))
U32 = np.uint32


@entry
def widen(row, is_half):
    """Return uint16 values, which hold binary16 or bfloat16, as float32."""
    wide = np.empty(row.size, np.float32)
    if is_half:
        for i in range(row.size):
            bits = U32(row[i])
            magnitude = U32(U32(bits & U32(0x7FFF)) << U32(13))
            # Exact, and the way to normalise what is subnormal.
            scaled = np.float32(magnitude.view(np.float32) * HALF_TO_FLOAT)
            special = U32(bits & U32(0x7C00)) == U32(0x7C00)
            found = U32(scaled.view(U32) | U32(0x7F800000 if special else 0))
            sign = U32(U32(bits & U32(0x8000)) << U32(16))
            wide[i] = U32(found | sign).view(np.float32)
    else:
        for i in range(row.size):
            wide[i] = U32(U32(row[i]) << U32(16)).view(np.float32)
    return wide


# A *bin* is a lane of a group: DEPTH values, LANES apart, of which a pass over
# the row notes the largest. Bin b is lane b mod LANES of group b // LANES.


@leaf
def fill_maxima(row, maxima):
    """Set the bins' maxima; return whether the row is free of NaN and +inf."""
    bad = False
    groups = row.size // GROUP
    for g in range(groups):
        start = g * GROUP
        to = g * LANES
        for j in range(LANES):
            best = row[start + j]
            for r in range(DEPTH):
                x = row[start + r * LANES + j]
                bad |= not x < np.inf
                best = x if x > best else best
            maxima[to + j] = best
    maxima[groups * LANES :] = -np.inf
    for i in range(groups * GROUP, row.size):
        b = groups * LANES + i % LANES
        bad |= not row[i] < np.inf
        maxima[b] = row[i] if row[i] > maxima[b] else maxima[b]
    return not bad


@jit
def bin_maxima(row):
    """Return whether the row is free of NaN and +inf, and the bins' maxima."""
    groups = (row.size + GROUP - 1) // GROUP
    maxima = np.empty(groups * LANES, row.dtype)
    finite = fill_maxima(row, maxima)
    return finite, maxima


@jit
def sum_terms(row, top, scale):
    lanes = np.zeros(LANES)
    block = np.empty(BLOCK, np.float32)
    for start in range(0, row.size, BLOCK):
        values = row[start : start + BLOCK]
        for i in range(values.size):
            block[i] = exp2_f32(np.float32(values[i] - top) * scale)
        add_striped(block[: values.size], lanes)
    return fold_lanes(lanes)


@leaf
def count_reaching(values, level):
    n = np.int32(0)  # as wide as a float, for as many lanes
    for i in range(values.size):
        n = np.int32(n + np.int32(values[i] >= level))
    return np.int64(n)


@jit
def collect(row, maxima, level):
    """Return the ids of the values that reach a level, ascending."""
    most = count_reaching(maxima, level) * DEPTH
    ids = np.empty(min(most, row.size), np.int64)
    found = np.int64(0)  # a plain 0 is a type of its own, to compile for once more
    for g in range(maxima.size // LANES):
        hit = False
        for j in range(LANES):
            hit |= maxima[g * LANES + j] >= level
        if not hit:
            continue
        for start in range(g * GROUP, min((g + 1) * GROUP, row.size), LANES):
            found = collect_lanes(row, start, level, ids, found)
    return ids[:found]


@leaf
def collect_lanes(row, start, level, ids, found):
    if start + LANES <= row.size:
        hit = False
        for j in range(LANES):
            hit |= row[start + j] >= level
        if not hit:
            return found
    for i in range(start, min(start + LANES, row.size)):
        if row[i] >= level:
            ids[found] = i
            found += 1
    return found


PLAIN_STEPS = 12
LARGEST_INT = np.iinfo(np.int64).max


@leaf
def order(bits):
    """Return integers in the order of the doubles that they are the bits of.

    Applied twice, it undoes itself.
    """
    return bits ^ (bits >> 63 & LARGEST_INT)


@leaf
def between(low, high, step):
    """Return a number between, unless the type of the values has none.

    The mean is near what is sought if the values are spread as logits are; that of
    the places in the order of doubles bounds the steps for any values.
    """
    if step >= PLAIN_STEPS and step % 2:
        below = order(np.float64(low).view(np.int64))
        above = order(np.float64(high).view(np.int64))
        return np.int64(order((below >> 1) + (above >> 1))).view(np.float64)
    return low / 2 + high / 2


@part
def smallest(values, least, most):
    """Return the smallest value from `least` on, or `most`."""
    lanes = np.full(LANES, most)
    whole = values.size - values.size % GROUP
    for start in range(0, whole, GROUP):
        for j in range(LANES):
            low = lanes[j]
            for r in range(DEPTH):
                x = values[start + r * LANES + j]
                x = x if x >= least else most
                low = x if x < low else low
            lanes[j] = low
    low = most
    for i in range(whole, values.size):
        if least <= values[i] < low:
            low = values[i]
    for x in lanes:
        low = x if x < low else low
    return low


@jit
def find_level(values, k, most, least, high):
    """Return a level that k to `most` values reach; `high` is the largest of them.

    The k-th largest value if ties allow no such level; and `least`, which may be
    more than `most` values reach, if it is k values that don't.
    """
    n = count_reaching(values, least)
    if n < k:
        return least
    if count_reaching(values, high) >= k:
        return high
    level = np.full(1, smallest(values, least, high))  # rounds to the values' type
    low = np.float64(level[0])
    high = np.float64(high)
    step = np.int64(0)
    while n > most:
        level[0] = between(low, high, step)
        if low < level[0] < high:
            reaching = count_reaching(values, level[0])
            if reaching >= k:
                low = np.float64(level[0])
                n = reaching
            else:
                high = np.float64(level[0])
        elif step % 2 == 0:
            break  # as not even the mean lies between
        step += 1
    level[0] = low
    return level[0]


# A row is a tuple: its values, the bins' maxima, those of the bins of these, the
# smallest value that may be kept, the largest there is, the scale of the exponents,
# and whether the values are terms already.


@part
def new_row(values, maxima, least, scale, is_term):
    coarse = bin_maxima(maxima)[1]
    top = coarse[0]
    for x in bin_maxima(coarse)[1]:
        top = x if x > top else top
    rounded = np.full(1, top)
    rounded[0] = least
    return values, maxima, coarse, rounded[0], top, scale, is_term


@jit
def find_best(row, k):
    """Return the ids of the k best values, ascending."""
    values, maxima, coarse, least, top, _, _ = row
    level = least
    if 2 * k <= coarse.size:
        level = find_level(coarse, k, k + k // 8, least, top)
    if level == least and k <= maxima.size:
        level = find_level(maxima, k, k + k // 8, least, top)
    ids = collect(values, maxima, level)
    if ids.size <= k:
        return ids
    candidates = np.empty(ids.size, values.dtype)
    for i in range(ids.size):
        candidates[i] = values[ids[i]]
    level = find_level(candidates, k, k, level, top)
    ties = k
    for x in candidates:
        ties -= x > level
    found = 0
    for i in range(ids.size):
        tie = candidates[i] == level
        if candidates[i] > level or (tie and ties > 0):
            ties -= tie
            ids[found] = ids[i]
            found += 1
    return ids[:found]
