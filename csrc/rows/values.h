/*
 * values.h - one value of a row: its type, its place, the number that it is,
 * and what it weighs if it is a logit.
 */
#ifndef SQS_VALUES_H
#define SQS_VALUES_H

#include <math.h>
#include <stdbool.h>

#include "rows/softmax.h"
#include "sqs.h"

/* All bits set if the condition holds: gcc makes no vectors of a choice. */
static inline uint32_t sqs_bits_if(bool condition)
{
    return 0u - condition;
}

/* binary16 to float, exactly. The bits of exponent and mantissa are moved to
 * where a float has its own, and 112 is added to the exponent, as the biases
 * differ by that; for infinity and NaN, twice. A subnormal number is an
 * integer times 2^-24: it becomes a normal float, with no subnormal one on the
 * way, which might be flushed. */
static inline float sqs_widen_f16(uint16_t half)
{
    const uint32_t bias = 112u << 23;
    uint32_t magnitude = half & 0x7fff, bits = (magnitude << 13) + bias, small;
    float value = (float)(int32_t)magnitude * 0x1p-24f;
    memcpy(&small, &value, sizeof small);
    bits += sqs_bits_if(magnitude >= 0x7c00) & bias;
    bits ^= sqs_bits_if(magnitude < 0x0400) & (bits ^ small);
    bits |= (uint32_t)(half & 0x8000) << 16;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float sqs_widen_bf16(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Value i of those at `values`; a double holds those of all types exactly. */
static inline double sqs_value(const void *values, uint32_t dtype, uint32_t i)
{
    switch (dtype) {
    case SQS_F16:
        return (double)sqs_widen_f16(((const uint16_t *)values)[i]);
    case SQS_BF16:
        return (double)sqs_widen_bf16(((const uint16_t *)values)[i]);
    case SQS_F32:
        return (double)((const float *)values)[i];
    default:
        return ((const double *)values)[i];
    }
}

/* The address of value i of those at `values`. */
static inline const void *sqs_value_at(const void *values, uint32_t dtype,
                                       size_t i)
{
    static const size_t sizes[] = {
        [SQS_F16] = 2, [SQS_F32] = 4, [SQS_F64] = 8, [SQS_BF16] = 2};
    return (const char *)values + i * sizes[dtype];
}

static inline sqs_status sqs_check_rows(const sqs_rows *rows,
                                        double temperature)
{
    if (!(temperature >= 0 && temperature < INFINITY))
        return SQS_BAD_TEMPERATURE;
    if (rows->width < SQS_MIN_VOCAB || rows->width > SQS_MAX_VOCAB ||
        rows->isa > SQS_NEON)
        return SQS_BAD_ARGUMENT;
    switch (rows->dtype) {
    case SQS_F16:
    case SQS_F32:
    case SQS_F64:
    case SQS_BF16:
        return SQS_OK;
    }
    return SQS_BAD_DTYPE;
}

/* log2(e) / temperature as a float, kept finite so that 0 * scale is 0. */
static inline float sqs_exponent_scale(double temperature)
{
    double scale = SQS_LOG2_E / temperature;
    return scale > FLT_MAX ? FLT_MAX : (float)scale;
}

/* The unnormalised probability 2^((x - max) * scale) of a logit x. Where
 * values are floats, their difference rounded to double and then to float is
 * the difference in single precision: rounding twice is rounding once, as
 * 53 >= 2 * 24 + 2 bits. */
static inline double sqs_unnormalised(double x, double max, float scale)
{
    return (double)sqs_exp2_f32((float)(x - max) * scale);
}

#endif /* SQS_VALUES_H */
