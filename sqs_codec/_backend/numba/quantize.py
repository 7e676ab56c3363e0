"""A row of logits or probabilities to counts, as in ``csrc/quantize/quantize.c``."""

import numpy as np

from sqs_codec._backend.numba.jit import entry, jit, leaf, part
from sqs_codec._backend.numba.lattice import lattice
from sqs_codec._backend.numba.rows import new_row, scan, select_from, sum_exp2
from sqs_codec._backend.numba.softmax import exp2_f64, striped_sum
from sqs_codec._backend.numba.sparsify import dropped_mass, sparsify
from sqs_codec._base.errors import Status
from sqs_codec._base.exp2 import LOG2_E
from sqs_codec._base.format import SUM_TOLERANCE

MAX_F32 = np.finfo(np.float32).max
LEAST_PROB = np.nextafter(0.0, 1.0)  # the smallest unmasked probability


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
def weigh_logits(values, temperature, most, least, mass):
    """Return a status, the kept tokens, their weights and, if `mass`, dropped mass."""
    none = np.empty(0, np.int64), np.empty(0)
    finite, maxima = scan(values)
    if not finite:
        return Status.NOT_FINITE, *none, 0.0
    scale = exponent_scale(temperature if temperature > 0 else 1.0)
    row = new_row(values, maxima, np.finfo(values.dtype).min, scale, False)
    top = row[4]
    if top == -np.inf:
        return Status.ALL_MASKED, *none, 0.0
    if temperature == 0:
        return Status.OK, select_from(values, maxima, top)[:1], np.ones(1), 0.0
    total = 0.0
    if mass or least > 0:
        total = sum_exp2(values, top, scale)
    kept = sparsify(row, total, most, least)
    dropped = dropped_mass(row, total, kept) if mass else 0.0
    return Status.OK, kept, softmax_weights(values, kept, top, temperature), dropped


@jit
def survivors(ids, counts):
    """Return the ids with nonzero counts, and these counts, as uint32."""
    n = 0
    for count in counts:
        n += count > 0
    found = np.empty((2, n), np.uint32)
    at = 0
    for i in range(counts.size):
        if counts[i] > 0:
            found[0, at] = ids[i]
            found[1, at] = counts[i]
            at += 1
    return found[0], found[1]


@leaf
def check_probs(values, finite):
    if not finite:
        return Status.NOT_FINITE
    least = 0.0
    for p in values:
        least = min(least, p)
    if least < 0:
        return Status.NOT_FINITE if least == -np.inf else Status.NEGATIVE
    return Status.OK


@entry
def quantize_logits(values, temperature, most, least, mass, resolution):
    """Return a status, ids, counts and the dropped mass (0 unless `mass`)."""
    status, kept, weights, dropped = weigh_logits(
        values, temperature, most, least, mass
    )
    if status != Status.OK:
        return status, *survivors(kept, kept), 0.0
    return status, *survivors(kept, lattice(weights, resolution)), dropped


@entry
def quantize_probs(values, most, least, resolution):
    finite, maxima = scan(values)
    status = check_probs(values, finite)
    total = striped_sum(values) if status == Status.OK else 1.0
    if not abs(total - 1) <= SUM_TOLERANCE:
        status = Status.SUM
    if status != Status.OK:
        none = np.empty(0, np.int64)
        return status, *survivors(none, none), 0.0
    row = new_row(values, maxima, LEAST_PROB, np.float32(1), True)
    kept = sparsify(row, total, most, least)
    counts = lattice(values[kept], resolution)
    return Status.OK, *survivors(kept, counts), dropped_mass(row, total, kept)
