/*
 * big.c - schoolbook integers; see big.h.
 */
#include "big.h"

#include <string.h>

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

uint32_t sqs_big_length(const sqs_big *a)
{
    if (a->size == 0)
        return 0;
    uint32_t length = (a->size - 1) * SQS_LIMB_BITS;
    for (sqs_limb top = a->limb[a->size - 1]; top != 0; top >>= 1)
        length++;
    return length;
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
        sqs_limb take = i < b->size ? b->limb[i] : 0;
        sqs_limb from = a->limb[i];
        a->limb[i] = from - take - borrow;
        borrow = from < take || from - take < borrow;
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

void sqs_big_shrink(sqs_big *a, sqs_limb divisor)
{
    sqs_limb rest = 0;
    for (uint32_t i = a->size; i-- > 0;) {
        sqs_wide part = (sqs_wide)rest << SQS_LIMB_BITS | a->limb[i];
        a->limb[i] = (sqs_limb)(part / divisor);
        rest = (sqs_limb)(part % divisor);
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
    uint32_t value = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t limb = (at + i) / SQS_LIMB_BITS;
        if (limb < a->size)
            value |= (uint32_t)(a->limb[limb] >> (at + i) % SQS_LIMB_BITS & 1)
                     << i;
    }
    return value;
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
