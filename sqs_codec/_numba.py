"""The core in Numba, for where there is no C compiler and no wheel.

The functions follow ``csrc`` file by file and explain only what is different;
the reasons are there. Integers are int64 throughout, as Numba turns a uint64
and an int64 into a float64: limbs have 30 bits, so that products fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sqs_codec import _numba_entropy as entropy
from sqs_codec._errors import Status
from sqs_codec._format import (
    MAX_ENUMERATIVE_SQUARES,
    MAX_ENUMERATIVE_SUPPORT,
    MAX_RESOLUTION,
    MAX_ROUND,
    MAX_VOCAB,
    MEMORY_WORDS,
    ROUND_LENGTH_BITS,
    SUM_TOLERANCE,
    VARIABLE,
    Coding,
)
from sqs_codec._keep import Kind
from sqs_codec._numba_jit import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sqs_codec._backend import Ids
    from sqs_codec._keep import Keep

OK = int(Status.OK)
TRUNCATED = int(Status.TRUNCATED)
TRAILING_BYTES = int(Status.TRAILING_BYTES)
PADDING = int(Status.PADDING)
SUPPORT_SIZE = int(Status.SUPPORT_SIZE)
RANK = int(Status.RANK)
TOKEN_ID = int(Status.TOKEN_ID)
TOKEN_ORDER = int(Status.TOKEN_ORDER)
COUNTS = int(Status.COUNTS)
TOKEN_POSITION = int(Status.TOKEN_POSITION)
ROUND_SUPPORT = int(Status.ROUND_SUPPORT)
NOT_FINITE = int(Status.NOT_FINITE)
ALL_MASKED = int(Status.ALL_MASKED)
NEGATIVE = int(Status.NEGATIVE)
SUM = int(Status.SUM)

TOP_K = int(Kind.TOP_K)
THRESHOLD = int(Kind.THRESHOLD)
TOP_P = int(Kind.TOP_P)

ENUMERATIVE = int(Coding.ENUMERATIVE)
ENTROPY = int(Coding.ENTROPY)

# softmax.h

LANES = 16
LOG2_E = 1.4426950408889634
MAX_F32 = float(np.finfo(np.float32).max)
MIN_EXPONENT_F32 = np.float32(-100)
MIN_EXPONENT_F64 = -1000.0
ROUND_F32 = np.float32(1.5 * 2**23)
ROUND_F64 = 1.5 * 2**52
ZERO_F32 = np.float32(0)
TAYLOR_F64 = (
    1.3691488853904128e-12,
    2.5678435993488206e-11,
    4.4455382718708116e-10,
    7.054911620801123e-09,
    1.01780860092397e-07,
    1.321548679014431e-06,
    1.5252733804059841e-05,
    0.0001540353039338161,
    0.0013333558146428443,
    0.009618129107628477,
    0.05550410866482158,
    0.24022650695910072,
    0.6931471805599453,
    1.0,
)
C7, C6, C5, C4, C3, C2, C1, C0 = (np.float32(c) for c in TAYLOR_F64[-8:])
# 2^-n, to scale by.
POWERS_F32 = np.ldexp(np.float32(1), -np.arange(101))
POWERS_F64 = np.ldexp(1.0, -np.arange(1001))


@jit
def exp2_f32(t):
    if not t >= MIN_EXPONENT_F32:
        return ZERO_F32
    n = (t + ROUND_F32) - ROUND_F32
    f = t - n
    p = C7 * f + C6
    p = p * f + C5
    p = p * f + C4
    p = p * f + C3
    p = p * f + C2
    p = p * f + C1
    p = p * f + C0
    return p * POWERS_F32[-np.int64(n)]


@jit
def exp2_f64(t):
    if not t >= MIN_EXPONENT_F64:
        return 0.0
    n = (t + ROUND_F64) - ROUND_F64
    f = t - n
    p = 0.0
    for c in TAYLOR_F64:
        p = p * f + c
    return p * POWERS_F64[-np.int64(n)]


@jit
def striped_sum(values):
    lanes = np.zeros(LANES)
    whole = values.size - values.size % LANES
    for start in range(0, whole, LANES):
        for j in range(LANES):
            lanes[j] += values[start + j]
    for i in range(whole, values.size):
        lanes[i - whole] += values[i]
    return fold_lanes(lanes)


@jit
def fold_lanes(lanes):
    half = LANES // 2
    while half > 0:
        for i in range(half):
            lanes[i] += lanes[i + half]
        half //= 2
    return lanes[0]


# heap.h


@jit
def ahead(key_a, id_a, key_b, id_b):
    return key_a > key_b or (key_a == key_b and id_a < id_b)


@jit
def heap_replace_root(keys, ids, n, key, id_):
    at = 0
    while True:
        child = 2 * at + 1
        if child >= n:
            break
        if child + 1 < n and ahead(
            keys[child], ids[child], keys[child + 1], ids[child + 1]
        ):
            child += 1
        if ahead(keys[child], ids[child], key, id_):
            break
        keys[at] = keys[child]
        ids[at] = ids[child]
        at = child
    keys[at] = key
    ids[at] = id_


@jit
def heap_offer(keys, ids, n, capacity, key, id_):
    """Return the heap's new size."""
    if n == capacity:
        if ahead(key, id_, keys[0], ids[0]):
            heap_replace_root(keys, ids, n, key, id_)
        return n
    at = n
    while at > 0:
        parent = (at - 1) // 2
        if not ahead(keys[parent], ids[parent], key, id_):
            break
        keys[at] = keys[parent]
        ids[at] = ids[parent]
        at = parent
    keys[at] = key
    ids[at] = id_
    return n + 1


@jit
def heap_sort(keys, ids, n):
    while n > 1:
        key, id_ = keys[0], ids[0]
        n -= 1
        heap_replace_root(keys, ids, n, keys[n], ids[n])
        keys[n] = key
        ids[n] = id_


# sparsify.c

FIRST_NUCLEUS = 64
NUCLEUS_GROWTH = 8


@jit
def find_max(row):
    """Return whether the row is free of NaN and +inf, and its argmax."""
    finite = True
    at = 0
    for i in range(row.size):
        finite &= row[i] < np.inf
        if row[i] > row[at]:
            at = i
    return finite, at


@jit
def make_terms(row, top, scale, terms):
    for i in range(row.size):
        terms[i] = exp2_f32(np.float32(row[i] - top) * scale)


@jit
def find_best(row, floor, capacity, keys, ids):
    found = 0
    for i in range(row.size):
        if not row[i] > floor:
            continue
        if found == capacity and not row[i] > keys[0]:
            continue
        found = heap_offer(keys, ids, found, capacity, np.float64(row[i]), i)
    return found


@jit
def list_through(row, key, id_):
    kept = np.empty(row.size, np.int64)
    found = 0
    for i in range(row.size):
        if not ahead(key, id_, row[i], i):
            kept[found] = i
            found += 1
    return kept[:found]


@jit
def keep_level(terms, level, argmax):
    kept = np.empty(terms.size, np.int64)
    found = 0
    for i in range(terms.size):
        if (terms[i] >= level and terms[i] > 0) or i == argmax:
            kept[found] = i
            found += 1
    return kept[:found]


@jit
def keep_top_k(row, floor, k):
    capacity = np.int64(min(k, np.float64(row.size)))
    keys = np.empty(capacity)
    ids = np.empty(capacity, np.int64)
    find_best(row, floor, capacity, keys, ids)
    return list_through(row, keys[0], ids[0])


@jit
def keep_top_p(row, floor, terms, total, p, argmax):
    if p >= 1:
        return keep_level(terms, 0.0, argmax)
    capacity = FIRST_NUCLEUS
    while True:
        capacity = min(capacity, row.size)
        keys = np.empty(capacity)
        ids = np.empty(capacity, np.int64)
        found = find_best(row, floor, capacity, keys, ids)
        heap_sort(keys, ids, found)
        mass = 0.0
        for i in range(found):
            mass += terms[ids[i]]
            if mass >= p * total:
                return list_through(row, keys[i], ids[i])
        if found < capacity or capacity == row.size:
            return list_through(row, keys[found - 1], ids[found - 1])
        capacity *= NUCLEUS_GROWTH


@jit
def sparsify(row, floor, terms, total, argmax, kind, value):
    if kind == TOP_K:
        return keep_top_k(row, floor, value)
    if kind == THRESHOLD:
        return keep_level(terms, value * total, argmax)
    if kind == TOP_P:
        return keep_top_p(row, floor, terms, total, value, argmax)
    return keep_level(terms, value * terms[argmax], argmax)


@jit
def find_dropped(terms, total, kept):
    lanes = np.zeros(LANES)
    for place in kept:
        lanes[place % LANES] += terms[place]
    dropped = total - fold_lanes(lanes)
    return dropped / total if dropped > 0 else 0.0


# lattice.c


@jit
def lattice(weights, resolution):
    n = weights.size
    total = striped_sum(weights)
    counts = np.empty(n, np.int64)
    excess = -resolution
    for i in range(n):
        counts[i] = np.int64(resolution * (weights[i] / total) + 0.5)
        excess += counts[i]
    units = abs(excess)
    if units == 0:
        return counts
    keys = np.empty(units)
    ids = np.empty(units, np.int64)
    found = 0
    for i in range(n):
        error = counts[i] - resolution * (weights[i] / total)
        if excess > 0:
            found = heap_offer(keys, ids, found, units, error, n - 1 - i)
        else:
            found = heap_offer(keys, ids, found, units, -error, i)
    for i in range(found):
        if excess > 0:
            counts[n - 1 - ids[i]] -= 1
        else:
            counts[ids[i]] += 1
    return counts


# fit.c: a point is ids, weights and counts

MAX_EXPONENT = MAX_RESOLUTION.bit_length() - 1
MOST_TRIALS = 64
COST_UNIT = 2.0**32


@jit
def round_weights(ids, weights, resolution):
    """Return the point without counts of 0."""
    counts = lattice(weights, resolution)
    alive = np.flatnonzero(counts)
    return ids[alive], weights[alive], counts[alive]


@jit
def variation(weights, counts, resolution, total, mass):
    moved = 0.0
    for i in range(counts.size):
        more = counts[i] / resolution - weights[i] / total * mass
        if more > 0:
            moved += more
    return moved


@jit
def balance(weights, most):
    """Return the resolution."""
    total = striped_sum(weights)
    low = 0
    high = MAX_EXPONENT
    while low < high:
        middle = (low + high) // 2
        counts = lattice(weights, 1 << middle)
        if variation(weights, counts, 1 << middle, total, 1.0) <= most:
            high = middle
        else:
            low = middle + 1
    return 1 << low


@jit
def price(objective, resolution, point):
    vocab_size, bits_per_tv, total, mass = objective
    ids, weights, counts = point
    cost = entropy.distribution_cost(ids, counts, vocab_size, resolution)
    moved = variation(weights, counts, resolution, total, mass)
    return cost / COST_UNIT + bits_per_tv * moved


@jit
def cheapest(objective, ids, weights):
    """Return the resolution."""
    best = 1
    least = np.inf
    for e in range(MAX_EXPONENT + 1):
        if e > 0 and not 1 << e <= objective[1]:
            break
        point = round_weights(ids, weights, 1 << e)
        cost = price(objective, 1 << e, point)
        if cost < least:
            least = cost
            best = 1 << e
    return best


@jit
def drop_what_pays(objective, resolution, point):
    ids, _, counts = point
    least = price(objective, resolution, point)
    order = np.argsort(counts * MAX_VOCAB + (MAX_VOCAB - 1 - ids))
    for id_ in ids[order[:MOST_TRIALS]]:
        others = np.flatnonzero(point[0] != id_)
        if others.size == 0 or others.size == point[0].size:
            continue
        trial = round_weights(point[0][others], point[1][others], resolution)
        cost = price(objective, resolution, trial)
        if cost < least:
            least = cost
            point = trial
    return point


@jit
def fit_plainly(kept, weights, dropped, resolution, error):
    """Return ids and counts."""
    if resolution == VARIABLE:
        resolution = balance(weights, max(error, dropped))
    ids, _, counts = round_weights(kept, weights, resolution)
    return ids.astype(np.uint32), counts.astype(np.uint32)


@jit
def fit_by_price(kept, weights, dropped, vocab_size, resolution, bits_per_tv):
    """Return ids and counts."""
    objective = (vocab_size, bits_per_tv, striped_sum(weights), 1 - dropped)
    if resolution == VARIABLE:
        resolution = cheapest(objective, kept, weights)
    point = round_weights(kept, weights, resolution)
    ids, _, counts = drop_what_pays(objective, resolution, point)
    return ids.astype(np.uint32), counts.astype(np.uint32)


# quantize.c


@jit
def weigh_logits(row, temperature, scale, kind, value):
    """Return a status, the tokens kept, their weights and the dropped mass."""
    none = np.empty(0, np.int64), np.empty(0)
    finite, argmax = find_max(row)
    if not finite:
        return NOT_FINITE, *none, 0.0
    top = row[argmax]
    if top == -np.inf:
        return ALL_MASKED, *none, 0.0
    if temperature == 0:
        return OK, np.full(1, argmax), np.ones(1), 0.0
    terms = np.empty(row.size)
    make_terms(row, top, scale, terms)
    total = striped_sum(terms)
    kept = sparsify(row, -np.inf, terms, total, argmax, kind, value)
    dropped = find_dropped(terms, total, kept)
    weights = np.empty(kept.size)
    for i in range(kept.size):
        difference = np.float64(row[kept[i]]) - np.float64(top)
        weights[i] = exp2_f64(difference / temperature * LOG2_E)
    return OK, kept, weights, dropped


@jit
def weigh_probs(row, kind, value):
    """Return a status, the tokens kept, their weights and the dropped mass."""
    none = np.empty(0, np.int64), np.empty(0)
    finite, argmax = find_max(row)
    if not finite:
        return NOT_FINITE, *none, 0.0
    for p in row:
        if p < 0:
            return NOT_FINITE if p == -np.inf else NEGATIVE, *none, 0.0
    total = striped_sum(row)
    if not abs(total - 1) <= SUM_TOLERANCE:
        return SUM, *none, 0.0
    kept = sparsify(row, 0.0, row, total, argmax, kind, value)
    return OK, kept, row[kept], find_dropped(row, total, kept)


# big.c: an integer is an array of limbs and a size in an array of one

LIMB_BITS = 30
LIMB_MASK = (1 << LIMB_BITS) - 1
BIG_LIMBS = 28160 // LIMB_BITS + 1  # SQS_BIG_BITS
PIECE = 15


@jit
def big(value):
    """Return a new integer: limb i at [i + 1], their number at [0]."""
    a = np.zeros(BIG_LIMBS + 1, np.int64)
    big_set(a, value)
    return a


@jit
def big_set(a, value):
    a[0] = 1 if value else 0
    a[1] = value


@jit
def big_trim(a):
    while a[0] > 0 and a[a[0]] == 0:
        a[0] -= 1


@jit
def big_copy(a, b):
    for i in range(b[0] + 1):
        a[i] = b[i]


@jit
def big_length(a):
    if a[0] == 0:
        return 0
    return (a[0] - 1) * LIMB_BITS + width_of(a[a[0]])


@jit
def big_compare(a, b):
    for i in range(max(a[0], b[0]), 0, -1):
        left = a[i] if i <= a[0] else 0
        right = b[i] if i <= b[0] else 0
        if left != right:
            return -1 if left < right else 1
    return 0


@jit
def big_add(a, b):
    carry = 0
    i = 1
    while i <= b[0] or carry:
        if i > a[0]:
            a[0] = i
            a[i] = 0
        total = a[i] + (b[i] if i <= b[0] else 0) + carry
        a[i] = total & LIMB_MASK
        carry = total >> LIMB_BITS
        i += 1


@jit
def big_subtract(a, b):
    borrow = 0
    i = 1
    while i <= b[0] or borrow:
        rest = a[i] - (b[i] if i <= b[0] else 0) - borrow
        a[i] = rest & LIMB_MASK
        borrow = 1 if rest < 0 else 0
        i += 1
    big_trim(a)


@jit
def big_scale(a, factor):
    carry = 0
    for i in range(1, a[0] + 1):
        product = a[i] * factor + carry
        a[i] = product & LIMB_MASK
        carry = product >> LIMB_BITS
    if carry:
        a[0] += 1
        a[a[0]] = carry
    big_trim(a)


@jit
def big_shrink(a, divisor):
    rest = 0
    for i in range(a[0], 0, -1):
        part = rest << LIMB_BITS | a[i]
        a[i] = part // divisor
        rest = part % divisor
    big_trim(a)


@jit
def big_multiply(product, a, b):
    product[0] = a[0] + b[0]
    product[1 : product[0] + 1] = 0
    for i in range(a[0]):
        carry = 0
        for j in range(b[0]):
            part = a[i + 1] * b[j + 1] + product[i + j + 1] + carry
            product[i + j + 1] = part & LIMB_MASK
            carry = part >> LIMB_BITS
        product[i + b[0] + 1] = carry
    big_trim(product)


@jit
def big_bits(a, at, n):
    value = 0
    for i in range(n):
        limb = (at + i) // LIMB_BITS
        if limb < a[0]:
            value |= (a[limb + 1] >> (at + i) % LIMB_BITS & 1) << i
    return value


@jit
def big_append(a, low, n):
    if a[0] == 0:
        big_set(a, low)
        return
    big_scale(a, 1 << n)
    a[1] |= low


# index.c

FACTOR_BITS = 20
MOST_ROUNDS = 16
CLOSE = 0.01


@jit
def apply_falling(a, c, i, apply):
    product = 1
    for j in range(i):
        if product >> (LIMB_BITS - FACTOR_BITS):
            apply(a, product)
            product = 1
        product *= c - j
    apply(a, product)


@jit
def multiply_falling(a, c, i):
    apply_falling(a, c, i, big_scale)


@jit
def divide_falling(a, c, i):
    apply_falling(a, c, i, big_shrink)


@jit
def falling(f, c, i):
    big_set(f, 1 if c >= i else 0)
    if c >= i:
        multiply_falling(f, c, i)


@jit
def binomial(n, k):
    b = big(0)
    falling(b, n, k)
    divide_falling(b, k, k)
    return b


@jit
def log_factorial(n):
    x = n + 1
    return (x - 0.5) * math.log(x) - x + 0.9189385332046727 + 1 / (12 * x)


@jit
def log_big(a):
    length = big_length(a)
    mantissa = 0.0
    taken = 0
    while taken < 60 and taken < length:
        n = min(length - taken, PIECE)
        piece = big_bits(a, length - taken - n, n) << (PIECE - n)
        mantissa = mantissa * 2.0**PIECE + piece
        taken += PIECE
    return math.log(mantissa) + (length - taken) * 0.6931471805599453


@jit
def guess(r, i, upper):
    if r[0] == 0:
        return i - 1
    target = log_big(r)
    c = max(math.exp(target / i) + (i - 1) / 2.0, np.float64(i))
    for _ in range(MOST_ROUNDS):
        value = log_factorial(c) - log_factorial(c - i)
        step = (target - value) / math.log((c + 0.5) / (c - i + 0.5))
        if not (step > CLOSE or step < -CLOSE):
            break
        c = max(c + step, np.float64(i))
    return np.int64(c) if c < upper else upper - 1


@jit
def search(f, following, r, i, upper):
    c = guess(r, i, upper)
    falling(f, c, i)
    while big_compare(f, r) > 0:
        big_scale(f, c - i)
        big_shrink(f, c)
        c -= 1
    while c + 1 < upper:
        if c < i:
            falling(following, c + 1, i)
        else:
            big_copy(following, f)
            big_scale(following, c + 1)
            big_shrink(following, c + 1 - i)
        if big_compare(following, r) > 0:
            break
        big_copy(f, following)
        c += 1
    return c


@jit
def rank_set(elements):
    rank = big(0)
    f = big(0)
    for i in range(1, elements.size + 1):
        falling(f, elements[i - 1], i)
        big_scale(rank, i)
        big_add(rank, f)
    divide_falling(rank, elements.size, elements.size)
    return rank


@jit
def unrank_set(rank, n, k):
    elements = np.empty(k, np.int64)
    f = big(0)
    following = big(0)
    multiply_falling(rank, k, k)
    for i in range(k, 0, -1):
        n = search(f, following, rank, i, n)
        elements[i - 1] = n
        big_subtract(rank, f)
        big_shrink(rank, i)
    return elements


@jit
def index_size(n, resolution, k):
    size = big(0)
    big_multiply(size, binomial(n, k), binomial(resolution - 1, k - 1))
    return size


@jit
def index_rank(ids, counts, resolution):
    k = ids.size
    rank = big(0)
    places = np.empty(k - 1, np.int64)
    at = 0
    for i in range(k - 1):
        at += counts[i]
        places[i] = at - 1
    big_multiply(rank, rank_set(ids.astype(np.int64)), binomial(resolution - 1, k - 1))
    big_add(rank, rank_set(places))
    return rank


@jit
def index_unrank(rank, n, resolution, k, ids, counts):
    support = big(0)
    big_copy(support, rank)
    multiply_falling(support, k - 1, k - 1)
    divide_falling(support, resolution - 1, k - 1)
    product = big(0)
    big_multiply(product, support, binomial(resolution - 1, k - 1))
    big_subtract(rank, product)
    ids[:k] = unrank_set(support, n, k)
    places = unrank_set(rank, resolution - 1, k - 1)
    at = 0
    for i in range(k - 1):
        counts[i] = places[i] + 1 - at
        at = places[i] + 1
    counts[k - 1] = resolution - at


# packet.c


@jit
def width_of(most):
    width = 0
    while most:
        width += 1
        most >>= 1
    return width


@jit
def max_support(vocab_size, resolution, coding):
    most = min(vocab_size, resolution)
    if coding == ENUMERATIVE:
        return min(most, MAX_ENUMERATIVE_SUPPORT)
    return most


@jit
def rank_width(size):
    """Return the width of a rank below size, which becomes size - 1."""
    big_subtract(size, big(1))
    return big_length(size)


@jit
def distribution_bits(vocab_size, resolution, coding, k):
    bits = width_of(max_support(vocab_size, resolution, coding) - 1)
    if coding == ENUMERATIVE:
        return bits + rank_width(index_size(vocab_size, resolution, k))
    bits += k * width_of(vocab_size - 1)
    return bits + (k - 1) * width_of(resolution - k)


@jit
def put(packet, at, value, width):
    """Write a field at bit `at` of a zeroed packet; return where it ends."""
    for shift in range(width - 1, -1, -1):
        packet[at // 8] |= np.uint8((value >> shift & 1) << (7 - at % 8))
        at += 1
    return at


@jit
def put_distribution(packet, at, vocab_size, resolution, coding, ids, counts):
    k = ids.size
    size_width = width_of(max_support(vocab_size, resolution, coding) - 1)
    at = put(packet, at, k - 1, size_width)
    if coding == ENUMERATIVE:
        width = rank_width(index_size(vocab_size, resolution, k))
        rank = index_rank(ids, counts, resolution)
        for place in range(width - 1, -1, -1):
            at = put(packet, at, big_bits(rank, place, 1), 1)
        return at
    for i in range(k):
        at = put(packet, at, np.int64(ids[i]), width_of(vocab_size - 1))
    for i in range(k - 1):
        at = put(packet, at, np.int64(counts[i]) - 1, width_of(resolution - k))
    return at


@jit
def encode(vocab_size, resolution, coding, ids, counts):
    bits = distribution_bits(vocab_size, resolution, coding, ids.size)
    packet = np.zeros((bits + 7) // 8, np.uint8)
    put_distribution(packet, 0, vocab_size, resolution, coding, ids, counts)
    return packet


@jit
def encode_round(vocab_size, resolution, coding, ids, counts, survivors, positions):
    bits = ROUND_LENGTH_BITS
    for size in survivors:
        k = np.int64(size)
        bits += distribution_bits(vocab_size, resolution, coding, k)
        bits += width_of(k - 1)
    packet = np.zeros((bits + 7) // 8, np.uint8)
    at = put(packet, 0, survivors.size - 1, ROUND_LENGTH_BITS)
    start = 0
    for i in range(survivors.size):
        k = np.int64(survivors[i])
        end = start + k
        at = put_distribution(
            packet,
            at,
            vocab_size,
            resolution,
            coding,
            ids[start:end],
            counts[start:end],
        )
        at = put(packet, at, np.int64(positions[i]), width_of(k - 1))
        start = end
    return packet


@jit
def encode_tokens(vocab_size, resolution, tokens, counts):
    id_width = width_of(vocab_size - 1)
    count_width = width_of(resolution - 1)
    bits = ROUND_LENGTH_BITS + tokens.size * (id_width + count_width)
    packet = np.zeros((bits + 7) // 8, np.uint8)
    at = put(packet, 0, tokens.size - 1, ROUND_LENGTH_BITS)
    for i in range(tokens.size):
        at = put(packet, at, np.int64(tokens[i]), id_width)
        at = put(packet, at, np.int64(counts[i]) - 1, count_width)
    return packet


@jit
def get(packet, at, width):
    """Return the field of that width at bit `at`; it has to be there."""
    value = 0
    for i in range(at, at + width):
        value = value << 1 | (np.int64(packet[i // 8]) >> (7 - i % 8) & 1)
    return value


@jit
def get_rank(packet, at, vocab_size, resolution, k, ids, counts):
    """Return a status and where the rank ends."""
    largest = index_size(vocab_size, resolution, k)
    width = rank_width(largest)
    if at + width > 8 * packet.size:
        return TRUNCATED, at
    rank = big(0)
    for i in range(width):
        big_append(rank, get(packet, at + i, 1), 1)
    if big_compare(rank, largest) > 0:
        return RANK, at
    index_unrank(rank, vocab_size, resolution, k, ids, counts)
    return OK, at + width


@jit
def get_fields(packet, at, vocab_size, resolution, k, ids, counts):
    """Return a status and where the fields end."""
    id_width = width_of(vocab_size - 1)
    count_width = width_of(resolution - k)
    if at + k * id_width + (k - 1) * count_width > 8 * packet.size:
        return TRUNCATED, at
    for i in range(k):
        ids[i] = get(packet, at, id_width)
        at += id_width
        if ids[i] >= vocab_size:
            return TOKEN_ID, at
        if i > 0 and ids[i] <= ids[i - 1]:
            return TOKEN_ORDER, at
    left = resolution
    for i in range(k - 1):
        counts[i] = get(packet, at, count_width) + 1
        at += count_width
        if counts[i] >= left:
            return COUNTS, at
        left -= np.int64(counts[i])
    counts[k - 1] = left
    return OK, at


@jit
def get_distribution(packet, at, vocab_size, resolution, coding, squares, ids, counts):
    """Return a status, where the distribution ends, and its survivors.

    `squares` is the sum over the round's earlier distributions.
    """
    most = max_support(vocab_size, resolution, coding)
    size_width = width_of(most - 1)
    if at + size_width > 8 * packet.size:
        return TRUNCATED, at, 0
    k = get(packet, at, size_width) + 1
    at += size_width
    if k > most:
        return SUPPORT_SIZE, at, 0
    if coding == ENUMERATIVE and squares + k * k > MAX_ENUMERATIVE_SQUARES:
        return ROUND_SUPPORT, at, 0
    if coding == ENUMERATIVE:
        status, at = get_rank(packet, at, vocab_size, resolution, k, ids, counts)
    else:
        status, at = get_fields(packet, at, vocab_size, resolution, k, ids, counts)
    return status, at, k


@jit
def get_position(packet, at, k):
    """Return a status, where the position ends, and the position."""
    width = width_of(k - 1)
    if at + width > 8 * packet.size:
        return TRUNCATED, at, 0
    position = get(packet, at, width)
    return OK if position < k else TOKEN_POSITION, at + width, position


@jit
def check_padding(packet, at):
    left = 8 * packet.size - at
    if left >= 8:
        return TRAILING_BYTES
    return OK if get(packet, at, left) == 0 else PADDING


@jit
def decode(packet, vocab_size, resolution, coding, ids, counts):
    """Return a status and the survivors."""
    status, at, k = get_distribution(
        packet, 0, vocab_size, resolution, coding, 0, ids, counts
    )
    if status == OK:
        status = check_padding(packet, at)
    return status, k


@jit
def get_token(packet, at, vocab_size, resolution):
    """Return a status, where the token ends, the token and its count."""
    width = width_of(vocab_size - 1)
    if at + width > 8 * packet.size:
        return TRUNCATED, at, 0, 0
    token = get(packet, at, width)
    at += width
    if token >= vocab_size:
        return TOKEN_ID, at, 0, 0
    width = width_of(resolution - 1)
    if at + width > 8 * packet.size:
        return TRUNCATED, at, 0, 0
    count = get(packet, at, width) + 1
    return OK if count <= resolution else COUNTS, at + width, token, count


@jit
def decode_tokens(packet, vocab_size, resolution, tokens, counts):
    """Return a status and how many tokens there are."""
    if packet.size == 0:
        return TRUNCATED, 0
    length = get(packet, 0, ROUND_LENGTH_BITS) + 1
    at = ROUND_LENGTH_BITS
    for i in range(length):
        status, at, tokens[i], counts[i] = get_token(packet, at, vocab_size, resolution)
        if status != OK:
            return status, 0
    return check_padding(packet, at), length


class Core:
    """See `sqs_codec._backend.Core`."""

    def __init__(
        self, vocab_size: int, resolution: int, coding: int, error: float
    ) -> None:
        self._codec = vocab_size, resolution, int(coding)
        self._error = error

    def quantize_logits(
        self,
        logits: NDArray[np.floating],
        temperature: float,
        keep: Keep,
        bits_per_tv: float,
    ) -> tuple[int, Ids, Ids, float]:
        row = logits.astype(np.float32) if logits.dtype == np.float16 else logits
        scale = np.float32(min(LOG2_E / temperature if temperature else 1, MAX_F32))
        return self._fit(
            bits_per_tv,
            *weigh_logits(row, temperature, scale, int(keep._kind), keep._value),
        )

    def quantize_probs(
        self, probs: NDArray[np.floating], keep: Keep, bits_per_tv: float
    ) -> tuple[int, Ids, Ids, float]:
        row = probs.astype(np.float64)
        return self._fit(bits_per_tv, *weigh_probs(row, int(keep._kind), keep._value))

    def _fit(
        self,
        bits_per_tv: float,
        status: int,
        kept: NDArray[np.int64],
        weights: NDArray[np.float64],
        dropped: float,
    ) -> tuple[int, Ids, Ids, float]:
        vocab_size, resolution, _ = self._codec
        if status != OK:
            none = np.empty(0, np.uint32)
            return status, none, none, 0.0
        tokens = kept, weights, dropped
        if bits_per_tv > 0:  # compiled only for those who use it
            found = fit_by_price(*tokens, vocab_size, resolution, bits_per_tv)
        else:
            found = fit_plainly(*tokens, resolution, self._error)
        return status, *found, dropped

    def bits(self, ids: Ids, counts: Ids) -> int:
        if self._codec[2] == ENTROPY:
            return int(entropy.bits(*self._codec[:2], ids, counts))
        return int(distribution_bits(*self._codec, ids.size))

    def encode(self, ids: Ids, counts: Ids) -> bytes:
        packet: NDArray[np.uint8]
        if self._codec[2] == ENTROPY:
            packet, _ = entropy.encode(*self._codec[:2], ids, counts)
        else:
            packet = encode(*self._codec, ids, counts)
        return packet.tobytes()

    def decode(self, packet: bytes) -> tuple[int, Ids, Ids]:
        data = np.frombuffer(packet, np.uint8)
        if self._codec[2] == ENTROPY:
            found: tuple[int, Ids, Ids] = entropy.decode(data, *self._codec[:2])
            return found
        most = min(self._codec[:2])
        ids = np.empty(most, np.uint32)
        counts = np.empty(most, np.uint32)
        status, k = decode(data, *self._codec, ids, counts)
        return status, ids[:k].copy(), counts[:k].copy()

    def encode_round(
        self,
        ids: Ids,
        counts: Ids,
        survivors: Ids,
        positions: Ids,
        memory: Ids | None = None,
    ) -> bytes:
        packet: NDArray[np.uint8]
        round_ = ids, counts, survivors, positions
        if self._codec[2] == ENTROPY:
            known = _empty_memory() if memory is None else memory
            packet = entropy.encode_round(*self._codec[:2], *round_, known)
        else:
            packet = encode_round(*self._codec, *round_)
        return packet.tobytes()

    def decode_round(
        self, packet: bytes, memory: Ids | None = None
    ) -> tuple[int, Sequence[tuple[Ids, Ids]], Sequence[int]]:
        data = np.frombuffer(packet, np.uint8)
        if self._codec[2] == ENTROPY:
            return self._decode_message(data, memory)
        if not packet:
            return TRUNCATED, [], []
        most = min(self._codec[:2])
        ids = np.empty(most, np.uint32)
        counts = np.empty(most, np.uint32)
        pairs, positions = [], []
        at = ROUND_LENGTH_BITS
        squares = 0
        for _ in range(get(data, 0, ROUND_LENGTH_BITS) + 1):
            status, at, k = get_distribution(
                data, at, *self._codec, squares, ids, counts
            )
            squares += k * k
            if status == OK:
                status, at, position = get_position(data, at, k)
            if status != OK:
                return status, [], []
            pairs.append((ids[:k].copy(), counts[:k].copy()))
            positions.append(position)
        return check_padding(data, at), pairs, positions

    def _decode_message(
        self, data: NDArray[np.uint8], memory: Ids | None
    ) -> tuple[int, Sequence[tuple[Ids, Ids]], Sequence[int]]:
        """Do what `decode_round` does, in the entropy coding."""
        known = _empty_memory() if memory is None else memory
        status, ids, counts, survivors, positions = entropy.decode_round(
            data, *self._codec[:2], known
        )
        if status != OK:
            return status, [], []
        ends = np.cumsum(survivors).tolist()
        pairs = [
            (ids[start:end].copy(), counts[start:end].copy())
            for start, end in zip([0, *ends[:-1]], ends, strict=True)
        ]
        return status, pairs, positions.tolist()

    def encode_tokens(self, tokens: Ids, counts: Ids, resolutions: Ids) -> bytes:
        packet: NDArray[np.uint8]
        if self._codec[2] == ENTROPY:
            packet = entropy.encode_tokens(
                *self._codec[:2], tokens, counts, resolutions
            )
        else:
            packet = encode_tokens(*self._codec[:2], tokens, counts)
        return packet.tobytes()

    def decode_tokens(self, packet: bytes) -> tuple[int, Ids, Ids, Ids]:
        data = np.frombuffer(packet, np.uint8)
        tokens, counts, resolutions = np.empty((3, MAX_ROUND), np.uint32)
        if self._codec[2] == ENTROPY:
            status, length = entropy.decode_tokens(
                data, *self._codec[:2], tokens, counts, resolutions
            )
        else:
            status, length = decode_tokens(data, *self._codec[:2], tokens, counts)
            resolutions[:] = self._codec[1]
        return status, *(a[:length].copy() for a in (tokens, counts, resolutions))


def _empty_memory() -> Ids:
    return np.zeros(MEMORY_WORDS, np.uint32)
