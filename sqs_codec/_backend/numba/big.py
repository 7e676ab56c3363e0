"""Big integers, as in ``csrc/rank/big.c``.

A big integer is an array of int64: the number of limbs, then the limbs, the lowest
first. Limbs have 30 bits, so that the product of two and a carry fit into int64.
"""

import numpy as np

from sqs_codec._backend.numba.bits import width_of
from sqs_codec._backend.numba.jit import jit

LIMB_BITS = 30
LIMB_MASK = (1 << LIMB_BITS) - 1
BIG_LIMBS = 28160 // LIMB_BITS + 1  # index.c explains the 28160 bits


@jit
def big(value):
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
def big_bit(a, at):
    """Return a bit, counted from the lowest."""
    limb = at // LIMB_BITS
    return a[limb + 1] >> at % LIMB_BITS & 1 if limb < a[0] else 0


@jit
def big_append(a, bit):
    if a[0] == 0:
        big_set(a, bit)
        return
    big_scale(a, 2)
    a[1] |= bit
