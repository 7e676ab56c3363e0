"""Exponentials and sums, as in ``csrc/rows/softmax.h``."""

import numpy as np

from sqs_codec._backend.numba.jit import jit, leaf
from sqs_codec._base.exp2 import TAYLOR

LANES = 16
MIN_EXPONENT_F32 = np.float32(-100)
MIN_EXPONENT_F64 = -1000.0
ROUND_F32 = np.float32(1.5 * 2**23)
ROUND_F64 = 1.5 * 2**52
ZERO_F32 = np.float32(0)
C7, C6, C5, C4, C3, C2, C1, C0 = (np.float32(c) for c in TAYLOR[-8:])


@leaf
def exp2_f32(t):
    inside = t >= MIN_EXPONENT_F32
    # A selection, not a branch, so that the loop vectorizes.
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
    # The low bits of `shifted` are the rounded t; the shift removes the others.
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
    for c in TAYLOR:
        p = p * f + c
    n = np.float64(shifted).view(np.int64) << 52
    return np.int64(np.float64(p).view(np.int64) + n).view(np.float64)


# Compilers vectorize passes over groups of a few vectors, in loops over the lanes with
# identical bodies.
GROUP_VECTORS = 8
GROUP = GROUP_VECTORS * LANES


@leaf
def add_striped(values, lanes):
    """Add value i to lane i mod LANES."""
    groups = values.size // GROUP
    for g in range(groups):
        start = g * GROUP
        for j in range(LANES):
            total = lanes[j]
            for r in range(GROUP_VECTORS):
                total += np.float64(values[start + r * LANES + j])
            lanes[j] = total
    for i in range(groups * GROUP, values.size):
        lanes[i % LANES] += values[i]


@leaf
def fold_lanes(lanes):
    """Return the sum of the lanes, added pairwise."""
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
