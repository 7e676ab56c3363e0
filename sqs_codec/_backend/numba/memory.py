"""The tokens of recent supports, as in ``csrc/entropy/memory.c``.

A memory is an array as ``sqs_memory`` has it, of uint32 for callers and of int64
here: how many tokens it has, how many supports it has seen, one more than the last
class that a prior's ids were in or 0, and then the tokens' ids, ascending, and their
weights.
"""

from __future__ import annotations

import numpy as np

from sqs_codec._backend.numba.jit import jit, leaf
from sqs_codec._backend.numba.model import (
    MEMORY_FADING,
    MEMORY_LEAST_WEIGHT,
    MEMORY_MOST_SEEN,
    MEMORY_NEW_WEIGHT,
    MEMORY_SUPPORT,
    MEMORY_TOKENS,
)
from sqs_codec._base.format import MEMORY_HEAD

SIZE, SEEN, LAST = range(3)
HEAD = MEMORY_HEAD

# At this weight fading takes as much as a support adds.
MOST_WEIGHT = MEMORY_NEW_WEIGHT << MEMORY_FADING


@jit
def no_memory():
    """Return an empty memory that has no room to learn."""
    return np.zeros(HEAD, np.int64)


@leaf
def is_memory(memory, vocab_size, classes):
    """Return whether all words are within the limits that learning keeps them to.

    With a single class, or none, there is no last one.
    """
    size = np.int64(memory[SIZE])
    if size > MEMORY_TOKENS or memory[SEEN] > MEMORY_MOST_SEEN:
        return False
    if memory[LAST] > (classes if classes > 1 else 0):
        return False
    before = -1
    for i in range(HEAD, HEAD + size):
        id_ = np.int64(memory[i])
        weight = np.int64(memory[i + MEMORY_TOKENS])
        if not before < id_ < vocab_size:
            return False
        if not MEMORY_LEAST_WEIGHT <= weight <= MOST_WEIGHT:
            return False
        before = id_
    return True


@leaf
def merge(memory, ids, new_ids, new_weights):
    """Let a memory fade and add a support; return how many tokens that makes."""
    size = memory[SIZE]
    n = 0
    i = 0
    for j in range(ids.size + 1):
        end = ids[j] if j < ids.size else 1 << 32
        weight = MEMORY_NEW_WEIGHT
        while i < size and memory[HEAD + i] <= end:
            faded = memory[HEAD + MEMORY_TOKENS + i]
            faded -= faded >> MEMORY_FADING
            if memory[HEAD + i] == end:
                weight += faded
            elif faded >= MEMORY_LEAST_WEIGHT:
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
    """Let a memory fade and add a support to it, unless that is large."""
    if ids.size > MEMORY_SUPPORT:
        return
    memory[SEEN] = min(memory[SEEN] + 1, MEMORY_MOST_SEEN)
    new_ids = np.empty(MEMORY_TOKENS + MEMORY_SUPPORT, np.int64)
    new_weights = np.empty(MEMORY_TOKENS + MEMORY_SUPPORT, np.int64)
    n = merge(memory, ids, new_ids, new_weights)
    least = MEMORY_LEAST_WEIGHT
    while n > MEMORY_TOKENS:
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
        memory[HEAD + MEMORY_TOKENS + i] = new_weights[i]
