"""Passes over a row, described in ``csrc/rows/kernels.h``."""

import numpy as np

from sqs_codec._backend.numba import softmax
from sqs_codec._backend.numba.jit import entry, jit, leaf, part

HALF_TO_FLOAT = np.float32(2.0 ** (127 - 15))
U32 = np.uint32


@entry
def widen(row, is_half):
    wide = np.empty(row.size, np.float32)
    if is_half:
        for i in range(row.size):
            bits = U32(row[i])
            magnitude = U32(U32(bits & U32(0x7FFF)) << U32(13))
            # This product is exact, and normalizes subnormals.
            scaled = np.float32(magnitude.view(np.float32) * HALF_TO_FLOAT)
            special = U32(bits & U32(0x7C00)) == U32(0x7C00)
            found = U32(scaled.view(U32) | U32(0x7F800000 if special else 0))
            sign = U32(U32(bits & U32(0x8000)) << U32(16))
            wide[i] = U32(found | sign).view(np.float32)
    else:
        for i in range(row.size):
            wide[i] = U32(U32(row[i]) << U32(16)).view(np.float32)
    return wide


# A group has a maximum for each lane: the largest of GROUP_VECTORS values, LANES apart.
# Maximum m of a row belongs to lane m mod LANES of group m // LANES.


@leaf
def fill_maxima(row, maxima):
    """Set the maxima; return whether the row is free of NaN and +inf."""
    bad = False
    groups = row.size // softmax.GROUP
    for g in range(groups):
        start = g * softmax.GROUP
        to = g * softmax.LANES
        for j in range(softmax.LANES):
            best = row[start + j]
            for r in range(softmax.GROUP_VECTORS):
                x = row[start + r * softmax.LANES + j]
                bad |= not x < np.inf
                best = x if x > best else best
            maxima[to + j] = best
    maxima[groups * softmax.LANES :] = -np.inf
    for i in range(groups * softmax.GROUP, row.size):
        m = groups * softmax.LANES + i % softmax.LANES
        bad |= not row[i] < np.inf
        maxima[m] = row[i] if row[i] > maxima[m] else maxima[m]
    return not bad


@jit
def scan(row):
    """Return whether the row is free of NaN and +inf, and its maxima."""
    groups = (row.size + softmax.GROUP - 1) // softmax.GROUP
    maxima = np.empty(groups * softmax.LANES, row.dtype)
    finite = fill_maxima(row, maxima)
    return finite, maxima


EXP2_AT_ONCE = 1024
assert EXP2_AT_ONCE % softmax.GROUP == 0


@jit
def sum_exp2(row, top, scale):
    """Return the sum of 2^((x - top) * scale) in single precision, by lanes."""
    lanes = np.zeros(softmax.LANES)
    powers = np.empty(EXP2_AT_ONCE, np.float32)
    for start in range(0, row.size, EXP2_AT_ONCE):
        values = row[start : start + EXP2_AT_ONCE]
        for i in range(values.size):
            powers[i] = softmax.exp2_f32(np.float32(values[i] - top) * scale)
        softmax.add_striped(powers[: values.size], lanes)
    return softmax.fold_lanes(lanes)


@leaf
def count_reaching(values, level):
    n = np.int32(0)  # 32 bits like a float, for the same number of lanes
    for i in range(values.size):
        n = np.int32(n + np.int32(values[i] >= level))
    return np.int64(n)


@jit
def select_from(row, maxima, level):
    """Return the ids of the values at or above a level, ascending."""
    ids = np.empty(row.size, np.int64)  # enough even if the row changes meanwhile
    found = np.int64(0)
    for g in range(maxima.size // softmax.LANES):
        hit = False
        for j in range(softmax.LANES):
            hit |= maxima[g * softmax.LANES + j] >= level
        if not hit:
            continue
        for start in range(
            g * softmax.GROUP, min((g + 1) * softmax.GROUP, row.size), softmax.LANES
        ):
            found = select_from_vector(row, start, level, ids, found)
    return ids[:found]


@leaf
def select_from_vector(row, start, level, ids, found):
    """Add the ids of one vector's values; return the number of ids."""
    if start + softmax.LANES <= row.size:
        hit = False
        for j in range(softmax.LANES):
            hit |= row[start + j] >= level
        if not hit:
            return found
    for i in range(start, min(start + softmax.LANES, row.size)):
        if row[i] >= level:
            ids[found] = i
            found += 1
    return found


PLAIN_STEPS = 12
LARGEST_INT = np.iinfo(np.int64).max


@leaf
def order(bits):
    """Map a double's bits to an integer with the same order, or back."""
    return bits ^ (bits >> 63 & LARGEST_INT)


@leaf
def between(low, high, step):
    """Return a number between two others.

    In the first steps it is their mean, which soon finds the level among usual logits.
    Later, every other step halves the number of doubles between them, which bounds the
    number of steps for any values.
    """
    if step >= PLAIN_STEPS and step % 2:
        below = order(np.float64(low).view(np.int64))
        above = order(np.float64(high).view(np.int64))
        return np.int64(order((below >> 1) + (above >> 1))).view(np.float64)
    return low / 2 + high / 2


@part
def smallest(values, least, most):
    """Return the smallest value at or above `least`, at most `most`."""
    lanes = np.full(softmax.LANES, most)
    whole = values.size - values.size % softmax.GROUP
    for start in range(0, whole, softmax.GROUP):
        for j in range(softmax.LANES):
            low = lanes[j]
            for r in range(softmax.GROUP_VECTORS):
                x = values[start + r * softmax.LANES + j]
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
    """Return a level that k to `most` values reach.

    If fewer than k reach `least`, the level is `least`. If ties exclude k to `most`, it
    is the k-th largest value.
    """
    n = count_reaching(values, least)
    if n < k:
        return least
    if count_reaching(values, high) >= k:
        return high
    level = np.full(1, smallest(values, least, high))  # in the dtype of the values
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
            break  # there is no value of this dtype between them
        step += 1
    level[0] = low
    return level[0]


# A row is a tuple: its values, their maxima, the maxima of the maxima, the lowest
# unmasked value, the largest value, the factor from a logit to the exponent of its
# unnormalized probability, and whether the values are probabilities.


@part
def new_row(values, maxima, lowest, scale, probs):
    coarse = scan(maxima)[1]
    top = coarse[0]
    for x in scan(coarse)[1]:
        top = x if x > top else top
    rounded = np.full(1, top)  # in the dtype of the values
    rounded[0] = lowest
    return values, maxima, coarse, rounded[0], top, scale, probs


@jit
def select_top(row, k):
    """Return the ids of the k largest values, ascending; ties go to the lower id."""
    values, maxima, coarse, lowest, top, _, _ = row
    level = lowest
    if 2 * k <= coarse.size:
        level = find_level(coarse, k, k + k // 8, lowest, top)
    if level == lowest and k <= maxima.size:
        level = find_level(maxima, k, k + k // 8, lowest, top)
    ids = select_from(values, maxima, level)
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
