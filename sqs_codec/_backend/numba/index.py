"""The exact rank of a support and of its counts, as in ``csrc/rank/index.c``.

Falling factorials [x]_i are computed from scratch for each element, while C updates
them; the numbers are the same.
"""

import math

import numpy as np

from sqs_codec._backend.numba import big as bigint
from sqs_codec._backend.numba.jit import jit

FACTOR_BITS = 20
MOST_ROUNDS = 16
CLOSE = 0.01


@jit
def apply_falling(a, x, i, apply):
    product = 1
    for j in range(i):
        if product >> (bigint.LIMB_BITS - FACTOR_BITS):
            apply(a, product)
            product = 1
        product *= x - j
    apply(a, product)


@jit
def multiply_falling(a, x, i):
    apply_falling(a, x, i, bigint.big_scale)


@jit
def divide_falling(a, x, i):
    apply_falling(a, x, i, bigint.big_shrink)


@jit
def falling(f, x, i):
    """Set f to [x]_i, which is 0 for x < i."""
    bigint.big_set(f, 1 if x >= i else 0)
    if x >= i:
        multiply_falling(f, x, i)


@jit
def binomial(n, k):
    b = bigint.big(0)
    falling(b, n, k)
    divide_falling(b, k, k)
    return b


@jit
def log_factorial(n):
    x = n + 1
    return (x - 0.5) * math.log(x) - x + 0.9189385332046727 + 1 / (12 * x)


@jit
def log_big(a):
    rest = max(a[0] - 3, 0)  # limbs below a double's precision
    mantissa = 0.0
    for i in range(a[0], rest, -1):
        mantissa = mantissa * 2.0**bigint.LIMB_BITS + a[i]
    return math.log(mantissa) + rest * bigint.LIMB_BITS * 0.6931471805599453


@jit
def guess(r, i, upper):
    if r[0] == 0:
        return i - 1
    target = log_big(r)
    x = max(math.exp(target / i) + (i - 1) / 2.0, np.float64(i))
    for _ in range(MOST_ROUNDS):
        value = log_factorial(x) - log_factorial(x - i)
        step = (target - value) / math.log((x + 0.5) / (x - i + 0.5))
        if not (step > CLOSE or step < -CLOSE):
            break
        x = max(x + step, np.float64(i))
    return np.int64(x) if x < upper else upper - 1


@jit
def search(f, following, r, i, upper):
    x = guess(r, i, upper)
    falling(f, x, i)
    while bigint.big_compare(f, r) > 0:
        bigint.big_scale(f, x - i)
        bigint.big_shrink(f, x)
        x -= 1
    while x + 1 < upper:
        if x < i:
            falling(following, x + 1, i)
        else:
            bigint.big_copy(following, f)
            bigint.big_scale(following, x + 1)
            bigint.big_shrink(following, x + 1 - i)
        if bigint.big_compare(following, r) > 0:
            break
        bigint.big_copy(f, following)
        x += 1
    return x


@jit
def rank_set(elements):
    rank = bigint.big(0)
    f = bigint.big(0)
    for i in range(1, elements.size + 1):
        falling(f, elements[i - 1], i)
        bigint.big_scale(rank, i)
        bigint.big_add(rank, f)
    divide_falling(rank, elements.size, elements.size)
    return rank


@jit
def unrank_set(rank, n, k):
    elements = np.empty(k, np.int64)
    f = bigint.big(0)
    following = bigint.big(0)
    multiply_falling(rank, k, k)
    for i in range(k, 0, -1):
        n = search(f, following, rank, i, n)
        elements[i - 1] = n
        bigint.big_subtract(rank, f)
        bigint.big_shrink(rank, i)
    return elements


@jit
def index_size(n, resolution, k):
    size = bigint.big(0)
    bigint.big_multiply(size, binomial(n, k), binomial(resolution - 1, k - 1))
    return size


@jit
def index_rank(ids, counts, resolution):
    k = ids.size
    rank = bigint.big(0)
    places = np.empty(k - 1, np.int64)
    at = 0
    for i in range(k - 1):
        at += counts[i]
        places[i] = at - 1
    bigint.big_multiply(
        rank, rank_set(ids.astype(np.int64)), binomial(resolution - 1, k - 1)
    )
    bigint.big_add(rank, rank_set(places))
    return rank


@jit
def index_unrank(rank, n, resolution, k, ids, counts):
    support = bigint.big(0)
    bigint.big_copy(support, rank)
    multiply_falling(support, k - 1, k - 1)
    divide_falling(support, resolution - 1, k - 1)
    product = bigint.big(0)
    bigint.big_multiply(product, support, binomial(resolution - 1, k - 1))
    bigint.big_subtract(rank, product)
    ids[:k] = unrank_set(support, n, k)
    places = unrank_set(rank, resolution - 1, k - 1)
    at = 0
    for i in range(k - 1):
        counts[i] = places[i] + 1 - at
        at = places[i] + 1
    counts[k - 1] = resolution - at
