"""Unbiased counts, as in ``csrc/quantize/systematic.c``."""

import numpy as np

from sqs_codec._backend.numba.jit import entry, jit, leaf
from sqs_codec._backend.numba.quantize import exponent_scale
from sqs_codec._backend.numba.rows import scan
from sqs_codec._backend.numba.softmax import ROUND_F64, exp2_f32
from sqs_codec._base.errors import Status
from sqs_codec._base.exp2 import UNITS

HALF, LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


@leaf
def multiply_high(a, b):
    low = (a & LOW) * (b & LOW)
    middle = (a >> HALF) * (b & LOW) + (low >> HALF)
    other = (a & LOW) * (b >> HALF) + (middle & LOW)
    return (a >> HALF) * (b >> HALF) + (middle >> HALF) + (other >> HALF)


@jit
def weigh(row, top, scale):
    weights = np.empty(row.size, np.int64)
    for i in range(row.size):
        power = np.float64(exp2_f32(np.float32(row[i] - top) * scale))
        weights[i] = np.int64((power * UNITS + ROUND_F64) - ROUND_F64)
    return weights


@leaf
def count_marks(weights, resolution, number, ids, counts):
    length = weights.sum()
    apart = length // resolution
    rest = length % resolution
    first = length - np.int64(multiply_high(number, np.uint64(length)))
    mark = (first + resolution - 1) // resolution
    beyond = mark * resolution - first
    end = np.int64(0)
    left = resolution
    found = 0
    for i in range(weights.size):
        end += weights[i]
        before = left
        while end >= mark and left > 0:
            up = beyond < rest
            mark += apart + up
            beyond += up * resolution - rest
            left -= 1
        if left < before:
            ids[found] = i
            counts[found] = before - left
            found += 1
    return found


@entry
def quantize_unbiased(row, number, temperature, resolution):
    ids = np.zeros(min(row.size, resolution), np.uint32)
    counts = np.zeros(ids.size, np.uint32)
    finite, maxima = scan(row)
    top = maxima.max()
    if not finite:
        return Status.NOT_FINITE, ids, counts
    if top == -np.inf:
        return Status.ALL_MASKED, ids, counts
    if temperature == 0:
        ids[0] = row.argmax()
        counts[0] = resolution
        return Status.OK, ids[:1], counts[:1]
    weights = weigh(row, top, exponent_scale(temperature))
    found = count_marks(weights, np.int64(resolution), number, ids, counts)
    return Status.OK, ids[:found], counts[:found]
