"""Fields and exact ranks, in Numba: the packets of all codings but the entropy one.

The functions follow ``csrc/big.c``, ``csrc/index.c`` and ``csrc/packet.c`` and
explain only what is different; the reasons are there. Integers are int64
throughout, as Numba turns a uint64 and an int64 into a float64: limbs have 30
bits, so that products fit.
"""

from __future__ import annotations

import math

import numpy as np

from sqs_codec._errors import Status
from sqs_codec._format import (
    MAX_ENUMERATIVE_SQUARES,
    MAX_ENUMERATIVE_SUPPORT,
    ROUND_LENGTH_BITS,
    Coding,
)
from sqs_codec._numba_jit import entry, jit

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

ENUMERATIVE = int(Coding.ENUMERATIVE)

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


@entry
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


@entry
def encode(vocab_size, resolution, coding, ids, counts):
    bits = distribution_bits(vocab_size, resolution, coding, ids.size)
    packet = np.zeros((bits + 7) // 8, np.uint8)
    put_distribution(packet, 0, vocab_size, resolution, coding, ids, counts)
    return packet


@entry
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


@entry
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


@entry
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


@entry
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


@entry
def get_position(packet, at, k):
    """Return a status, where the position ends, and the position."""
    width = width_of(k - 1)
    if at + width > 8 * packet.size:
        return TRUNCATED, at, 0
    position = get(packet, at, width)
    return OK if position < k else TOKEN_POSITION, at + width, position


@entry
def check_padding(packet, at):
    left = 8 * packet.size - at
    if left >= 8:
        return TRAILING_BYTES
    return OK if get(packet, at, left) == 0 else PADDING


@entry
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


@entry
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
