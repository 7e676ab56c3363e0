"""Coding counts and ids with the model or uniformly, as in ``csrc/entropy/modes.c``."""

import numpy as np

from sqs_codec._backend.numba import coder as coding
from sqs_codec._backend.numba.counts import (
    code_arrangement,
    code_partition,
    descending,
    make_groups,
)
from sqs_codec._backend.numba.fixed import log2, log2_small
from sqs_codec._backend.numba.ids import make_ids
from sqs_codec._backend.numba.jit import jit, leaf
from sqs_codec._backend.numba.memory import LAST, no_memory
from sqs_codec._backend.numba.model import UNIFORM_CHANCE
from sqs_codec._backend.numba.prior import choose_class, class_cost, code_class
from sqs_codec._backend.numba.sets import code_set, code_uniform_set, cost_of_members
from sqs_codec._base.errors import Status

# int64, for the reason in coder.py.
UNIFORM = np.int64(UNIFORM_CHANCE)
UNIFORM_COST = int(coding.BIT_COSTS[UNIFORM_CHANCE])
MODEL_COST = int(coding.BIT_COSTS[256 - UNIFORM_CHANCE])


def stirling(n, log):
    """Return log2(n!), Stirling's series with log2(e), log2(2 pi) / 2, log2(e) / 12."""
    return ((2 * n + 1) * log >> 1) - n * 6196328019 + 5694044581 + 516360668 // n


# Enough for most supports and resolutions.
LOG2_FACTORIALS = np.array(
    [0, 0] + [stirling(n, log2_small(n)) for n in range(2, 257)], np.int64
)

compiled_stirling = leaf(stirling)


@leaf
def log2_factorial(n):
    if n < LOG2_FACTORIALS.size:
        return LOG2_FACTORIALS[n]
    return compiled_stirling(n, log2(n))


@jit
def log2_binomial(n, k):
    return log2_factorial(n) - log2_factorial(k) - log2_factorial(n - k)


# A codec is a tuple (vocab_size, resolution, prior).


@jit
def counts_costs(codec, parts):
    """Return the costs of counts with the model and uniformly."""
    vocab_size, resolution, _ = codec
    coder = coding.new_coder(coding.METER)
    code_partition(coder, np.empty(0, np.uint8), vocab_size, resolution, parts)
    k = parts.size
    model = MODEL_COST + coder[coding.COST] + log2_factorial(k)
    for size in make_groups(parts)[1]:
        model -= log2_factorial(size)
    uniform = log2(min(vocab_size, resolution)) + log2_binomial(resolution - 1, k - 1)
    return model, UNIFORM_COST + uniform


@jit
def ids_costs(vocab_size, model, ids):
    """Return the costs of ids, by model and uniform, and if the first is rough."""
    cost, rough = cost_of_members(model, vocab_size, ids)
    uniform = log2_binomial(vocab_size, ids.size)
    return MODEL_COST + cost, UNIFORM_COST + uniform, rough


@jit
def distribution_cost(codec, ids, counts):
    """Return a distribution's cost, and whether it is that of both models."""
    vocab_size, _, prior = codec
    ids = ids.astype(np.int64)
    c = choose_class(prior, coding.ZERO, ids)
    model = make_ids(vocab_size, prior, c, no_memory())
    a, uniform_a = counts_costs(codec, descending(counts))
    b, uniform_b, rough = ids_costs(vocab_size, model, ids)
    b += class_cost(prior, coding.ZERO, c)
    modeled = a <= uniform_a and b <= uniform_b and not rough
    return min(a, uniform_a) + min(b, uniform_b), modeled


@jit
def code_composition(coder, packet, codec, counts):
    vocab_size, resolution, _ = codec
    k = (
        coding.code_uniform(coder, packet, min(vocab_size, resolution), counts.size - 1)
        + 1
    )
    if not coding.admit(coder, k):
        return np.empty(0, np.int64)
    places = np.empty(k - 1, np.int64)
    if coder[coding.MODE] == coding.WRITE:
        before = coding.ZERO
        for i in range(k - 1):
            before += counts[i]
            places[i] = before - 1
    code_uniform_set(coder, packet, resolution - 1, places)
    if coder[coding.MODE] == coding.READ:
        counts = np.empty(k, np.int64)
        start = 0
        for i in range(k - 1):
            counts[i] = places[i] + 1 - start
            start = places[i] + 1
        counts[k - 1] = resolution - start
    return counts


@jit
def code_counts(coder, packet, codec, counts, parts, uniform):
    """Code the counts, in the order of ids, and return them."""
    # When writing, `parts` holds the counts in descending order; when reading, it is
    # scratch memory.
    if coding.code_bit(coder, packet, UNIFORM, uniform):
        return code_composition(coder, packet, codec, counts)
    vocab_size, resolution, _ = codec
    k = code_partition(coder, packet, vocab_size, resolution, parts)
    if coder[coding.STATUS] != Status.OK:
        return np.empty(0, np.int64)
    if coder[coding.MODE] == coding.READ:
        counts = np.empty(k, np.int64)
    code_arrangement(coder, packet, parts[:k], counts)
    return counts


@jit
def code_ids(coder, packet, codec, memory, ids):
    vocab_size, _, prior = codec
    writing = coder[coding.MODE] == coding.WRITE
    uniform = False
    c = coding.ZERO
    if writing:
        c = choose_class(prior, memory[LAST], ids)
    else:
        uniform = coding.code_bit(coder, packet, UNIFORM, uniform)
        if not uniform:
            c = code_class(coder, packet, prior, memory, c)
    model = make_ids(vocab_size, prior, c, memory)
    if writing:
        by_model, uniformly, _ = ids_costs(vocab_size, model, ids)
        uniform = uniformly < by_model + class_cost(prior, memory[LAST], c)
        coding.code_bit(coder, packet, UNIFORM, uniform)
        if not uniform:
            code_class(coder, packet, prior, memory, c)
    if uniform:
        code_uniform_set(coder, packet, vocab_size, ids)
    elif coder[coding.STATUS] == Status.OK:
        code_set(coder, packet, model, vocab_size, ids)


@leaf
def code_position(coder, packet, counts, position):
    last = counts.size - 1
    return coding.code_weighted(coder, packet, counts, counts.sum(), last, position)
