/*
 * scalar.c - loops over rows in plain C.
 *
 * This file defines what each operation on a vector does. The other
 * instruction sets do the same to several lanes at a time.
 *
 *     vec_type    SQS_LANES floats
 *     lanes_type  SQS_LANES doubles: sums
 *     vec_mask    whether all lanes tested so far have passed
 */
#include <math.h>
#include <string.h>

#include "rows/kernels.h"

/* On 32-bit ARM, vectors flush subnormals and scalars don't. clang would use
 * both for the same loop, so that one part misses values that the other finds.
 * gcc never vectorizes floats there. */
#if defined __clang__ && defined __arm__
#pragma clang attribute push(__attribute__((target("no-neon"))),              \
                             apply_to = function)
#endif

#include "rows/values.h"

#define TARGET

typedef struct vec_type {
    float of[SQS_LANES];
} vec_type;

typedef struct lanes_type {
    double of[SQS_LANES];
} lanes_type;

typedef bool vec_mask;

static inline vec_type vec_load(const float *p)
{
    vec_type v;
    memcpy(v.of, p, sizeof v.of);
    return v;
}

static inline vec_type vec_load_f16(const uint16_t *p)
{
    vec_type v;
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        v.of[i] = sqs_widen_f16(p[i]);
    return v;
}

static inline vec_type vec_load_bf16(const uint16_t *p)
{
    vec_type v;
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        v.of[i] = sqs_widen_bf16(p[i]);
    return v;
}

static inline void vec_store(float *p, vec_type v)
{
    memcpy(p, v.of, sizeof v.of);
}

static inline vec_type vec_set(float x)
{
    vec_type v;
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        v.of[i] = x;
    return v;
}

static inline vec_type vec_minus(vec_type a, vec_type b)
{
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        a.of[i] -= b.of[i];
    return a;
}

static inline vec_type vec_multiply(vec_type a, vec_type b)
{
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        a.of[i] *= b.of[i];
    return a;
}

static inline vec_type vec_max(vec_type a, vec_type b)
{
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        a.of[i] = a.of[i] > b.of[i] ? a.of[i] : b.of[i];
    return a;
}

static inline vec_type vec_min(vec_type a, vec_type b)
{
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        a.of[i] = a.of[i] < b.of[i] ? a.of[i] : b.of[i];
    return a;
}

/* Lane i becomes the largest lane of vector i. */
static inline vec_type vec_largest_of(const vec_type v[SQS_LANES])
{
    vec_type largest;
    for (uint32_t i = 0; i < SQS_LANES; i++) {
        vec_type w = v[i];
        for (uint32_t half = SQS_LANES / 2; half > 0; half /= 2)
            for (uint32_t j = 0; j < half; j++)
                w.of[j] = w.of[j] > w.of[j + half] ? w.of[j] : w.of[j + half];
        largest.of[i] = w.of[0];
    }
    return largest;
}

/* sqs_exp2_f32 of each lane, as in exp2.h: loops without branches, which
 * compilers can vectorize. */
static inline vec_type vec_exp2(vec_type t)
{
    vec_type shifted, v;
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++) {
        shifted.of[i] = t.of[i] + SQS_ROUND_F32;
        float f = t.of[i] - (shifted.of[i] - SQS_ROUND_F32);
        float p = SQS_EXP2_F32_FIRST;
#define STEP(c) p = p * f + c;
        SQS_EXP2_F32_REST(STEP)
#undef STEP
        v.of[i] = p;
    }
    uint32_t bits[SQS_LANES], more[SQS_LANES];
    memcpy(bits, v.of, sizeof bits);
    memcpy(more, shifted.of, sizeof more);
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        bits[i] += more[i] << 23;
    memcpy(v.of, bits, sizeof bits);
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        v.of[i] = t.of[i] >= SQS_MIN_EXPONENT_F32 ? v.of[i] : 0.0f;
    return v;
}

/* The mask before any test. */
static inline vec_mask vec_true(void)
{
    return true;
}

static inline bool vec_all(vec_mask mask)
{
    return mask;
}

/* Also tests that no lane is NaN or +infinity. */
static inline vec_mask vec_and_finite(vec_mask mask, vec_type v)
{
    uint32_t finite = 0;
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        finite += v.of[i] < INFINITY;
    return mask & (finite == SQS_LANES);
}

/* Bit i is set if lane i is at least lane i of `bound`. */
static inline uint32_t vec_mask_from(vec_type v, vec_type bound)
{
    uint32_t mask = 0;
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        mask |= (uint32_t)(v.of[i] >= bound.of[i]) << i;
    return mask;
}

/* The number of bits in vec_mask_from. */
static inline uint32_t vec_count_from(vec_type v, vec_type bound)
{
    uint32_t count = 0;
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        count += v.of[i] >= bound.of[i];
    return count;
}

/* Sums by lanes. */

static inline lanes_type lanes_zero(void)
{
    lanes_type sums;
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        sums.of[i] = 0;
    return sums;
}

static inline lanes_type vec_add_to(lanes_type sums, vec_type v)
{
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        sums.of[i] += (double)v.of[i];
    return sums;
}

static inline lanes_type lanes_add_from(lanes_type sums, const float *p)
{
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        sums.of[i] += (double)p[i];
    return sums;
}

static inline double lanes_fold(lanes_type sums)
{
    return sqs_fold_lanes(sums.of);
}

#include "rows/instances.h"

const sqs_kernels sqs_kernels_scalar[] = ALL_KERNELS;

#if defined __clang__ && defined __arm__
#pragma clang attribute pop
#endif
