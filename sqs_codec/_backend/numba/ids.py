"""The weights of ids, as in ``csrc/entropy/ids.c``.

Without a prior, low ids weigh more, in buckets of half an octave; a prior has weights
for each class (see `prior`). Ids of recent supports get additional weight (see
`memory`).
"""

import numpy as np

from sqs_codec._backend.numba import model as models
from sqs_codec._backend.numba import prior as priors
from sqs_codec._backend.numba.coder import ZERO
from sqs_codec._backend.numba.fixed import EXPONENT_BIAS, MANTISSA_BITS, float_bits
from sqs_codec._backend.numba.jit import jit, leaf
from sqs_codec._backend.numba.memory import HEAD, SEEN, SIZE

# The buckets begin at 0, at 2 and 3 times each power of two from 2^4, and the last one
# at 2^20.
BUCKET_STARTS = np.array(
    [0]
    + [
        halves << models.FIRST_BUCKET_BITS - 1 + octave
        for octave in range(len(models.ID_WEIGHTS) // 2)
        for halves in (2, 3)
    ]
    + [2 << models.FIRST_BUCKET_BITS - 1 + len(models.ID_WEIGHTS) // 2],
    np.int64,
)
BUCKET_WEIGHTS = np.array([*models.ID_WEIGHTS, 1], np.int64)
WEIGHTS_BELOW = np.cumsum(np.append(0, np.diff(BUCKET_STARTS) * models.ID_WEIGHTS))
"""The sum of the weights of all ids before each bucket."""


@leaf
def count_below(ascending, n, x):
    low = 0
    high = n
    while low < high:
        middle = low + high >> 1
        if ascending[middle] < x:
            low = middle + 1
        else:
            high = middle
    return low


@jit
def bucket_of(id_):
    # A float's exponent and highest mantissa bit count half octaves.
    halves = float_bits(max(id_, 1)) >> MANTISSA_BITS - 1
    return max(halves - 2 * (EXPONENT_BIAS + models.FIRST_BUCKET_BITS) + 1, 0)


@jit
def static_weight_below(id_):
    bucket = bucket_of(id_)
    return WEIGHTS_BELOW[bucket] + BUCKET_WEIGHTS[bucket] * (
        id_ - BUCKET_STARTS[bucket]
    )


@jit
def static_id(below):
    bucket = max(count_below(WEIGHTS_BELOW, WEIGHTS_BELOW.size, below + 1) - 1, 0)
    past = (below - WEIGHTS_BELOW[bucket]) // BUCKET_WEIGHTS[bucket]
    return BUCKET_STARTS[bucket] + past


# A model of a set is a tuple:
# - an array with the memory's ids, ascending, then the sums of the weights that the
#   memory adds to the ids before each, and to all;
# - the weight of all ids;
# - a prior, and the index of a class's row in it: 0 without a prior, UNIFORM for the
#   uniform sets of sets.py.
UNIFORM = np.int64(-1)


@jit
def make_ids(vocab_size, prior, c, memory):
    size = memory[SIZE]
    row = priors.row_of(prior, c)
    whole = priors.whole_weight(prior, row) if row else static_weight_below(vocab_size)
    recent = np.empty(2 * size + 1, np.int64)
    total = ZERO
    for i in range(size):
        recent[i] = memory[HEAD + i]
        recent[size + i] = total
        weight = memory[HEAD + models.MEMORY_TOKENS + i]
        if row:
            weight = weight * priors.ratio_of(prior, row, recent[i]) >> 4
        total += weight
    recent[2 * size] = total
    if size:
        seen = memory[SEEN]
        unit = whole * seen // (seen + models.MEMORY_DELAY) // total
        for i in range(size, 2 * size + 1):
            recent[i] *= unit
    return recent, whole + recent[2 * size], prior, row


@jit
def weight_below(prior, row, id_):
    return (
        priors.prior_weight_below(prior, row, id_) if row else static_weight_below(id_)
    )


@jit
def ids_rest(model, id_):
    recent, whole, prior, row = model
    size = recent.size >> 1
    rest = whole - recent[size + count_below(recent, size, id_)]
    return rest - weight_below(prior, row, id_)


@jit
def ids_at(model, rest):
    recent, whole, prior, row = model
    size = recent.size >> 1
    most = whole - rest
    low = 0
    high = size
    while low < high:
        middle = low + high >> 1
        id_ = recent[middle]
        # With a prior, the weight before the id's block is close enough.
        below = priors.block_below(prior, row, id_) if row else static_weight_below(id_)
        if below + recent[size + middle] <= most:
            low = middle + 1
        else:
            high = middle
    most -= recent[size + low]
    id_ = priors.prior_id(prior, row, most) if row else static_id(most)
    return max(id_, recent[low - 1]) if low else id_
