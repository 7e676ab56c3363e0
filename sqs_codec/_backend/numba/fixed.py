"""Logarithms and powers of two in integers, as in ``csrc/entropy/fixed.h``."""

import numpy as np

from sqs_codec._backend.numba import model
from sqs_codec._backend.numba.jit import entry, jit

BIT = 1 << model.LOG_UNIT
"""The logarithm 1, in units of 2^-32."""

ONE = 1 << model.POWER_UNIT
"""The power 1, in units of 2^-31."""

LOG_KNOTS = 1 << model.LOG_KNOT_BITS
POWER_KNOTS = 1 << model.POWER_KNOT_BITS
LOG_STEP_BITS = model.LOG_UNIT - model.LOG_KNOT_BITS
POWER_STEP_BITS = model.LOG_UNIT - model.POWER_KNOT_BITS

# These integers are the same on every platform: no value is within 2^-11 of the middle
# of two integers, and the error of np.log2 and np.exp2 is below 2^-17.
_LOGS = np.log2(1 + np.arange(LOG_KNOTS + 1) / LOG_KNOTS)
_POWERS = np.exp2(-np.arange(POWER_KNOTS + 1) / POWER_KNOTS)
LOG2_TABLE = np.rint(_LOGS * BIT).astype(np.int64)
EXP2_TABLE = np.rint(_POWERS * ONE).astype(np.int64)

MANTISSA_BITS = 52
EXPONENT_BIAS = 1023


@jit
def float_bits(x):
    """Return the bits of a positive integer as a float64, exact below 2^53."""
    return np.float64(x).view(np.int64)


@jit
def floor_log2(x):
    return (float_bits(x) >> MANTISSA_BITS) - EXPONENT_BIAS


@entry
def log2(x):
    bits = float_bits(x)
    whole = (bits >> MANTISSA_BITS) - EXPONENT_BIAS
    fraction = bits >> (MANTISSA_BITS - model.LOG_UNIT) & BIT - 1
    i = fraction >> LOG_STEP_BITS
    past = fraction & (1 << LOG_STEP_BITS) - 1
    step = (LOG2_TABLE[i + 1] - LOG2_TABLE[i]) * past >> LOG_STEP_BITS
    return (whole << model.LOG_UNIT) + LOG2_TABLE[i] + step


def log2_small(x):
    whole = x.bit_length() - 1
    knot = (x << model.LOG_KNOT_BITS >> whole) - LOG_KNOTS
    return (whole << model.LOG_UNIT) + int(LOG2_TABLE[knot])


@entry
def exp2(t):
    i = t >> POWER_STEP_BITS & POWER_KNOTS - 1
    past = t & (1 << POWER_STEP_BITS) - 1
    step = (EXP2_TABLE[i] - EXP2_TABLE[i + 1]) * past >> POWER_STEP_BITS
    return EXP2_TABLE[i] - step >> min(t >> model.LOG_UNIT, 63)
