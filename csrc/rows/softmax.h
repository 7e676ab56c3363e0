/*
 * softmax.h - exponentials and sums that are the same on every machine.
 *
 * This file uses only +, -, *, / on IEEE floats, each rounded separately, so
 * results are reproducible bit for bit if the compiler doesn't contract
 * a*b + c. libm's exp isn't: its last place differs between systems, which is
 * enough to change a count by one.
 *
 * There are two exponentials. Every token of the vocabulary has an
 * unnormalized probability 2^t in single precision. Their sum, the normalizer,
 * decides thresholds and the dropped mass, where single precision is enough
 * and twice as fast. The few tokens kept have weights in double precision,
 * which decide their counts.
 *
 * Both compute 2^t = 2^n 2^f with n = t rounded to an integer and f in
 * [-1/2, 1/2], and evaluate 2^f with its Taylor polynomial, whose coefficients
 * are (ln 2)^k / k!. The first omitted summand, (ln 2 / 2)^(d+1) / (d+1)!, is
 * 5e-9 for degree 7 and 4e-18 for degree 13: below half a unit in the last
 * place of float and double.
 */
#ifndef SQS_SOFTMAX_H
#define SQS_SOFTMAX_H

#include <float.h>
#include <stdint.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16 /* 16 is about _Float16 */
#error "sqs needs floats evaluated in their own precision (SSE2, not x87)"
#endif
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#elif defined __GNUC__ /* gcc ignores the standard pragma */
#pragma GCC optimize("fp-contract=off")
#endif
#if defined __FAST_MATH__ || defined __ASSOCIATIVE_MATH__ ||                  \
    (defined __FINITE_MATH_ONLY__ && __FINITE_MATH_ONLY__)
#error "sqs needs IEEE arithmetic: compile without -ffast-math"
#endif

#define SQS_LOG2_E 1.4426950408889634 /* 1 / ln 2 */

/* Adding and then subtracting 1.5 * 2^(mantissa bits) rounds numbers below
 * 2^(mantissa bits - 1) to integers, ties to even: the sum has no fraction
 * bits. */
#define SQS_ROUND_F32 12582912.0f
#define SQS_ROUND_F64 6755399441055744.0

/* Below these exponents the result is 0, so that it is never subnormal, as
 * below 2^-126 and 2^-1022. */
#define SQS_MIN_EXPONENT_F32 -100.0f
#define SQS_MIN_EXPONENT_F64 -1000.0

/* The polynomials' coefficients, for Horner's rule: the highest, then the ones
 * that each step adds. */
#define SQS_EXP2_F32_FIRST 1.52527336e-05f
#define SQS_EXP2_F32_REST(STEP)                                               \
    STEP(0.000154035297f)                                                     \
    STEP(0.00133335579f)                                                      \
    STEP(0.00961812865f)                                                      \
    STEP(0.0555041097f)                                                       \
    STEP(0.240226507f)                                                        \
    STEP(0.693147182f)                                                        \
    STEP(1.0f)

#define SQS_EXP2_F64_FIRST 1.3691488853904128e-12
#define SQS_EXP2_F64_REST(STEP)                                               \
    STEP(2.5678435993488206e-11)                                              \
    STEP(4.4455382718708116e-10)                                              \
    STEP(7.054911620801123e-09)                                               \
    STEP(1.01780860092397e-07)                                                \
    STEP(1.321548679014431e-06)                                               \
    STEP(1.5252733804059841e-05)                                              \
    STEP(0.0001540353039338161)                                               \
    STEP(0.0013333558146428443)                                               \
    STEP(0.009618129107628477)                                                \
    STEP(0.05550410866482158)                                                 \
    STEP(0.24022650695910072)                                                 \
    STEP(0.6931471805599453)                                                  \
    STEP(1.0)

#define SQS_STEP(c) p = p * f + c;

/* 2^t for t <= 100 or -infinity, in single precision. */
static inline float sqs_exp2_f32(float t)
{
    if (!(t >= SQS_MIN_EXPONENT_F32))
        return 0.0f;
    float n = (t + SQS_ROUND_F32) - SQS_ROUND_F32;
    float f = t - n;
    float p = SQS_EXP2_F32_FIRST;
    SQS_EXP2_F32_REST(SQS_STEP)
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

/* Integer weights are multiples of 1 / SQS_UNITS of the largest. The weights
 * of 2^20 tokens sum to at most 2^62 units. */
#define SQS_UNITS 0x1p42

/* From here on, floats are at least a unit apart. */
#define SQS_WHOLE 0x1p-19f

/* 2^t for t <= 100 or -infinity, in double precision. */
static inline double sqs_exp2_f64(double t)
{
    if (!(t >= SQS_MIN_EXPONENT_F64))
        return 0.0;
    double n = (t + SQS_ROUND_F64) - SQS_ROUND_F64;
    double f = t - n;
    double p = SQS_EXP2_F64_FIRST;
    SQS_EXP2_F64_REST(SQS_STEP)
    uint64_t bits = (uint64_t)((int64_t)n + 1023) << 52;
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

#undef SQS_STEP

/* Sums run in SQS_LANES lanes: value i is added to lane i mod SQS_LANES. The
 * lanes are then folded, the upper half onto the lower half, until one is
 * left. This order is part of the definition, as another one would round
 * differently. Vector units of any width up to SQS_LANES can follow it. */
#define SQS_LANES 16u

static inline double sqs_fold_lanes(double lanes[SQS_LANES])
{
    for (uint32_t half = SQS_LANES / 2; half > 0; half /= 2)
        for (uint32_t i = 0; i < half; i++)
            lanes[i] += lanes[i + half];
    return lanes[0];
}

static inline double sqs_sum(const double *values, uint32_t n)
{
    double lanes[SQS_LANES] = {0};
    for (uint32_t i = 0; i < n; i++)
        lanes[i % SQS_LANES] += values[i];
    return sqs_fold_lanes(lanes);
}

#endif /* SQS_SOFTMAX_H */
