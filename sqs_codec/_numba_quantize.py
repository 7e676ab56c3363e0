"""A row of logits or probabilities to counts, in Numba.

The functions do what ``csrc/lattice.c``, ``csrc/fit.c`` and ``csrc/quantize.c``
do; the reasons are there.
"""

from __future__ import annotations

import numpy as np

from sqs_codec import _numba_entropy as entropy
from sqs_codec._errors import Status
from sqs_codec._format import MAX_RESOLUTION, MAX_VOCAB, SUM_TOLERANCE, VARIABLE
from sqs_codec._numba_jit import entry, jit, leaf, part
from sqs_codec._numba_sparsify import (
    LOG2_E,
    THRESHOLD,
    TOP_P,
    bin_maxima,
    collect,
    exp2_f64,
    find_dropped,
    heap_offer,
    new_row,
    sparsify,
    striped_sum,
    sum_terms,
)

OK = int(Status.OK)
NOT_FINITE = int(Status.NOT_FINITE)
ALL_MASKED = int(Status.ALL_MASKED)
NEGATIVE = int(Status.NEGATIVE)
SUM = int(Status.SUM)

# lattice.c


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
        mend(exact, counts, excess)
    return counts


@jit
def mend(exact, counts, excess):
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


# fit.c: a point is ids, weights and counts

MAX_EXPONENT = MAX_RESOLUTION.bit_length() - 1
MOST_TRIALS = 64
COST_UNIT = 2.0**32


@jit
def round_weights(ids, weights, resolution):
    """Return the point without counts of 0."""
    counts = lattice(weights, resolution)
    alive = np.flatnonzero(counts)
    return ids[alive], weights[alive], counts[alive]


@jit
def variation(weights, counts, resolution, total, mass):
    moved = 0.0
    for i in range(counts.size):
        more = counts[i] / resolution - weights[i] / total * mass
        if more > 0:
            moved += more
    return moved


@jit
def balance(weights, most):
    """Return the resolution."""
    total = striped_sum(weights)
    low = 0
    high = MAX_EXPONENT
    while low < high:
        middle = (low + high) // 2
        counts = lattice(weights, 1 << middle)
        if variation(weights, counts, 1 << middle, total, 1.0) <= most:
            high = middle
        else:
            low = middle + 1
    return 1 << low


@jit
def price(objective, resolution, point):
    vocab_size, bits_per_tv, total, mass = objective
    ids, weights, counts = point
    cost = entropy.distribution_cost(ids, counts, vocab_size, resolution)
    moved = variation(weights, counts, resolution, total, mass)
    return cost / COST_UNIT + bits_per_tv * moved


@jit
def cheapest(objective, ids, weights):
    """Return the resolution."""
    best = 1
    least = np.inf
    for e in range(MAX_EXPONENT + 1):
        if e > 0 and not 1 << e <= objective[1]:
            break
        point = round_weights(ids, weights, 1 << e)
        cost = price(objective, 1 << e, point)
        if cost < least:
            least = cost
            best = 1 << e
    return best


@jit
def drop_what_pays(objective, resolution, point):
    ids, _, counts = point
    least = price(objective, resolution, point)
    order = np.argsort(counts * MAX_VOCAB + (MAX_VOCAB - 1 - ids))
    for id_ in ids[order[:MOST_TRIALS]]:
        others = np.flatnonzero(point[0] != id_)
        if others.size == 0 or others.size == point[0].size:
            continue
        trial = round_weights(point[0][others], point[1][others], resolution)
        cost = price(objective, resolution, trial)
        if cost < least:
            least = cost
            point = trial
    return point


@jit
def survivors(ids, counts):
    """Return the ids and counts that aren't 0, as callers have them."""
    n = 0
    for count in counts:
        n += count > 0
    found = np.empty((2, n), np.uint32)
    at = 0
    for i in range(counts.size):
        if counts[i]:
            found[0, at] = ids[i]
            found[1, at] = counts[i]
            at += 1
    return found[0], found[1]


@entry
def fit_plainly(kept, weights, dropped, resolution, error):
    """Return ids and counts."""
    if resolution == VARIABLE:
        resolution = balance(weights, max(error, dropped))
    return survivors(kept, lattice(weights, resolution))


@entry
def fit_by_price(kept, weights, dropped, vocab_size, resolution, bits_per_tv):
    """Return ids and counts."""
    objective = (vocab_size, bits_per_tv, striped_sum(weights), 1 - dropped)
    if resolution == VARIABLE:
        resolution = cheapest(objective, kept, weights)
    point = round_weights(kept, weights, resolution)
    ids, _, counts = drop_what_pays(objective, resolution, point)
    return survivors(ids, counts)


# quantize.c

MAX_F32 = np.finfo(np.float32).max
LEAST_PROB = np.nextafter(0.0, 1.0)


@part
def exponent_scale(temperature):
    return np.float32(min(LOG2_E / temperature, np.float64(MAX_F32)))


@part
def softmax_weights(values, ids, top, temperature):
    weights = np.empty(ids.size)
    for i in range(ids.size):
        difference = np.float64(values[ids[i]]) - np.float64(top)
        weights[i] = exp2_f64(difference / temperature * LOG2_E)
    return weights


@part
def weigh_logits(values, temperature, kind, value, mass):
    """Return a status, the tokens kept, their weights and the dropped mass.

    The last is 0 unless `mass`.
    """
    none = np.empty(0, np.int64), np.empty(0)
    finite, maxima = bin_maxima(values)
    if not finite:
        return NOT_FINITE, *none, 0.0
    scale = exponent_scale(temperature if temperature > 0 else 1.0)
    row = new_row(values, maxima, np.finfo(values.dtype).min, scale, False)
    top = row[4]
    if top == -np.inf:
        return ALL_MASKED, *none, 0.0
    if temperature == 0:
        return OK, collect(values, maxima, top)[:1], np.ones(1), 0.0
    total = 0.0
    if mass or kind in (THRESHOLD, TOP_P):
        total = sum_terms(values, top, scale)
    kept = sparsify(row, total, kind, value)
    dropped = find_dropped(row, total, kept) if mass else 0.0
    return OK, kept, softmax_weights(values, kept, top, temperature), dropped


@leaf
def check_probs(values, finite):
    """Return a status."""
    if not finite:
        return NOT_FINITE
    least = 0.0
    for p in values:
        least = min(least, p)
    if least < 0:
        return NOT_FINITE if least == -np.inf else NEGATIVE
    return OK


@entry
def weigh_probs(values, kind, value):
    """Return a status, the tokens kept, their weights and the dropped mass."""
    none = np.empty(0, np.int64), np.empty(0)
    finite, maxima = bin_maxima(values)
    status = check_probs(values, finite)
    total = striped_sum(values) if status == OK else 1.0
    if not abs(total - 1) <= SUM_TOLERANCE:
        status = SUM
    if status != OK:
        return status, *none, 0.0
    row = new_row(values, maxima, LEAST_PROB, np.float32(1), True)
    kept = sparsify(row, total, kind, value)
    return OK, kept, values[kept], find_dropped(row, total, kept)


@entry
def quantize_logits(values, temperature, kind, value, mass, resolution, error):
    """Return a status, ids, counts and the dropped mass."""
    status, kept, weights, dropped = weigh_logits(
        values, temperature, kind, value, mass or resolution == VARIABLE
    )
    if status != OK:
        return status, *survivors(kept, kept), 0.0
    return status, *fit_plainly(kept, weights, dropped, resolution, error), dropped


@entry
def quantize_logits_by_price(values, temperature, kind, value, resolution, bits_per_tv):
    """Return a status, ids, counts and the dropped mass."""
    status, kept, weights, dropped = weigh_logits(
        values, temperature, kind, value, True
    )
    if status != OK:
        return status, *survivors(kept, kept), 0.0
    found = fit_by_price(kept, weights, dropped, values.size, resolution, bits_per_tv)
    return status, *found, dropped
