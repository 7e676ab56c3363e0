/*
 * avx2.c - loops over rows with AVX2, FMA and F16C: the operations of scalar.c
 * on two vectors of eight lanes.
 */
#include <math.h>
#include <string.h>

#include "rows/kernels.h"

#ifdef SQS_HAS_X86

#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma,f16c,popcnt,bmi")))

#include "rows/x86.h"

typedef quarters_type lanes_type;
#define lanes_zero quarters_zero
#define lanes_fold quarters_fold
#define F32_SUMS(name) quarters_##name

typedef struct vec_type {
    __m256 low, high;
} vec_type;

typedef __m256 vec_mask;

TARGET static inline vec_type vec_pair(__m256 low, __m256 high)
{
    vec_type v = {low, high};
    return v;
}

TARGET static inline vec_type vec_load(const float *p)
{
    return vec_pair(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8));
}

TARGET static inline __m128i load_halves(const uint16_t *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}

TARGET static inline vec_type vec_load_f16(const uint16_t *p)
{
    return vec_pair(_mm256_cvtph_ps(load_halves(p)),
                    _mm256_cvtph_ps(load_halves(p + 8)));
}

TARGET static inline __m256 widen_bf16(__m128i halves)
{
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

TARGET static inline vec_type vec_load_bf16(const uint16_t *p)
{
    return vec_pair(widen_bf16(load_halves(p)),
                    widen_bf16(load_halves(p + 8)));
}

TARGET static inline void vec_store(float *p, vec_type v)
{
    _mm256_storeu_ps(p, v.low);
    _mm256_storeu_ps(p + 8, v.high);
}

TARGET static inline vec_type vec_set(float x)
{
    return vec_pair(_mm256_set1_ps(x), _mm256_set1_ps(x));
}

TARGET static inline vec_type vec_add(vec_type a, vec_type b)
{
    return vec_pair(_mm256_add_ps(a.low, b.low),
                    _mm256_add_ps(a.high, b.high));
}

TARGET static inline vec_type vec_minus(vec_type a, vec_type b)
{
    return vec_pair(_mm256_sub_ps(a.low, b.low),
                    _mm256_sub_ps(a.high, b.high));
}

TARGET static inline vec_type vec_multiply(vec_type a, vec_type b)
{
    return vec_pair(_mm256_mul_ps(a.low, b.low),
                    _mm256_mul_ps(a.high, b.high));
}

TARGET static inline vec_type vec_max(vec_type a, vec_type b)
{
    return vec_pair(_mm256_max_ps(a.low, b.low),
                    _mm256_max_ps(a.high, b.high));
}

TARGET static inline vec_type vec_min(vec_type a, vec_type b)
{
    return vec_pair(_mm256_min_ps(a.low, b.low),
                    _mm256_min_ps(a.high, b.high));
}

TARGET static inline __m256 join_lanes(__m256 a, __m256 b)
{
    return _mm256_max_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
}

/* Lane i becomes the largest lane of vector i. */
TARGET static inline __m256 largest_of(const vec_type v[8])
{
    __m256 half[8], of[4];
    SQS_VECTORS
    for (uint32_t i = 0; i < 8; i++)
        half[i] = _mm256_max_ps(v[i].low, v[i].high);
    SQS_VECTORS
    for (uint32_t i = 0; i < 4; i++)
        of[i] =
            _mm256_max_ps(_mm256_permute2f128_ps(half[i], half[i + 4], 0x20),
                          _mm256_permute2f128_ps(half[i], half[i + 4], 0x31));
    return join_lanes(join_lanes(of[0], of[2]), join_lanes(of[1], of[3]));
}

TARGET static inline vec_type vec_largest_of(const vec_type v[SQS_LANES])
{
    return vec_pair(largest_of(v), largest_of(v + 8));
}

TARGET static inline __m256 add_exponent(__m256 v, __m256 shifted)
{
    __m256i more = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), more));
}

TARGET static inline vec_type vec_add_exponent(vec_type v, vec_type shifted)
{
    return vec_pair(add_exponent(v.low, shifted.low),
                    add_exponent(v.high, shifted.high));
}

TARGET static inline vec_type vec_zero_below(vec_type v, vec_type t,
                                             vec_type floor)
{
    __m256 low = _mm256_cmp_ps(t.low, floor.low, _CMP_GE_OQ);
    __m256 high = _mm256_cmp_ps(t.high, floor.high, _CMP_GE_OQ);
    return vec_pair(_mm256_and_ps(v.low, low), _mm256_and_ps(v.high, high));
}

TARGET static inline vec_mask vec_true(void)
{
    return _mm256_castsi256_ps(_mm256_set1_epi32(-1));
}

TARGET static inline bool vec_all(vec_mask mask)
{
    return _mm256_movemask_ps(mask) == 0xff;
}

TARGET static inline vec_mask vec_and_finite(vec_mask mask, vec_type v)
{
    __m256 infinity = _mm256_set1_ps(INFINITY);
    __m256 low = _mm256_cmp_ps(v.low, infinity, _CMP_LT_OQ);
    __m256 high = _mm256_cmp_ps(v.high, infinity, _CMP_LT_OQ);
    return _mm256_and_ps(mask, _mm256_and_ps(low, high));
}

TARGET static inline uint32_t vec_mask_from(vec_type v, vec_type bound)
{
    __m256 low = _mm256_cmp_ps(v.low, bound.low, _CMP_GE_OQ);
    __m256 high = _mm256_cmp_ps(v.high, bound.high, _CMP_GE_OQ);
    return (uint32_t)_mm256_movemask_ps(low) |
           (uint32_t)_mm256_movemask_ps(high) << 8;
}

TARGET static inline uint32_t vec_count_from(vec_type v, vec_type bound)
{
    return (uint32_t)__builtin_popcount(vec_mask_from(v, bound));
}

TARGET static inline quarters_type vec_add_to(quarters_type sums, vec_type v)
{
    sums.of[0] = add_quarter(sums.of[0], _mm256_castps256_ps128(v.low));
    sums.of[1] = add_quarter(sums.of[1], _mm256_extractf128_ps(v.low, 1));
    sums.of[2] = add_quarter(sums.of[2], _mm256_castps256_ps128(v.high));
    sums.of[3] = add_quarter(sums.of[3], _mm256_extractf128_ps(v.high, 1));
    return sums;
}

#include "rows/exp2.h"
#include "rows/instances.h"

const sqs_kernels sqs_kernels_avx2[] = ALL_KERNELS;

#endif /* SQS_HAS_X86 */
