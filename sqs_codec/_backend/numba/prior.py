"""The classes of a prior, as in ``csrc/entropy/prior.c``.

A prior is an array of int64, like memories and coders. It begins with the number of
classes (0 without a prior) and the indices of its parts:

- the chances of the classes, a row for the start and one for each last class,
- the costs of the classes, in the same layout,
- the costs of ids, a row for each kind with a column for each class,
- the kinds of the ids, eight per number, the first in the lowest bits,
- a row for each class: factors of the memory's weights for each kind, in 16ths; the
  weight of each kind; and the weight of all ids before each block.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sqs_codec._backend.numba.coder import ZERO, code_weighted
from sqs_codec._backend.numba.fixed import log2
from sqs_codec._backend.numba.jit import jit, leaf
from sqs_codec._backend.numba.memory import LAST
from sqs_codec._base.prior_file import CODE_WEIGHTS, Tables
from sqs_codec._base.prior_file import KINDS as N_KINDS

CLASSES, CHANCES, CLASS_COSTS, COSTS, KINDS, ROWS, ROW_SIZE = range(7)
HEAD = 7

# Indices in the row of a class.
RATIOS, WEIGHTS, SUMS = 0, N_KINDS, 2 * N_KINDS

BLOCK_BITS = 4
BLOCK = 1 << BLOCK_BITS
"""Ids that are searched one by one."""

COST_BITS = 16
"""Costs of classes are compared in units of 2^-16 bits: 2^20 of them fit 64 bits."""

MOST_RATIO, LEAST_RATIO = 64, 4


@lru_cache(maxsize=4)
def pack_prior(data: bytes | None) -> NDArray[np.int64]:
    """Return the array of a prior's file; codecs share it."""
    if data is None:
        return np.zeros(HEAD, np.int64)
    tables = Tables.view(data)
    weights, whole = CODE_WEIGHTS[tables.weights], tables.whole_weights()
    chances = tables.chances.astype(np.int64)
    kinds = np.zeros(-(-tables.kinds.size // BLOCK) * BLOCK, np.uint8)
    kinds[: tables.kinds.size] = tables.kinds
    parts = [
        chances,
        _logs(chances.sum(axis=1))[:, None] - _logs(chances),
        _costs(weights, whole).T,
        kinds.view("<i8"),
        _rows(tables.kinds, weights, whole),
    ]
    starts = np.cumsum([HEAD, *(part.size for part in parts)])[:-1]
    head = [len(weights), *starts, parts[-1].shape[1]]
    return np.concatenate([head, *map(np.ravel, parts)]).astype(np.int64)


def _logs(values: NDArray[np.int64]) -> NDArray[np.int64]:
    different, where = np.unique(values, return_inverse=True)
    logs = np.array([log2(int(x)) for x in different], np.int64)
    return logs[where].reshape(values.shape)


def _costs(weights: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the cost of an id for each class and kind, [C, 256]."""
    costs: NDArray[np.int64] = _logs(whole)[:, None] - _logs(weights)
    return np.maximum(costs, 0) >> COST_BITS


def _rows(
    kinds: NDArray[np.uint8], weights: NDArray[np.int64], whole: NDArray[np.int64]
) -> NDArray[np.int64]:
    ratios = np.full(weights.shape, 16)  # a factor of 1 if there is only one class
    if len(weights) > 1:
        expected = weights[0] * whole[:, None] // 16
        ratios = weights * whole[0] // np.maximum(expected, 1)
        ratios = np.clip(ratios, LEAST_RATIO, MOST_RATIO)
    starts = np.arange(0, kinds.size, BLOCK)
    sums = np.zeros((len(weights), starts.size + 1), np.int64)
    for c, of_kinds in enumerate(weights):
        np.cumsum(np.add.reduceat(of_kinds[kinds], starts), out=sums[c, 1:])
    return np.concatenate([ratios, weights, sums], axis=1)


@leaf
def row_of(prior, c):
    return prior[ROWS] + c * prior[ROW_SIZE] if prior[CLASSES] else ZERO


@leaf
def kind_of(prior, id_):
    return prior[prior[KINDS] + (id_ >> 3)] >> 8 * (id_ & 7) & 255


@leaf
def ratio_of(prior, row, id_):
    """Return the factor of an id's weight in the memory, in 16ths."""
    return prior[row + RATIOS + kind_of(prior, id_)]


@leaf
def whole_weight(prior, row):
    return prior[row + prior[ROW_SIZE] - 1]


@leaf
def block_below(prior, row, id_):
    """Return the weight of all ids before an id's block in a class."""
    return prior[row + SUMS + (id_ >> BLOCK_BITS)]


@leaf
def prior_weight_below(prior, row, id_):
    below = block_below(prior, row, id_)
    for x in range(id_ & -BLOCK, id_):
        below += prior[row + WEIGHTS + kind_of(prior, x)]
    return below


@leaf
def prior_id(prior, row, below):
    low = ZERO  # the block is in [low, high)
    high = prior[ROW_SIZE] - SUMS - 1
    while high - low > 1:
        middle = low + high >> 1
        if prior[row + SUMS + middle] <= below:
            low = middle
        else:
            high = middle
    past = below - prior[row + SUMS + low]
    id_ = BLOCK * low
    for x in range(id_, id_ + BLOCK - 1):
        past -= prior[row + WEIGHTS + kind_of(prior, x)]
        if past < 0:
            break
        id_ += 1
    return id_


@jit
def choose_class(prior, last, ids):
    """Return the class with the lowest cost of ids after `last`, without a memory."""
    classes = prior[CLASSES]
    if classes < 2:
        return ZERO
    costs = np.empty(classes, np.int64)
    at = prior[CLASS_COSTS] + last * classes
    for c in range(classes):
        costs[c] = prior[at + c] >> COST_BITS
    for id_ in ids:
        at = prior[COSTS] + kind_of(prior, id_) * classes
        for c in range(classes):
            costs[c] += prior[at + c]
    best = ZERO
    for c in range(classes):
        if costs[c] < costs[best]:
            best = c
    return best


@leaf
def class_cost(prior, last, c):
    classes = prior[CLASSES]
    return prior[prior[CLASS_COSTS] + last * classes + c] if classes > 1 else ZERO


@leaf
def code_class(coder, packet, prior, memory, c):
    classes = prior[CLASSES]
    if classes < 2:
        return ZERO
    at = prior[CHANCES] + memory[LAST] * classes
    chances = prior[at : at + classes]
    c = code_weighted(coder, packet, chances, chances.sum(), classes - 1, c)
    memory[LAST] = 1 + c
    return c
