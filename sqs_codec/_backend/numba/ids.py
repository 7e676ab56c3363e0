"""What ids weigh, as in ``csrc/entropy/ids.c``.

Ids of a low rank weigh more, by buckets of half an octave, and so do those of
recent supports, see `memory`.
"""

from __future__ import annotations

import numpy as np

from sqs_codec._backend.numba.fixed import EXPONENT_BIAS, MANTISSA_BITS, float_bits
from sqs_codec._backend.numba.jit import jit, leaf
from sqs_codec._backend.numba.memory import HEAD, SEEN, SIZE
from sqs_codec._backend.numba.model import (
    FIRST_BUCKET_BITS,
    ID_WEIGHTS,
    MEMORY_DELAY,
    MEMORY_TOKENS,
)

# Where the buckets begin: at 0, at 2 and 3 times each power of two from 2^4 on, and
# one more at the end, 2^20.
BUCKET_STARTS = np.array(
    [0]
    + [
        halves << FIRST_BUCKET_BITS - 1 + octave
        for octave in range(len(ID_WEIGHTS) // 2)
        for halves in (2, 3)
    ]
    + [2 << FIRST_BUCKET_BITS - 1 + len(ID_WEIGHTS) // 2],
    np.int64,
)
BUCKET_WEIGHTS = np.array([*ID_WEIGHTS, 1], np.int64)
WEIGHTS_BELOW = np.cumsum(np.append(0, np.diff(BUCKET_STARTS) * ID_WEIGHTS))
"""What all ids before a bucket weigh."""


@leaf
def count_below(ascending, x):
    """Return how many values are below x."""
    low = 0
    high = ascending.size
    while low < high:
        middle = (low + high) // 2
        if ascending[middle] < x:
            low = middle + 1
        else:
            high = middle
    return low


@jit
def bucket_of(id_):
    """Return the number of an id's bucket."""
    # A float's exponent and the highest bit of its mantissa count half octaves.
    halves = float_bits(max(id_, 1)) >> MANTISSA_BITS - 1
    return max(halves - 2 * (EXPONENT_BIAS + FIRST_BUCKET_BITS) + 1, 0)


@jit
def static_weight_below(id_):
    """Return what all ids below one weigh by their buckets."""
    bucket = bucket_of(id_)
    return WEIGHTS_BELOW[bucket] + BUCKET_WEIGHTS[bucket] * (
        id_ - BUCKET_STARTS[bucket]
    )


@jit
def static_id(below):
    """Return the last id with at most that weight below it."""
    bucket = max(count_below(WEIGHTS_BELOW, below + 1) - 1, 0)
    past = (below - WEIGHTS_BELOW[bucket]) // BUCKET_WEIGHTS[bucket]
    return BUCKET_STARTS[bucket] + past


# A model of a set is a tuple: the ids of the memory, ascending; what those before
# each weigh on top of their buckets; what all ids weigh; and whether the set is a
# uniform one, which sets.py makes.


@jit
def make_ids(vocab_size, memory):
    """Return the model of the ids of a vocabulary."""
    size = memory[SIZE]
    ids = memory[HEAD : HEAD + size]
    weights = memory[HEAD + MEMORY_TOKENS : HEAD + MEMORY_TOKENS + size]
    whole = static_weight_below(vocab_size)
    recent = np.zeros(size + 1, np.int64)
    if size:
        seen = memory[SEEN]
        unit = whole * seen // (seen + MEMORY_DELAY) // weights.sum()
        for i in range(size):
            recent[i + 1] = recent[i] + unit * weights[i]
    return ids, recent, whole + recent[size], np.bool_(False)


@jit
def ids_rest(model, id_):
    """Return what an id and all above it weigh."""
    ids, recent, whole, _ = model
    return whole - static_weight_below(id_) - recent[count_below(ids, id_)]


@jit
def ids_at(model, rest):
    """Return the last id of about that rest or more."""
    ids, recent, whole, _ = model
    low = 0
    high = ids.size
    while low < high:
        middle = (low + high) // 2
        if whole - static_weight_below(ids[middle]) - recent[middle] >= rest:
            low = middle + 1
        else:
            high = middle
    id_ = static_id(whole - recent[low] - rest)
    return max(id_, ids[low - 1]) if low else id_
