"""Choice of the kept tokens of a row, as in ``csrc/quantize/sparsify.c``."""

import numpy as np

from sqs_codec._backend.numba import softmax
from sqs_codec._backend.numba.jit import jit, leaf, part
from sqs_codec._backend.numba.rows import select_from, select_top


@leaf
def unnormalized(row, id_):
    values, _, _, _, top, scale, probs = row
    if probs:
        return np.float64(values[id_])
    return np.float64(softmax.exp2_f32(np.float32(values[id_] - top) * scale))


# An unnormalized probability is 2^exponent with a relative error below 2^-20, and the
# exponent, above -100, was rounded twice. If the probability reaches a level, the
# exponent is therefore less than this below the level's logarithm.
EXPONENT_SLACK = 2.0**-10
# The relative error of a value computed from an exponent.
VALUE_SLACK = 2.0**-22
# Its absolute error for subnormal floats.
VALUE_SLACK_TINY = 2.0**-147


@part
def low_log2(x):
    bits = np.float64(x).view(np.int64)
    return (bits >> 52) - 1023 + (bits & (1 << 52) - 1) / 2.0**52


@part
def value_bound(row, level):
    _, _, _, lowest, top, scale, probs = row
    bound = np.full(1, top)  # in the dtype of the values
    if probs:
        bound[0] = max(level, np.float64(lowest))
    elif level <= 1:
        log = max(low_log2(max(level, 2.0**-101)), np.float64(softmax.MIN_EXPONENT_F32))
        value = top + (log - EXPONENT_SLACK) / np.float64(scale)
        value -= abs(value) * VALUE_SLACK + VALUE_SLACK_TINY
        bound[0] = max(value, np.float64(lowest))
    return min(bound[0], top)


@part
def keep_level(row, level):
    values, maxima, _, _, top, _, _ = row
    ids = select_from(values, maxima, value_bound(row, level))
    found = 0
    found_max = False
    for id_ in ids:
        p = unnormalized(row, id_)
        first_max = values[id_] == top and not found_max
        found_max |= first_max
        if first_max or (p >= level and p > 0):
            ids[found] = id_
            found += 1
    return ids[:found]


@jit
def sparsify(row, total, most, least):
    if least > 0:
        kept = keep_level(row, least * total)
        if kept.size <= most:
            return kept
    return select_top(row, min(most, row[0].size))


@jit
def dropped_mass(row, total, kept):
    lanes = np.zeros(softmax.LANES)
    for id_ in kept:
        lanes[id_ % softmax.LANES] += unnormalized(row, id_)
    dropped = total - softmax.fold_lanes(lanes)
    return dropped / total if dropped > 0 else 0.0
