/*
 * coder.h - the range coder.
 *
 * A message is a number in [0, 1). Each symbol narrows an interval, that of
 * the numbers which begin with the symbols so far, to a part as wide as the
 * symbol is likely; the packet is the first number of the last interval that
 * a whole byte can end. Integers of 56 bits hold the interval: `low`, from
 * which digits that can no longer change but by a carry have moved on to the
 * packet, and `range`, its width, kept above 2^48 by moving a byte on. With
 * that many bits to spare, rounding costs less than 2^-16 of a symbol.
 *
 * One struct serves three modes, so that each model is written down once: a
 * function codes a value that it is given when writing or metering, ignores
 * the argument when reading, and returns the value in every mode. Any packet
 * whatsoever reads as some symbols; what can go wrong is only its length.
 */
#ifndef SQS_CODER_H
#define SQS_CODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fixed.h"

typedef enum sqs_coder_mode {
    SQS_WRITE,
    SQS_READ,
    SQS_METER /* counts the bits of sqs_code_bit, and does nothing else */
} sqs_coder_mode;

typedef struct sqs_coder {
    sqs_coder_mode mode;
    uint8_t *out;      /* writing */
    const uint8_t *in; /* reading */
    size_t size;       /* of either */
    size_t shifts;     /* how many bytes have moved on */
    uint64_t low;      /* writing */
    uint64_t code;     /* reading: the packet's number, less low */
    uint64_t range;
    uint64_t cost;  /* metering, in units of 2^-32 bits */
    bool truncated; /* reading: a symbol was asked of a packet at its end */
} sqs_coder;

#define SQS_CODER_BITS 56u
#define SQS_CODER_LEAST (SQS_CODER_BITS - 8u)
#define SQS_CODER_BYTES (SQS_CODER_BITS / 8u)

static inline sqs_coder sqs_coder_write(uint8_t *out, size_t size)
{
    sqs_coder c = {.mode = SQS_WRITE, .out = out, .size = size};
    c.range = (uint64_t)1 << SQS_CODER_BITS;
    return c;
}

static inline uint8_t sqs_coder_byte(const sqs_coder *c, size_t at)
{
    return at < c->size ? c->in[at] : 0;
}

static inline sqs_coder sqs_coder_read(const uint8_t *in, size_t size)
{
    sqs_coder c = {.mode = SQS_READ, .in = in, .size = size};
    c.range = (uint64_t)1 << SQS_CODER_BITS;
    for (size_t i = 0; i < SQS_CODER_BYTES; i++)
        c.code = c.code << 8 | sqs_coder_byte(&c, i);
    return c;
}

static inline sqs_coder sqs_coder_meter(void)
{
    sqs_coder c = {.mode = SQS_METER};
    c.range = (uint64_t)1 << SQS_CODER_BITS;
    return c;
}

/* Adds one to the number that has moved on, as far as there was room. */
static inline void sqs_coder_carry(sqs_coder *c)
{
    for (size_t i = c->shifts < c->size ? c->shifts : c->size; i-- > 0;)
        if (++c->out[i] != 0)
            return;
}

static inline void sqs_coder_put(sqs_coder *c, uint8_t byte)
{
    if (c->shifts < c->size)
        c->out[c->shifts] = byte;
    c->shifts++;
}

/* Narrows the interval to `range` from `start` on. */
static inline void sqs_coder_narrow(sqs_coder *c, uint64_t start,
                                    uint64_t range)
{
    const uint64_t mask = ((uint64_t)1 << SQS_CODER_BITS) - 1;
    c->range = range;
    if (c->mode == SQS_READ) {
        c->code -= start;
        while (c->range <= (uint64_t)1 << SQS_CODER_LEAST) {
            uint8_t next = sqs_coder_byte(c, c->shifts + SQS_CODER_BYTES);
            c->code = c->code << 8 | next;
            c->range <<= 8;
            c->shifts++;
        }
        return;
    }
    c->low += start;
    if (c->low > mask) {
        c->low &= mask;
        sqs_coder_carry(c);
    }
    while (c->range <= (uint64_t)1 << SQS_CODER_LEAST) {
        sqs_coder_put(c, (uint8_t)(c->low >> SQS_CODER_LEAST));
        c->low = c->low << 8 & mask;
        c->range <<= 8;
    }
}

/* Narrows the interval to the share from `below` on of so many units, or to all
 * that is left of it: the last value of a symbol takes what rounding leaves. */
static inline void sqs_coder_take(sqs_coder *c, uint64_t unit, uint64_t below,
                                  uint64_t width, bool last)
{
    uint64_t start = unit * below;
    sqs_coder_narrow(c, start, last ? c->range - start : unit * width);
}

/* Whether another symbol can be read; writing, always. */
static inline bool sqs_coder_going(sqs_coder *c)
{
    if (c->mode == SQS_READ && c->shifts >= c->size)
        c->truncated = true;
    return !c->truncated;
}

/* A bit that is 1 with a chance in 256ths, 1 .. 255. */
static inline bool sqs_code_bit(sqs_coder *c, uint32_t chance, bool bit)
{
    if (c->mode == SQS_METER) {
        c->cost += ((uint64_t)8 << SQS_LOG_UNIT) -
                   sqs_log2(bit ? chance : 256 - chance);
        return bit;
    }
    if (!sqs_coder_going(c))
        return false;
    uint64_t zeros = (c->range >> 8) * (256 - chance);
    if (c->mode == SQS_READ)
        bit = c->code >= zeros;
    sqs_coder_narrow(c, bit ? zeros : 0, bit ? c->range - zeros : zeros);
    return bit;
}

/* One of n values, all equally likely; n <= 2^20. */
static inline uint32_t sqs_code_uniform(sqs_coder *c, uint32_t n,
                                        uint32_t value)
{
    if (!sqs_coder_going(c))
        return 0;
    uint64_t unit = c->range / n;
    if (c->mode == SQS_READ) {
        uint64_t target = c->code / unit;
        value = target < n ? (uint32_t)target : n - 1;
    }
    sqs_coder_take(c, unit, value, 1, value + 1 == n);
    return value;
}

/* Ends a packet and returns its size, which may exceed the room it had. */
static inline size_t sqs_coder_finish(sqs_coder *c)
{
    uint64_t last = c->low + (((uint64_t)1 << SQS_CODER_LEAST) - 1);
    if (last >> SQS_CODER_BITS)
        sqs_coder_carry(c);
    sqs_coder_put(c, (uint8_t)(last >> SQS_CODER_LEAST));
    return c->shifts;
}

/* Whether the bytes are over, and how. */
typedef enum sqs_ending {
    SQS_ENDS_WELL,
    SQS_ENDS_EARLY,
    SQS_ENDS_LATE,
    SQS_ENDS_OTHERWISE /* not with the byte that sqs_coder_finish writes */
} sqs_ending;

static inline sqs_ending sqs_coder_ending(const sqs_coder *c)
{
    if (c->truncated || c->size < c->shifts + 1)
        return SQS_ENDS_EARLY;
    if (c->size > c->shifts + 1)
        return SQS_ENDS_LATE;
    return c->code >> SQS_CODER_LEAST ? SQS_ENDS_OTHERWISE : SQS_ENDS_WELL;
}

#endif /* SQS_CODER_H */
