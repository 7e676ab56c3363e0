/*
 * fixed.h - logarithms and powers of two in integers, the same everywhere.
 *
 * docs/format.md calls the two functions λ and E. Both interpolate linearly
 * between the knots of a table. Their errors are at most 2^-22 and 2^-19 and
 * cost no measurable bits. What matters is that both ends compute the same and
 * that the functions are monotone.
 */
#ifndef SQS_FIXED_H
#define SQS_FIXED_H

#include <stdint.h>

#include "bits.h"
#include "entropy/model.h"

/* For functions that must be inlined, because their callers pass constants
 * that remove most of their code. */
#ifdef __GNUC__
#define SQS_INLINE static inline __attribute__((always_inline))
#else
#define SQS_INLINE static inline
#endif

/* The logarithm 1, which is one bit, in units of 2^-32. */
#define SQS_BIT ((uint64_t)1 << SQS_LOG_UNIT)

/* The power 1, in units of 2^-31, so that the product of two powers fits 62
 * bits. */
#define SQS_ONE ((uint64_t)1 << SQS_POWER_UNIT)
_Static_assert(SQS_LOG_KNOTS == 1u << SQS_LOG_KNOT_BITS &&
                   SQS_POWER_KNOTS == 1u << SQS_POWER_KNOT_BITS,
               "tables have a value for each knot, and one for the end");
_Static_assert(SQS_LOG_UNIT == 32,
               "the fraction of a logarithm is a uint32_t");

/* log2(x) for 0 < x < 2^63. */
static inline uint64_t sqs_log2(uint64_t x)
{
    const uint32_t step_bits = SQS_LOG_UNIT - SQS_LOG_KNOT_BITS;
    uint32_t whole = sqs_floor_log2(x);
    uint32_t fraction = (uint32_t)(x << (63 - whole) >> (63 - SQS_LOG_UNIT));
    const uint64_t *knot = &sqs_log2_table[fraction >> step_bits];
    uint64_t past = fraction & ((1u << step_bits) - 1);
    return ((uint64_t)whole << SQS_LOG_UNIT) + knot[0] +
           ((knot[1] - knot[0]) * past >> step_bits);
}

/* The same for 0 < x < 2 * 2^SQS_LOG_KNOT_BITS, which are all at knots. */
static inline uint64_t sqs_log2_small(uint32_t x)
{
    uint32_t whole = sqs_floor_log2(x);
    uint32_t fraction =
        x << (SQS_LOG_KNOT_BITS - whole) & ((1u << SQS_LOG_KNOT_BITS) - 1);
    return ((uint64_t)whole << SQS_LOG_UNIT) + sqs_log2_table[fraction];
}

/* 2^-t. */
static inline uint64_t sqs_exp2(uint64_t t)
{
    const uint32_t step_bits = SQS_LOG_UNIT - SQS_POWER_KNOT_BITS;
    uint64_t whole = t >> SQS_LOG_UNIT;
    if (whole > SQS_POWER_UNIT)
        return 0;
    uint32_t fraction = (uint32_t)t;
    const uint32_t *knot = &sqs_exp2_table[fraction >> step_bits];
    uint64_t past = fraction & ((1u << step_bits) - 1);
    return (knot[0] - ((knot[0] - knot[1]) * past >> step_bits)) >> whole;
}

#endif /* SQS_FIXED_H */
