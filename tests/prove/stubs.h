/*
 * stubs.h - in place of bits, which coder.c proves: what is asked is checked,
 * and any answer given that the real function might give.
 *
 * To be included before a file of csrc/.
 */
#ifndef STUBS_H
#define STUBS_H

#include "any.h"

/* After a symbol: a reader again, up to SQS_CODER_MOST bytes on. */
static void move_on(sqs_coder *c)
{
    c->shifts += any_within(0, SQS_CODER_MOST);
    c->range = nondet_uint64();
    c->code = nondet_uint64();
    assume(is_reader(c));
}

static bool any_bit(sqs_coder *c, uint32_t chance, bool bit)
{
    assert(chance >= 1 && chance <= 255);
    if (!sqs_coder_going(c))
        return false;
    move_on(c);
    return nondet_bool();
}

#define sqs_code_bit any_bit

#endif /* STUBS_H */
