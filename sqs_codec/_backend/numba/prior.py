"""The classes of a prior, as in ``csrc/entropy/prior.c``.

A prior is an array of int64, as are memories and coders. It begins with how many
classes there are, none if there is no prior, and where its parts begin:

- the chances of the classes, a row for the start and one for each last class,
- what each class costs instead, laid out alike,
- what ids of each kind cost in each class, a row for each kind,
- the kinds of the ids, eight to a number, the first in its lowest bits,
- a row for each class: what the memory's weights of each kind are multiplied with, in
  16ths; what an id of each kind weighs; and what all ids before each block weigh.
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

# What is where in the row of a class.
RATIOS, WEIGHTS, SUMS = 0, N_KINDS, 2 * N_KINDS

BLOCK_BITS = 4
BLOCK = 1 << BLOCK_BITS
"""So many ids are looked through one by one."""

COST_BITS = 16
"""What classes are compared by counts in 2^-16 of a bit: 2^20 costs fit 64 bits."""

MOST_RATIO, LEAST_RATIO = 64, 4


@lru_cache(maxsize=4)
def pack_prior(data: bytes | None) -> NDArray[np.int64]:
    """Return the array of a prior's file, which codecs share."""
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
    """Return what ids cost by class [C] and kind [256]."""
    costs: NDArray[np.int64] = _logs(whole)[:, None] - _logs(weights)
    return np.maximum(costs, 0) >> COST_BITS


def _rows(
    kinds: NDArray[np.uint8], weights: NDArray[np.int64], whole: NDArray[np.int64]
) -> NDArray[np.int64]:
    ratios = np.full(weights.shape, 16)  # as they are, if there is but one class
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
    """Return where the row of a class is; 0 without a prior."""
    return prior[ROWS] + c * prior[ROW_SIZE] if prior[CLASSES] else ZERO


@leaf
def kind_of(prior, id_):
    """Return the kind of an id."""
    return prior[prior[KINDS] + (id_ >> 3)] >> 8 * (id_ & 7) & 255


@leaf
def ratio_of(prior, row, id_):
    """Return what an id's weight in the memory is multiplied with, in 16ths."""
    return prior[row + RATIOS + kind_of(prior, id_)]


@leaf
def whole_weight(prior, row):
    """Return what all ids weigh in a class."""
    return prior[row + prior[ROW_SIZE] - 1]


@leaf
def block_below(prior, row, id_):
    """Return what all ids before an id's block weigh in a class."""
    return prior[row + SUMS + (id_ >> BLOCK_BITS)]


@leaf
def prior_weight_below(prior, row, id_):
    """Return what all ids below one weigh in a class."""
    below = block_below(prior, row, id_)
    for x in range(id_ & -BLOCK, id_):
        below += prior[row + WEIGHTS + kind_of(prior, x)]
    return below


@leaf
def prior_id(prior, row, below):
    low = ZERO  # this block or one that is before `high`
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
    """Return the class in which ids cost the least after `last`, without a memory."""
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
    """Return what it costs to say which class."""
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
