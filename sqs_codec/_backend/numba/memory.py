"""The tokens of recent supports, as in ``csrc/entropy/memory.c``.

A memory is an array of int64. It begins with its number of tokens, the number of
supports seen, and the last class of the prior plus one (0 at the start). The tokens'
ids follow in ascending order, then their weights.
"""

import numpy as np

from sqs_codec._backend.numba import model
from sqs_codec._backend.numba.jit import jit, leaf

SIZE, SEEN, LAST, HEAD = range(4)


@jit
def no_memory():
    """Return an empty memory that can't learn."""
    return np.zeros(HEAD, np.int64)


@jit
def new_memory():
    return np.zeros(HEAD + 2 * model.MEMORY_TOKENS, np.int64)


@leaf
def merge(memory, ids, new_ids, new_weights):
    """Fade the weights and add a support; return the number of tokens."""
    size = memory[SIZE]
    n = 0
    i = 0
    for j in range(ids.size + 1):
        end = ids[j] if j < ids.size else 1 << 32
        weight = model.MEMORY_NEW_WEIGHT
        while i < size and memory[HEAD + i] <= end:
            faded = memory[HEAD + model.MEMORY_TOKENS + i]
            faded -= faded >> model.MEMORY_FADING
            if memory[HEAD + i] == end:
                weight += faded
            elif faded >= model.MEMORY_LEAST_WEIGHT:
                new_ids[n] = memory[HEAD + i]
                new_weights[n] = faded
                n += 1
            i += 1
        if j < ids.size:
            new_ids[n] = end
            new_weights[n] = weight
            n += 1
    return n


@jit
def memory_learn(memory, ids):
    if ids.size > model.MEMORY_SUPPORT:
        return
    memory[SEEN] = min(memory[SEEN] + 1, model.MEMORY_MOST_SEEN)
    new_ids = np.empty(model.MEMORY_TOKENS + model.MEMORY_SUPPORT, np.int64)
    new_weights = np.empty(model.MEMORY_TOKENS + model.MEMORY_SUPPORT, np.int64)
    n = merge(memory, ids, new_ids, new_weights)
    least = model.MEMORY_LEAST_WEIGHT
    while n > model.MEMORY_TOKENS:
        least *= 2
        kept = 0
        for i in range(n):
            if new_weights[i] >= least:
                new_ids[kept] = new_ids[i]
                new_weights[kept] = new_weights[i]
                kept += 1
        n = kept
    memory[SIZE] = n
    for i in range(n):
        memory[HEAD + i] = new_ids[i]
        memory[HEAD + model.MEMORY_TOKENS + i] = new_weights[i]
