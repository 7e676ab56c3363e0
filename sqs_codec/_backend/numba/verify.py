"""Verification of a round's tokens and sampling of the next, as in ``csrc/verify.c``.

A target's rows are summed in blocks. A token is found by adding up the sums of blocks,
then the values of one block.
"""

import numpy as np

from sqs_codec._backend.numba import softmax
from sqs_codec._backend.numba.jit import entry, leaf
from sqs_codec._backend.numba.rows import count_reaching
from sqs_codec._base.errors import Status
from sqs_codec._base.format import SUM_TOLERANCE

BLOCK = 256


@leaf
def block_sum(values, lanes):
    """Return the sum of values, added in the given lanes."""
    lanes[:] = 0
    softmax.add_striped(values, lanes)
    return softmax.fold_lanes(lanes)


@leaf
def all_finite(values):
    finite = True
    for value in values:
        finite &= np.isfinite(value)
    return finite


@entry
def check_row(values, sums):
    """Return a row's status and total; set the sums of its blocks."""
    lanes = np.zeros(softmax.LANES)
    negative = 0
    for b in range(sums.size):
        block = values[b * BLOCK : (b + 1) * BLOCK]
        sums[b] = block_sum(block, lanes)
        # A NaN counts as negative, but NOT_FINITE is checked first.
        negative += block.size - count_reaching(block, softmax.ZERO_F32)
    total = softmax.striped_sum(sums)
    if not np.isfinite(total) and not all_finite(values):
        return Status.NOT_FINITE, total
    if negative > 0:
        return Status.NEGATIVE, total
    return Status.OK if abs(total - 1) <= SUM_TOLERANCE else Status.SUM, total


@leaf
def accepts(draw, count, resolution, p, total):
    return draw * count * total < p * resolution


@entry
def count_accepted(totals, probs, counts, survivors, positions, draws):
    start = 0
    for i in range(survivors.size):
        end = start + np.int64(survivors[i])
        resolution = 0
        for j in range(start, end):
            resolution += counts[j]
        count = counts[start + np.int64(positions[i])]
        if not accepts(draws[i], count, resolution, probs[i], totals[i]):
            return i
        start = end
    return survivors.size


@leaf
def residual(p, q):
    return max(p - q, 0.0)


@leaf
def fill_residuals(values, ids, probs, at, start, block):
    """Set the residuals of a row's block that begins at `start`; return its end.

    `at` is the index in the support of the first id in the block or after it.
    """
    end = min(start + BLOCK, values.size)
    for i in range(start, end):
        block[i - start] = values[i]
    while at < ids.size and ids[at] < end:
        block[ids[at] - start] = residual(np.float64(values[ids[at]]), probs[at])
        at += 1
    return end


@leaf
def sum_residuals(values, ids, probs, block, lanes, sums):
    last = -1
    for at in range(ids.size):
        b = ids[at] // BLOCK
        if b != last:
            start = b * BLOCK
            end = fill_residuals(values, ids, probs, at, start, block)
            sums[b] = block_sum(block[: end - start], lanes)
            last = b


@leaf
def sum_in_order(sums):
    """Return the sum of sums, added in the order of `find_drawn`."""
    total = 0.0
    for x in sums:
        total += x
    return total


@leaf
def find_drawn(weights, n, before, goal):
    """Return the place where a running sum exceeds the goal, and the sum before it."""
    # If rounding keeps the sum below the goal, return the last place with a weight.
    found = 0
    below = before
    for i in range(n):
        if weights[i] > 0:
            found = i
            below = before
        before += weights[i]
        if before > goal:
            break
    return found, below


@entry
def draw_token(values, sums, total, ids, counts, draw):
    block = np.empty(BLOCK)
    probs = counts / counts.sum() * total
    plain = sums.copy()
    sum_residuals(values, ids, probs, block, np.empty(softmax.LANES), sums)
    whole = sum_in_order(sums)
    if whole == 0:  # p exceeds q by less than the rounding error: sample from p
        ids = ids[:0]
        sums = plain
        whole = sum_in_order(sums)
    goal = draw * whole
    b, below = find_drawn(sums, sums.size, 0.0, goal)
    start = b * BLOCK
    at = 0
    while at < ids.size and ids[at] < start:
        at += 1
    end = fill_residuals(values, ids, probs, at, start, block)
    return start + find_drawn(block, end - start, below, goal)[0]
