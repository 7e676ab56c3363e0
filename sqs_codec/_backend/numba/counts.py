"""Counts as a partition and its arrangement, as in ``csrc/entropy/counts.c``."""

from __future__ import annotations

import numpy as np

from sqs_codec._backend.numba.coder import (
    ALLOWED,
    CODE,
    EVEN,
    MODE,
    OK,
    RANGE,
    READ,
    ROOM,
    STATUS,
    admit,
    code_bit,
    going,
    narrow_to_share,
)
from sqs_codec._backend.numba.fixed import floor_log2
from sqs_codec._backend.numba.jit import jit, leaf
from sqs_codec._backend.numba.model import (
    RATIO_CLASSES,
    SIZE_CLASSES,
    SPLIT_CHANCES,
    SPLIT_FULL_DEPTH,
    SPLIT_TOP_DEPTH,
)

CHANCES = np.array(SPLIT_CHANCES, np.int64)


@leaf
def code_count(coder, packet, low, high, left, count):
    if low == high:
        return low
    size = floor_log2(high)
    ratio = floor_log2(left) - size
    ratio -= high << ratio > left  # now it is floor_log2(left // high)
    chances = CHANCES[
        (min(size, SIZE_CLASSES) - 1) * RATIO_CLASSES + min(ratio, RATIO_CLASSES - 1)
    ]
    node = 1
    depth = 0
    while low < high:
        middle = (low + high) // 2
        chance = EVEN
        if depth < SPLIT_FULL_DEPTH:
            chance = chances[node - 1]
        elif depth < SPLIT_TOP_DEPTH and node == (2 << depth) - 1:
            chance = chances[(1 << SPLIT_FULL_DEPTH) - 1 + depth - SPLIT_FULL_DEPTH]
        bit = code_bit(coder, packet, chance, count > middle)
        if bit:
            low = middle + 1
        else:
            high = middle
        node = 2 * node + bit
        depth += 1
    return low


@leaf
def code_partition(coder, packet, vocab_size, resolution, parts):
    """Code counts in descending order and return how many they are."""
    most = min(coder[ALLOWED], coder[ROOM])
    n = 0
    left = resolution
    limit = resolution
    while left > 0 and limit > 1 and n < most and coder[STATUS] == OK:
        low = (left - 1) // (vocab_size - n) + 1
        limit = code_count(coder, packet, low, min(limit, left), left, parts[n])
        parts[n] = limit
        left -= limit
        n += 1
    k = n + left  # as all that is left is ones
    if admit(coder, k):
        for i in range(n, k):
            parts[i] = 1
    return k


@jit
def find_runs(parts):
    """Return the different counts of a partition, ascending, and how often each."""
    values = np.empty(parts.size, np.int64)
    sizes = np.empty(parts.size, np.int64)
    n = 0
    for part in parts[::-1]:
        if n == 0 or values[n - 1] != part:
            values[n] = part
            sizes[n] = 0
            n += 1
        sizes[n - 1] += 1
    return values[:n], sizes[:n]


@leaf
def code_run(coder, packet, values, sizes, last, total, count):
    """Code which of the runs up to the last one that isn't empty has a count."""
    if not going(coder, packet):
        return last
    unit = coder[RANGE] // total
    reading = coder[MODE] == READ
    target = coder[CODE] // unit if reading else 0
    before = 0
    g = 0
    while g < last and (before + sizes[g] <= target if reading else values[g] != count):
        before += sizes[g]
        g += 1
    narrow_to_share(coder, packet, unit, before, sizes[g], g == last)
    return g


@jit
def code_arrangement(coder, packet, parts, counts):
    values, sizes = find_runs(parts)
    alive = values.size
    last = alive - 1
    for i in range(parts.size):
        g = last
        if alive > 1:
            total = parts.size - i
            g = code_run(coder, packet, values, sizes, last, total, counts[i])
        if coder[STATUS] != OK:
            return
        counts[i] = values[g]
        sizes[g] -= 1
        if sizes[g] == 0:
            alive -= 1
            while alive and sizes[last] == 0:
                last -= 1


@leaf
def sort_descending(values):
    """Sort as Shell does: short, and quick on few values and on many."""
    gap = 1
    while 3 * gap < values.size:
        gap = 3 * gap + 1
    while gap:
        for i in range(gap, values.size):
            value = values[i]
            at = i
            while at >= gap and values[at - gap] < value:
                values[at] = values[at - gap]
                at -= gap
            values[at] = value
        gap //= 3


@jit
def descending(counts):
    parts = counts.astype(np.int64)
    sort_descending(parts)
    return parts
