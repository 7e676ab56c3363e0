/*
 * any.h - any values, and any state that a decoder can be in.
 */
#ifndef ANY_H
#define ANY_H

#include <assert.h>
#include <stdlib.h>

#include "entropy/coder.h"

#define assume __CPROVER_assume

/* CBMC takes what has no body and begins with nondet_ for any value. */
bool nondet_bool(void);
uint8_t nondet_uint8(void);
uint32_t nondet_uint32(void);
uint64_t nondet_uint64(void);

/* A value of least .. most. */
static inline uint32_t any_within(uint32_t least, uint32_t most)
{
    uint32_t value = nondet_uint32();
    assume(value >= least && value <= most);
    return value;
}

/* More than a packet can have; CBMC addresses objects up to 2^55 bytes. */
#define MOST_BYTES ((size_t)1 << 40)

/* Any bytes. What malloc returns has any content, and an access outside it is
 * an error. */
static inline uint8_t *any_bytes(size_t size)
{
    uint8_t *bytes = malloc(size);
    assume(bytes != NULL);
    return bytes;
}

#define LEAST_RANGE ((uint64_t)1 << SQS_CODER_LEAST_BITS)
#define MOST_RANGE ((uint64_t)1 << SQS_CODER_BITS)

/* What holds of a coder that reads, before and after every symbol: its range
 * is above 2^48 and at most 2^56, and its code is in the range. A symbol is
 * read only while shifts < size, and moves SQS_CODER_MOST bytes at most. */
static inline bool is_reader(const sqs_coder *c)
{
    return c->mode == SQS_READ && c->range > LEAST_RANGE &&
           c->range <= MOST_RANGE && c->code < c->range &&
           (c->shifts < c->size || c->shifts - c->size < SQS_CODER_MOST);
}

/* A reader of a packet of any size, at any place in it. */
static inline sqs_coder any_reader(void)
{
    sqs_coder c = {.mode = SQS_READ};
    c.size = nondet_uint64();
    assume(c.size <= MOST_BYTES);
    c.in = any_bytes(c.size);
    c.shifts = nondet_uint64();
    c.range = nondet_uint64();
    c.code = nondet_uint64();
    c.truncated = nondet_bool();
    assume(is_reader(&c));
    return c;
}

#endif /* ANY_H */
