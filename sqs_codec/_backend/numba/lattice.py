"""The nearest distribution of counts, as in ``csrc/quantize/lattice.c``."""

import numpy as np

from sqs_codec._backend.numba.heap import heap_offer
from sqs_codec._backend.numba.jit import jit
from sqs_codec._backend.numba.softmax import striped_sum


@jit
def lattice(weights, resolution):
    n = weights.size
    total = striped_sum(weights)
    exact = np.empty(n)
    counts = np.empty(n, np.int64)
    excess = -resolution
    for i in range(n):
        exact[i] = resolution * (weights[i] / total)
        counts[i] = np.int64(exact[i] + 0.5)
        excess += counts[i]
    if excess:
        correct(exact, counts, excess)
    return counts


@jit
def correct(exact, counts, excess):
    """Lower the counts with the largest errors, or raise those with the smallest."""
    n = exact.size
    units = abs(excess)
    keys = np.empty(units)
    ids = np.empty(units, np.int64)
    found = np.int64(0)
    for i in range(n):
        error = counts[i] - exact[i]
        if excess > 0:
            found = heap_offer(keys, ids, found, units, error, n - 1 - i)
        else:
            found = heap_offer(keys, ids, found, units, -error, i)
    for i in range(found):
        if excess > 0:
            counts[n - 1 - ids[i]] -= 1
        else:
            counts[ids[i]] += 1
