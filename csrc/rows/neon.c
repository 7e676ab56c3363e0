/*
 * neon.c - loops over rows with the Advanced SIMD of AArch64: the operations
 * of scalar.c on four vectors of four lanes.
 */
#include <math.h>
#include <string.h>

#include "rows/kernels.h"

#ifdef SQS_HAS_NEON

#include <arm_neon.h>

#define TARGET

typedef float32x4x4_t vec_type;
typedef uint32x4_t vec_mask;

typedef struct lanes_type {
    float64x2_t of[8];
} lanes_type;

static inline vec_type vec_load(const float *p)
{
    vec_type v;
    for (uint32_t i = 0; i < 4; i++)
        v.val[i] = vld1q_f32(p + 4 * i);
    return v;
}

static inline vec_type vec_load_f16(const uint16_t *p)
{
    vec_type v;
    for (uint32_t i = 0; i < 4; i++)
        v.val[i] = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i)));
    return v;
}

static inline vec_type vec_load_bf16(const uint16_t *p)
{
    vec_type v;
    for (uint32_t i = 0; i < 4; i++)
        v.val[i] = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16));
    return v;
}

static inline void vec_store(float *p, vec_type v)
{
    for (uint32_t i = 0; i < 4; i++)
        vst1q_f32(p + 4 * i, v.val[i]);
}

static inline vec_type vec_set(float x)
{
    vec_type v;
    for (uint32_t i = 0; i < 4; i++)
        v.val[i] = vdupq_n_f32(x);
    return v;
}

static inline vec_type vec_add(vec_type a, vec_type b)
{
    for (uint32_t i = 0; i < 4; i++)
        a.val[i] = vaddq_f32(a.val[i], b.val[i]);
    return a;
}

static inline vec_type vec_minus(vec_type a, vec_type b)
{
    for (uint32_t i = 0; i < 4; i++)
        a.val[i] = vsubq_f32(a.val[i], b.val[i]);
    return a;
}

static inline vec_type vec_multiply(vec_type a, vec_type b)
{
    for (uint32_t i = 0; i < 4; i++)
        a.val[i] = vmulq_f32(a.val[i], b.val[i]);
    return a;
}

static inline vec_type vec_max(vec_type a, vec_type b)
{
    for (uint32_t i = 0; i < 4; i++)
        a.val[i] = vmaxq_f32(a.val[i], b.val[i]);
    return a;
}

static inline vec_type vec_min(vec_type a, vec_type b)
{
    for (uint32_t i = 0; i < 4; i++)
        a.val[i] = vminq_f32(a.val[i], b.val[i]);
    return a;
}

static inline vec_type vec_largest_of(const vec_type v[SQS_LANES])
{
    float largest[SQS_LANES];
    for (uint32_t i = 0; i < SQS_LANES; i++)
        largest[i] =
            vmaxvq_f32(vmaxq_f32(vmaxq_f32(v[i].val[0], v[i].val[1]),
                                 vmaxq_f32(v[i].val[2], v[i].val[3])));
    return vec_load(largest);
}

static inline vec_type vec_add_exponent(vec_type v, vec_type shifted)
{
    for (uint32_t i = 0; i < 4; i++) {
        uint32x4_t more =
            vshlq_n_u32(vreinterpretq_u32_f32(shifted.val[i]), 23);
        v.val[i] = vreinterpretq_f32_u32(
            vaddq_u32(vreinterpretq_u32_f32(v.val[i]), more));
    }
    return v;
}

static inline vec_type vec_zero_below(vec_type v, vec_type t, vec_type floor)
{
    for (uint32_t i = 0; i < 4; i++) {
        uint32x4_t mask = vcgeq_f32(t.val[i], floor.val[i]);
        v.val[i] = vreinterpretq_f32_u32(
            vandq_u32(vreinterpretq_u32_f32(v.val[i]), mask));
    }
    return v;
}

static inline vec_mask vec_true(void)
{
    return vdupq_n_u32(UINT32_MAX);
}

static inline bool vec_all(vec_mask mask)
{
    return vminvq_u32(mask) == UINT32_MAX;
}

static inline vec_mask vec_and_finite(vec_mask mask, vec_type v)
{
    for (uint32_t i = 0; i < 4; i++)
        mask = vandq_u32(mask, vcltq_f32(v.val[i], vdupq_n_f32(INFINITY)));
    return mask;
}

static inline uint32_t vec_mask_from(vec_type v, vec_type bound)
{
    static const uint32_t bits[4] = {1, 2, 4, 8};
    uint32_t mask = 0;
    for (uint32_t i = 0; i < 4; i++) {
        uint32x4_t from = vcgeq_f32(v.val[i], bound.val[i]);
        mask |= vaddvq_u32(vandq_u32(from, vld1q_u32(bits))) << 4 * i;
    }
    return mask;
}

static inline uint32_t vec_count_from(vec_type v, vec_type bound)
{
    uint32x4_t count = vdupq_n_u32(0);
    for (uint32_t i = 0; i < 4; i++)
        count = vsubq_u32(count, vcgeq_f32(v.val[i], bound.val[i]));
    return vaddvq_u32(count);
}

static inline lanes_type lanes_zero(void)
{
    lanes_type sums;
    for (uint32_t i = 0; i < 8; i++)
        sums.of[i] = vdupq_n_f64(0);
    return sums;
}

static inline lanes_type vec_add_to(lanes_type sums, vec_type v)
{
    for (uint32_t i = 0; i < 4; i++) {
        float64x2_t low = vcvt_f64_f32(vget_low_f32(v.val[i]));
        float64x2_t high = vcvt_high_f64_f32(v.val[i]);
        sums.of[2 * i] = vaddq_f64(sums.of[2 * i], low);
        sums.of[2 * i + 1] = vaddq_f64(sums.of[2 * i + 1], high);
    }
    return sums;
}

static inline lanes_type lanes_add_from(lanes_type sums, const float *p)
{
    return vec_add_to(sums, vec_load(p));
}

/* sqs_fold_lanes in registers. */
static inline double lanes_fold(lanes_type sums)
{
    for (uint32_t half = 4; half > 0; half /= 2)
        for (uint32_t i = 0; i < half; i++)
            sums.of[i] = vaddq_f64(sums.of[i], sums.of[i + half]);
    return vgetq_lane_f64(sums.of[0], 0) + vgetq_lane_f64(sums.of[0], 1);
}

#include "rows/exp2.h"
#include "rows/instances.h"

const sqs_kernels sqs_kernels_neon[] = ALL_KERNELS;

#endif /* SQS_HAS_NEON */
