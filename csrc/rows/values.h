/*
 * values.h - one value of a row: its type, address and number, and a logit's
 * unnormalized probability.
 */
#ifndef SQS_VALUES_H
#define SQS_VALUES_H

#include <math.h>
#include <stdbool.h>

#include "rows/softmax.h"
#include "sqs.h"

/* All bits if the condition holds, else none. gcc doesn't vectorize ?: here.
 */
static inline uint32_t sqs_bits_if(bool condition)
{
    return 0u - condition;
}

/* binary16 to float, exactly. Moves exponent and mantissa to the places of a
 * float's, and adds 112, the difference of the biases, to the exponent; for
 * infinity and NaN, twice. A subnormal number is an integer times 2^-24, which
 * is a normal float. No intermediate value is subnormal and could be flushed.
 */
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

/* The value at index i; a double holds all types exactly. */
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

/* The address of the value at index i. */
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

/* The unnormalized probability 2^((x - max) * scale) of a logit x. For floats,
 * the difference rounded to double and then to float is the difference in
 * single precision, as 53 >= 2 * 24 + 2 bits. */
static inline double sqs_unnormalized(double x, double max, float scale)
{
    return (double)sqs_exp2_f32((float)(x - max) * scale);
}

#endif /* SQS_VALUES_H */
