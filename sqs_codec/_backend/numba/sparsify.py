"""Which tokens of a row are kept, as in ``csrc/quantize/sparsify.c``."""

from __future__ import annotations

import numpy as np

from sqs_codec._backend.numba.heap import ahead, heap_offer, heap_sort
from sqs_codec._backend.numba.jit import jit, leaf, part
from sqs_codec._backend.numba.rows import (
    LANES,
    MIN_EXPONENT_F32,
    collect,
    exp2_f32,
    find_best,
    fold_lanes,
)

# Kinds of rule, with the values of sqs_keep_kind.
TOP_K, THRESHOLD, TOP_P, MIN_P = KINDS = range(4)

FIRST_NUCLEUS = 64
NUCLEUS_GROWTH = 8


@leaf
def term_of(row, id_):
    values, _, _, _, top, scale, is_term = row
    if is_term:
        return np.float64(values[id_])
    return np.float64(exp2_f32(np.float32(values[id_] - top) * scale))


@leaf
def largest_term(row):
    _, _, _, _, top, _, is_term = row
    return np.float64(top) if is_term else 1.0


# By how much less than a level's logarithm an exponent may be whose term reaches
# it: a term is within 2^-20 of the power it stands for, and an exponent, of 100 at
# most, the result of two roundings.
EXPONENT_SLACK = 2.0**-10
# By how much a value may be off that is found from an exponent: relatively, and
# for what is subnormal as a float.
VALUE_SLACK = 2.0**-22
VALUE_SLACK_TINY = 2.0**-147


@part
def least_exponent(level):
    """Return what the exponents of terms that reach a level in (0, 1] exceed."""
    bits = np.float64(level).view(np.int64)
    # A bound from below, as log2(1 + f) >= f for f in [0, 1].
    log = (bits >> 52) - 1023 + (bits & (1 << 52) - 1) / 2.0**52
    return log - EXPONENT_SLACK


@part
def value_of_level(row, level):
    """Return a value that everything reaches whose term reaches a level above 0."""
    _, _, _, least, top, scale, is_term = row
    bound = np.full(1, top)  # rounds to the values' type
    if is_term:
        bound[0] = max(level, np.float64(least))
    elif level <= 1:
        exponent = max(
            least_exponent(max(level, 2.0**-101)), MIN_EXPONENT_F32 - EXPONENT_SLACK
        )
        value = top + exponent / np.float64(scale)
        value -= abs(value) * VALUE_SLACK + VALUE_SLACK_TINY
        bound[0] = max(value, np.float64(least))
    return min(bound[0], top)


@part
def keep_level(row, level):
    values, maxima, _, _, top, _, _ = row
    ids = collect(values, maxima, value_of_level(row, level))
    found = 0
    argmax = -1
    for id_ in ids:
        term = term_of(row, id_)
        first = argmax < 0 and values[id_] == top
        if first:
            argmax = id_
        if first or (term >= level and term > 0):
            ids[found] = id_
            found += 1
    return ids[:found]


@part
def keep_through(row, ids, key, last):
    found = 0
    for id_ in ids:
        if not ahead(key, last, np.float64(row[0][id_]), id_):
            ids[found] = id_
            found += 1
    return ids[:found]


@part
def keep_top_p(row, total, p):
    values = row[0]
    capacity = FIRST_NUCLEUS
    while True:
        best = find_best(row, min(capacity, values.size))
        n = best.size
        keys = np.empty(n)
        ids = np.empty(n, np.int64)
        for i in range(n):
            heap_offer(keys, ids, i, n, np.float64(values[best[i]]), best[i])
        heap_sort(keys, ids, n)
        mass = 0.0
        for i in range(n):
            mass += term_of(row, ids[i])
            if mass >= p * total:
                return keep_through(row, best, keys[i], ids[i])
        if n < capacity or n == values.size:
            return best
        capacity *= NUCLEUS_GROWTH


@jit
def sparsify(row, total, kind, value):
    """Return the ids kept, ascending."""
    if kind == TOP_K:
        return find_best(row, np.int64(min(value, np.float64(row[0].size))))
    if kind == TOP_P and value < 1:
        return keep_top_p(row, total, value)
    if kind == THRESHOLD:
        level = value * total
    elif kind == TOP_P:
        level = 0.0
    else:
        level = value * largest_term(row)
    return keep_level(row, level)


@jit
def find_dropped(row, total, kept):
    lanes = np.zeros(LANES)
    for id_ in kept:
        lanes[id_ % LANES] += term_of(row, id_)
    dropped = total - fold_lanes(lanes)
    return dropped / total if dropped > 0 else 0.0
