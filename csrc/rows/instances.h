/*
 * instances.h - the loops of template.h for binary16, float, bfloat16 and
 * double. The file that includes this defines the instruction set.
 */

/* The position of the lowest set bit; mask != 0. */
static inline uint32_t sqs_lowest_bit(uint32_t mask)
{
#ifdef __GNUC__
    return (uint32_t)__builtin_ctz(mask);
#else
    uint32_t place = 0;
    while (!(mask >> place & 1))
        place++;
    return place;
#endif
}

/* Maps floats to integers in the same order, and back. */
static inline uint64_t vec_order(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits >> 31 ? ~bits : bits | 1u << 31;
}

static inline float vec_in_order(uint64_t order)
{
    uint32_t bits = (uint32_t)order;
    bits = bits >> 31 ? bits & ~(1u << 31) : ~bits;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The type of sums for rows of float: lanes_type, unless the instruction set
 * has a faster one. */
#ifndef F32_SUMS
#define F32_SUMS(name) lanes_##name
#endif

#include "rows/blocks.h"

#define ROW(name) name##_f16
#define ELEMENT uint16_t
#define VALUE float
#define FILL 0xfc00
#define LOAD(p) vec_load_f16(p)
#define ADD(sums, p) vec_add_to(sums, vec_load_f16(p))
#define SUMS(name) lanes_##name
#define VEC(name) vec_##name
#include "rows/template.h"

#define ROW(name) name##_f32
#define ELEMENT float
#define VALUE float
#define FILL -INFINITY
#define LOAD(p) vec_load(p)
#define ADD(sums, p) F32_SUMS(add_from)(sums, p)
#define SUMS(name) F32_SUMS(name)
#define VEC(name) vec_##name
#include "rows/template.h"

#define ROW(name) name##_bf16
#define ELEMENT uint16_t
#define VALUE float
#define FILL 0xff80
#define LOAD(p) vec_load_bf16(p)
#define ADD(sums, p) vec_add_to(sums, vec_load_bf16(p))
#define SUMS(name) lanes_##name
#define VEC(name) vec_##name
#include "rows/template.h"

#include "rows/wide.h"

#define ROW(name) name##_f64
#define ELEMENT double
#define VALUE double
#define FILL (double)-INFINITY
#define LOAD(p) wide_load(p)
#define ADD(sums, p) wide_add_from(sums, p)
#define SUMS(name) wide_##name
#define VEC(name) wide_##name
#include "rows/template.h"

#define KERNELS(type)                                                         \
    {                                                                         \
        .scan = scan_##type, .sum_exp2 = sum_exp2_##type,                     \
        .weigh = weigh_##type, .sum_values = sum_values_##type,               \
        .sum_blocks = sum_blocks_##type, .select_top = select_top_##type,     \
        .select_from = select_from_##type, .scan_blocks = scan_blocks_##type, \
        .bound_blocks = bound_blocks_##type, .find_from = find_from_##type,   \
        .find_low = first_low, .find_least = first_least                      \
    }

/* By dtype. */
#define ALL_KERNELS                                                           \
    {                                                                         \
        [SQS_F16] = KERNELS(f16), [SQS_F32] = KERNELS(f32),                   \
        [SQS_F64] = KERNELS(f64), [SQS_BF16] = KERNELS(bf16)                  \
    }
