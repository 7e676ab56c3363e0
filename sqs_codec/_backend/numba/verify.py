"""What the cloud does with a round, in Numba.

The functions do what ``csrc/verify.c`` does; the reasons are there.
"""

from __future__ import annotations

import numpy as np

from sqs_codec._backend.numba.ids import count_below
from sqs_codec._backend.numba.jit import entry, leaf
from sqs_codec._backend.numba.rows import (
    LANES,
    add_striped,
    fold_lanes,
    striped_sum,
)
from sqs_codec._errors import Status
from sqs_codec._format import SUM_TOLERANCE

OK = int(Status.OK)
NOT_FINITE = int(Status.NOT_FINITE)
NEGATIVE = int(Status.NEGATIVE)
SUM = int(Status.SUM)

BLOCK = 256


@leaf
def block_sum(values, lanes):
    lanes[:] = 0
    add_striped(values, lanes)
    return fold_lanes(lanes)


@leaf
def count_negative(values):
    n = np.int32(0)  # for as many lanes as floats have
    for i in range(values.size):
        n = np.int32(n + np.int32(values[i] < 0))
    return np.int64(n)


@leaf
def all_finite(values):
    finite = True
    for value in values:
        finite &= np.isfinite(value)
    return finite


@entry
def check_row(values, sums):
    """Set the sums of the blocks; return a status and the total."""
    lanes = np.zeros(LANES)
    negative = 0
    for i in range(sums.size):
        block = values[i * BLOCK : (i + 1) * BLOCK]
        sums[i] = block_sum(block, lanes)
        negative += count_negative(block)
    total = striped_sum(sums)
    if not np.isfinite(total) and not all_finite(values):
        return NOT_FINITE, total
    if negative > 0:
        return NEGATIVE, total
    return OK if abs(total - 1) <= SUM_TOLERANCE else SUM, total


@entry
def count_accepted(totals, probs, counts, survivors, positions, draws):
    start = 0
    for i in range(survivors.size):
        end = start + np.int64(survivors[i])
        resolution = 0
        for j in range(start, end):
            resolution += np.int64(counts[j])
        count = np.int64(counts[start + np.int64(positions[i])])
        if not draws[i] * count * totals[i] < probs[i] * resolution:
            return i
        start = end
    return survivors.size


# A residual is a tuple: the values of a row, their total, and a distribution's ids
# and probabilities, which are taken off.


@leaf
def fill_weights(residual, start, block):
    """Set the weights of the block that starts there; return where it ends."""
    values, total, ids, probs = residual
    end = min(start + BLOCK, values.size)
    for i in range(start, end):
        block[i - start] = values[i]
    j = count_below(ids, start)
    while j < ids.size and ids[j] < end:
        weight = np.float64(values[ids[j]]) - probs[j] * total
        block[ids[j] - start] = weight if weight > 0 else 0.0
        j += 1
    return end


@leaf
def correct_sums(residual, block, lanes, sums):
    """Make the sums of the blocks that hold a token of the support those of weights."""
    ids = residual[2]
    last = -1
    for id_ in ids:
        b = id_ // BLOCK
        if b != last:
            end = fill_weights(residual, b * BLOCK, block)
            sums[b] = block_sum(block[: end - b * BLOCK], lanes)
            last = b


@leaf
def sum_in_order(sums):
    total = 0.0
    for x in sums:
        total += x
    return total


@leaf
def find_place(weights, n, running, x):
    """Return the place where the running sum exceeds x, and the sum before it.

    The last place with a weight if it never does.
    """
    found = 0
    before = running
    for i in range(n):
        if weights[i] > 0:
            found = i
            before = running
        if running + weights[i] > x:
            break
        running += weights[i]
    return found, before


@entry
def draw(values, sums, total, ids, counts, u):
    """Return a token drawn from what is left of a row; `sums` are used up."""
    block = np.empty(BLOCK)
    residual = values, total, ids, counts / counts.sum()
    plain = sums.copy()
    correct_sums(residual, block, np.empty(LANES), sums)
    whole = sum_in_order(sums)
    if whole == 0:
        residual = values, total, ids[:0], residual[3]
        sums = plain
        whole = sum_in_order(sums)
    b, before = find_place(sums, sums.size, 0.0, u * whole)
    end = fill_weights(residual, b * BLOCK, block)
    place, _ = find_place(block, end - b * BLOCK, before, u * whole)
    return b * BLOCK + place
