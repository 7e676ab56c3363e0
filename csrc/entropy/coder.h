/*
 * coder.h - the range coder.
 *
 * A message is a number in [0, 1). An interval holds all numbers that begin
 * with the symbols so far, and each symbol narrows it in proportion to the
 * symbol's probability. The packet is the first number of the last interval
 * that has one byte more than the coder has shifted out.
 *
 * Integers of 56 bits hold the interval's start, `low`, and width, `range`.
 * When the range is 2^48 or less, the upper byte of `low` is shifted out to
 * the packet, where only a carry can still change it. As the range stays above
 * 2^48, rounding costs less than 2^-16 of a symbol.
 *
 * One struct serves three modes, so that each model is written once. When
 * writing or metering, a function codes the value that it is given. When
 * reading, it ignores the argument. It returns the value in every mode. Any
 * bytes can be read as symbols: only a packet's length and last byte can be
 * wrong.
 *
 * Names are from docs/format.md: u = range / W is the unit, and value x of a
 * symbol gets the part of the range from u c(x) to u c(x + 1).
 */
#ifndef SQS_CODER_H
#define SQS_CODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "entropy/fixed.h"
#include "sqs.h"

typedef enum sqs_coder_mode {
    SQS_WRITE,
    SQS_READ,
    SQS_METER /* sqs_code_bit adds up the cost of bits; nothing is coded */
} sqs_coder_mode;

/* An array of values to code: writing reads `given`, reading writes `found`.
 * The other pointer is null. */
typedef struct sqs_values {
    const uint32_t *given;
    uint32_t *found;
} sqs_values;

typedef struct sqs_coder {
    sqs_coder_mode mode;
    uint8_t *out;      /* writing: room for `size` bytes */
    const uint8_t *in; /* reading: the packet, `size` bytes */
    size_t size;
    size_t shifts; /* bytes shifted out: s */
    uint64_t low;  /* writing */
    uint64_t code; /* reading: the packet's number minus low */
    uint64_t range;
    uint64_t cost;  /* metering, in units of 2^-SQS_LOG_UNIT bits */
    bool truncated; /* reading: the packet ended before a symbol */
} sqs_coder;

_Static_assert(SQS_CODER_LEAST_BITS == SQS_CODER_BITS - 8,
               "a range that is too narrow is widened by bytes");
#define SQS_CODER_BYTES (SQS_CODER_BITS / 8u)

/* A writer into `out`, which may be null if size is 0. Bytes that exceed the
 * room are counted, but not written. */
static inline sqs_coder sqs_coder_write(uint8_t *out, size_t size)
{
    sqs_coder c = {.mode = SQS_WRITE, .out = out, .size = size};
    c.range = (uint64_t)1 << SQS_CODER_BITS;
    return c;
}

/* A byte of the packet; 0 beyond its end. */
SQS_INLINE uint8_t sqs_coder_byte(const sqs_coder *c, size_t at)
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

/* Adds one to the number formed by the bytes shifted out so far. */
SQS_INLINE void sqs_coder_carry(sqs_coder *c)
{
    for (size_t i = c->shifts < c->size ? c->shifts : c->size; i-- > 0;)
        if (++c->out[i] != 0)
            return;
}

SQS_INLINE void sqs_coder_put(sqs_coder *c, uint8_t byte)
{
    if (c->shifts < c->size)
        c->out[c->shifts] = byte;
    c->shifts++;
}

/* log2 of the narrowest range: no symbol narrows it by more than
 * 2^-SQS_POWER_UNIT, the least probability of a set's member. */
#define SQS_CODER_NARROWEST (SQS_CODER_LEAST_BITS - SQS_POWER_UNIT)

/* The most bytes shifted at a time. If the buffer has this many left, all are
 * read or written at once: a loop would end unpredictably for a processor. */
#define SQS_CODER_MOST 4u
_Static_assert((SQS_CODER_BITS - SQS_CODER_NARROWEST) / 8 == SQS_CODER_MOST,
               "SQS_CODER_MOST follows from how narrow a range can be");

/* The number of bytes to shift out, to bring a range of at most 2^48 above
 * 2^48. */
SQS_INLINE uint32_t sqs_coder_moves(uint64_t range)
{
    return (SQS_CODER_BITS - 1 - sqs_floor_log2(range - 1)) / 8;
}

SQS_INLINE void sqs_coder_read_on(sqs_coder *c)
{
    uint32_t n = sqs_coder_moves(c->range);
    size_t at = c->shifts + SQS_CODER_BYTES;
    c->range <<= 8 * n;
    c->shifts += n;
    if (c->size >= SQS_CODER_MOST && at <= c->size - SQS_CODER_MOST) {
        const uint8_t *in = c->in + at;
        uint64_t next = (uint32_t)in[0] << 24 | (uint32_t)in[1] << 16 |
                        (uint32_t)in[2] << 8 | in[3];
        c->code = c->code << 8 * n | next >> 8 * (SQS_CODER_MOST - n);
        return;
    }
    for (; n > 0; n--, at++)
        c->code = c->code << 8 | sqs_coder_byte(c, at);
}

SQS_INLINE void sqs_coder_write_on(sqs_coder *c)
{
    uint32_t n = sqs_coder_moves(c->range);
    c->range <<= 8 * n;
    if (c->size >= SQS_CODER_MOST && c->shifts <= c->size - SQS_CODER_MOST) {
        /* Only the first n of four bytes count; the next shift overwrites the
         * others. */
        uint8_t *out = c->out + c->shifts;
        uint32_t next = (uint32_t)(c->low >> (SQS_CODER_LEAST_BITS - 24));
        out[0] = (uint8_t)(next >> 24);
        out[1] = (uint8_t)(next >> 16);
        out[2] = (uint8_t)(next >> 8);
        out[3] = (uint8_t)next;
        c->shifts += n;
    } else {
        for (uint32_t i = 0; i < n; i++)
            sqs_coder_put(c,
                          (uint8_t)(c->low >> (SQS_CODER_LEAST_BITS - 8 * i)));
    }
    c->low = c->low << 8 * n & (((uint64_t)1 << SQS_CODER_BITS) - 1);
}

/* Narrows the interval to the given width, starting at low + start. */
SQS_INLINE void sqs_coder_narrow(sqs_coder *c, uint64_t start, uint64_t range)
{
    const uint64_t mask = ((uint64_t)1 << SQS_CODER_BITS) - 1;
    const uint64_t least = (uint64_t)1 << SQS_CODER_LEAST_BITS;
    c->range = range;
    if (c->mode == SQS_READ) {
        c->code -= start;
        if (range <= least)
            sqs_coder_read_on(c);
        return;
    }
    c->low += start;
    if (c->low > mask) {
        c->low &= mask;
        sqs_coder_carry(c);
    }
    if (range <= least)
        sqs_coder_write_on(c);
}

/* Narrows the interval to a value x of a symbol: `below` is c(x) and `weight`
 * c(x + 1) - c(x), in units. The last value of a symbol also gets the
 * remainder of dividing the range into units. */
static inline void sqs_coder_narrow_to_value(sqs_coder *c, uint64_t unit,
                                             uint64_t below, uint64_t weight,
                                             bool last)
{
    uint64_t start = unit * below;
    sqs_coder_narrow(c, start, last ? c->range - start : unit * weight);
}

/* Whether a symbol can be coded. When reading at the packet's end it can't;
 * this marks the packet as truncated. */
SQS_INLINE bool sqs_coder_going(sqs_coder *c)
{
    if (c->mode == SQS_READ && c->shifts >= c->size)
        c->truncated = true;
    return !c->truncated;
}

/* The chance, out of 256, of a bit that is 0 or 1 equally likely. */
#define SQS_EVEN 128u

/* a or b without a branch: the bits of a packet look random, and every second
 * branch would be mispredicted. */
static inline uint64_t sqs_choose(bool second, uint64_t a, uint64_t b)
{
    return a ^ ((a ^ b) & (0 - (uint64_t)second));
}

/* Codes a bit that is 1 with a chance of 1 .. 255 in 256. */
SQS_INLINE bool sqs_code_bit(sqs_coder *c, uint32_t chance, bool bit)
{
    if (c->mode == SQS_METER) {
        uint32_t own = (uint32_t)sqs_choose(bit, 256 - chance, chance);
        c->cost += 8 * SQS_BIT - sqs_log2_small(own);
        return bit;
    }
    if (!sqs_coder_going(c))
        return false;
    uint64_t zeros = (c->range >> 8) * (256 - chance);
    if (c->mode == SQS_READ)
        bit = c->code >= zeros;
    sqs_coder_narrow(c, sqs_choose(bit, 0, zeros),
                     sqs_choose(bit, zeros, c->range - zeros));
    return bit;
}

/* Codes one of the values 0 .. n - 1, all equally likely; n <= 2^20. */
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
    sqs_coder_narrow_to_value(c, unit, value, 1, value + 1 == n);
    return value;
}

/* Ends a packet and returns its size, which may exceed the writer's room. */
static inline size_t sqs_coder_finish(sqs_coder *c)
{
    uint64_t last = c->low + (((uint64_t)1 << SQS_CODER_LEAST_BITS) - 1);
    if (last >> SQS_CODER_BITS)
        sqs_coder_carry(c);
    sqs_coder_put(c, (uint8_t)(last >> SQS_CODER_LEAST_BITS));
    return c->shifts;
}

/* Checks the end of a packet whose last symbol has been read. Returns SQS_OK,
 * SQS_TRUNCATED, SQS_TRAILING_BYTES, or SQS_PADDING if the last byte isn't the
 * one that sqs_coder_finish writes. */
static inline sqs_status sqs_coder_check_end(const sqs_coder *c)
{
    if (c->truncated || c->size < c->shifts + 1)
        return SQS_TRUNCATED;
    if (c->size > c->shifts + 1)
        return SQS_TRAILING_BYTES;
    return c->code >> SQS_CODER_LEAST_BITS ? SQS_PADDING : SQS_OK;
}

/* The bits that a writer has used, rounded up. */
static inline uint32_t sqs_coder_spent(const sqs_coder *c)
{
    uint64_t narrowed =
        ((uint64_t)SQS_CODER_BITS << SQS_LOG_UNIT) - sqs_log2(c->range);
    return (uint32_t)(8 * c->shifts + (narrowed + SQS_BIT - 1) / SQS_BIT);
}

#endif /* SQS_CODER_H */
