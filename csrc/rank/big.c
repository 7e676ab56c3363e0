/*
 * big.c - schoolbook integers; see big.h.
 */
#include "rank/big.h"

#include <string.h>

#include "bits.h"

static void trim(sqs_big *a)
{
    while (a->size > 0 && a->limb[a->size - 1] == 0)
        a->size--;
}

void sqs_big_set(sqs_big *a, uint32_t value)
{
    a->limb[0] = value;
    a->size = value != 0;
}

void sqs_big_copy(sqs_big *a, const sqs_big *b)
{
    a->size = b->size;
    memcpy(a->limb, b->limb, b->size * sizeof b->limb[0]);
}

/* limb > 0 */
static uint32_t leading_zeros(sqs_limb limb)
{
    return SQS_LIMB_BITS - 1 - sqs_floor_log2(limb);
}

uint32_t sqs_big_length(const sqs_big *a)
{
    if (a->size == 0)
        return 0;
    return a->size * SQS_LIMB_BITS - leading_zeros(a->limb[a->size - 1]);
}

int sqs_big_compare(const sqs_big *a, const sqs_big *b)
{
    if (a->size != b->size)
        return a->size < b->size ? -1 : 1;
    for (uint32_t i = a->size; i-- > 0;)
        if (a->limb[i] != b->limb[i])
            return a->limb[i] < b->limb[i] ? -1 : 1;
    return 0;
}

void sqs_big_add(sqs_big *a, const sqs_big *b)
{
    sqs_limb carry = 0;
    for (uint32_t i = 0; i < b->size || carry != 0; i++) {
        if (i == a->size)
            a->limb[a->size++] = 0;
        sqs_wide sum =
            (sqs_wide)a->limb[i] + (i < b->size ? b->limb[i] : 0) + carry;
        a->limb[i] = (sqs_limb)sum;
        carry = (sqs_limb)(sum >> SQS_LIMB_BITS);
    }
}

void sqs_big_subtract(sqs_big *a, const sqs_big *b)
{
    sqs_limb borrow = 0;
    for (uint32_t i = 0; i < b->size || borrow != 0; i++) {
        sqs_limb less = i < b->size ? b->limb[i] : 0;
        sqs_limb from = a->limb[i];
        a->limb[i] = from - less - borrow;
        borrow = from < less || from - less < borrow;
    }
    trim(a);
}

void sqs_big_scale(sqs_big *a, sqs_limb factor)
{
    sqs_limb carry = 0;
    for (uint32_t i = 0; i < a->size; i++) {
        sqs_wide product = (sqs_wide)a->limb[i] * factor + carry;
        a->limb[i] = (sqs_limb)product;
        carry = (sqs_limb)(product >> SQS_LIMB_BITS);
    }
    if (carry != 0)
        a->limb[a->size++] = carry;
    trim(a);
}

/*
 * Division with an inverse (Moeller and Granlund, "Improved division by
 * invariant integers", 2011, algorithm 4). Let B = 2^SQS_LIMB_BITS, d a
 * divisor whose highest bit is set, and v = floor((B^2 - 1) / d) - B. For
 * high < d, the upper half of v high + (high, low) + B is the quotient of
 * (high, low) by d, or off by 1; the remainder shows which.
 */
typedef struct divisor {
    sqs_limb d, inverse;
    uint32_t shift; /* moved d up, so that its highest bit is set */
} divisor;

static divisor make_divisor(sqs_limb d)
{
    uint32_t shift = leading_zeros(d);
    sqs_limb top = d << shift;
    sqs_wide most = (sqs_wide)(sqs_limb)~top << SQS_LIMB_BITS | (sqs_limb)-1;
    return (divisor){top, (sqs_limb)(most / top), shift};
}

/* Returns the quotient of (*rest, low); *rest becomes the remainder. */
static inline sqs_limb divide(divisor by, sqs_limb *rest, sqs_limb low)
{
    sqs_limb high = *rest;
    sqs_wide q =
        (sqs_wide)by.inverse * high + ((sqs_wide)high << SQS_LIMB_BITS | low);
    sqs_limb quotient = (sqs_limb)((q >> SQS_LIMB_BITS) + 1);
    sqs_limb left = low - quotient * by.d;
    bool over = left > (sqs_limb)q;
    quotient -= over;
    left += over ? by.d : 0;
    if (left >= by.d) { /* rarely */
        quotient++;
        left -= by.d;
    }
    *rest = left;
    return quotient;
}

void sqs_big_shrink(sqs_big *a, sqs_limb d)
{
    if (a->size == 0)
        return;
    divisor by = make_divisor(d);
    uint32_t up = by.shift, down = SQS_LIMB_BITS - 1 - up;
    sqs_limb above = a->limb[a->size - 1];
    sqs_limb rest = above >> 1 >> down;
    for (uint32_t i = a->size; i-- > 0;) {
        sqs_limb below = i > 0 ? a->limb[i - 1] : 0;
        a->limb[i] = divide(by, &rest, above << up | below >> 1 >> down);
        above = below;
    }
    trim(a);
}

void sqs_big_multiply(sqs_big *product, const sqs_big *a, const sqs_big *b)
{
    product->size = a->size + b->size;
    memset(product->limb, 0, product->size * sizeof product->limb[0]);
    for (uint32_t i = 0; i < a->size; i++) {
        sqs_limb carry = 0;
        for (uint32_t j = 0; j < b->size; j++) {
            sqs_wide part = (sqs_wide)a->limb[i] * b->limb[j] +
                            product->limb[i + j] + carry;
            product->limb[i + j] = (sqs_limb)part;
            carry = (sqs_limb)(part >> SQS_LIMB_BITS);
        }
        product->limb[i + b->size] = carry;
    }
    trim(product);
}

uint32_t sqs_big_bits(const sqs_big *a, uint32_t at, uint32_t n)
{
    uint32_t i = at / SQS_LIMB_BITS, shift = at % SQS_LIMB_BITS;
    sqs_limb low = i < a->size ? a->limb[i] : 0;
    sqs_limb high = i + 1 < a->size ? a->limb[i + 1] : 0;
    sqs_limb value = low >> shift | high << 1 << (SQS_LIMB_BITS - 1 - shift);
    return (uint32_t)value & ((1u << n) - 1);
}

void sqs_big_append(sqs_big *a, uint32_t low, uint32_t n)
{
    if (a->size == 0) {
        sqs_big_set(a, low);
        return;
    }
    sqs_big_scale(a, (sqs_limb)1 << n);
    a->limb[0] |= low;
}
