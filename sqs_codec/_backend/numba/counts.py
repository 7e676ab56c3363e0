"""Counts as a partition and its arrangement, as in ``csrc/entropy/counts.c``."""

import numpy as np

from sqs_codec._backend.numba import coder as coding
from sqs_codec._backend.numba import model
from sqs_codec._backend.numba.fixed import floor_log2
from sqs_codec._backend.numba.jit import jit, leaf
from sqs_codec._base.errors import Status

CHANCES = np.array(model.SPLIT_CHANCES, np.int64)


@leaf
def code_count(coder, packet, low, high, left, count):
    if low == high:
        return low
    size = floor_log2(high)
    ratio = floor_log2(left) - size
    ratio -= high << ratio > left  # now floor_log2(left // high)
    chances = CHANCES[
        (min(size, model.SIZE_CLASSES) - 1) * model.RATIO_CLASSES
        + min(ratio, model.RATIO_CLASSES - 1)
    ]
    node = 1
    depth = 0
    while low < high:
        middle = (low + high) // 2
        chance = coding.EVEN
        if depth < model.SPLIT_FULL_DEPTH:
            chance = chances[node - 1]
        elif depth < model.SPLIT_TOP_DEPTH and node == (2 << depth) - 1:
            chance = chances[
                (1 << model.SPLIT_FULL_DEPTH) - 1 + depth - model.SPLIT_FULL_DEPTH
            ]
        bit = coding.code_bit(coder, packet, chance, count > middle)
        if bit:
            low = middle + 1
        else:
            high = middle
        node = 2 * node + bit
        depth += 1
    return low


@leaf
def code_partition(coder, packet, vocab_size, resolution, parts):
    # When reading, `parts` has room for as many as the codec allows.
    most = min(coder[coding.ALLOWED], coder[coding.ROOM])
    n = 0
    left = resolution
    last = resolution
    while left > 0 and last > 1 and n < most and coder[coding.STATUS] == Status.OK:
        low = (left - 1) // (vocab_size - n) + 1
        last = code_count(coder, packet, low, min(last, left), left, parts[n])
        parts[n] = last
        left -= last
        n += 1
    k = n + left  # if the last part is 1, so are the rest; otherwise k is too large
    if coding.admit(coder, k):
        for i in range(n, k):
            parts[i] = 1
    return k


@jit
def make_groups(parts):
    counts = np.empty(parts.size, np.int64)
    sizes = np.empty(parts.size, np.int64)
    n = 0
    for part in parts[::-1]:
        if n == 0 or counts[n - 1] != part:
            counts[n] = part
            sizes[n] = 0
            n += 1
        sizes[n - 1] += 1
    return counts[:n], sizes[:n]


@leaf
def code_group(coder, packet, groups, last, total, count):
    """Code the group of a token; the groups up to `last` have `total` tokens."""
    counts, sizes = groups
    g = coding.ZERO
    while g < last and counts[g] != count:
        g += 1
    return coding.code_weighted(coder, packet, sizes, total, last, g)


@jit
def code_arrangement(coder, packet, parts, counts):
    groups = make_groups(parts)
    sizes = groups[1]
    alive = sizes.size  # groups with tokens left
    last = alive - 1
    for i in range(parts.size):
        g = last
        if alive > 1:
            g = code_group(coder, packet, groups, last, parts.size - i, counts[i])
        if coder[coding.STATUS] != Status.OK:
            return
        counts[i] = groups[0][g]
        sizes[g] -= 1
        if sizes[g] == 0:
            alive -= 1
            while alive and sizes[last] == 0:
                last -= 1


@leaf
def sort_descending(values):
    """Shellsort: fast for few values and for many."""
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
