/*
 * avx512.c - loops over rows with AVX-512 (F, BW, DQ and VL): the operations
 * of scalar.c on one vector of 16 lanes.
 */
#include <math.h>
#include <string.h>

#include "rows/kernels.h"

#ifdef SQS_HAS_X86

#include <immintrin.h>

#define TARGET                                                                \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,popcnt")))

#include "rows/x86.h"

#define F32_SUMS(name) quarters_##name

typedef __m512 vec_type;
typedef __mmask16 vec_mask;

typedef struct lanes_type {
    __m512d low, high;
} lanes_type;

TARGET static inline vec_type vec_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

TARGET static inline vec_type vec_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

TARGET static inline vec_type vec_load_bf16(const uint16_t *p)
{
    __m256i half = _mm256_loadu_si256((const __m256i *)p);
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

TARGET static inline void vec_store(float *p, vec_type v)
{
    _mm512_storeu_ps(p, v);
}

TARGET static inline vec_type vec_set(float x)
{
    return _mm512_set1_ps(x);
}

TARGET static inline vec_type vec_add(vec_type a, vec_type b)
{
    return _mm512_add_ps(a, b);
}

TARGET static inline vec_type vec_minus(vec_type a, vec_type b)
{
    return _mm512_sub_ps(a, b);
}

TARGET static inline vec_type vec_multiply(vec_type a, vec_type b)
{
    return _mm512_mul_ps(a, b);
}

TARGET static inline vec_type vec_max(vec_type a, vec_type b)
{
    return _mm512_max_ps(a, b);
}

TARGET static inline vec_type vec_min(vec_type a, vec_type b)
{
    return _mm512_min_ps(a, b);
}

/* Two quarters with the maxima of a's halves, then two with those of b's. */
TARGET static inline __m512 join_quarters(__m512 a, __m512 b)
{
    return _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x44),
                         _mm512_shuffle_f32x4(a, b, 0xee));
}

TARGET static inline __m512 join_lanes(__m512 a, __m512 b)
{
    return _mm512_max_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}

/* Reduces four vectors to one with four lanes for each, then four of those to
 * one with a lane for each. */
TARGET static inline vec_type vec_largest_of(const vec_type v[SQS_LANES])
{
    __m512 of[4];
    SQS_VECTORS
    for (uint32_t i = 0; i < 4; i++) {
        __m512 p = join_quarters(v[i], v[i + 4]);
        __m512 q = join_quarters(v[i + 8], v[i + 12]);
        of[i] = _mm512_max_ps(_mm512_shuffle_f32x4(p, q, 0x88),
                              _mm512_shuffle_f32x4(p, q, 0xdd));
    }
    return join_lanes(join_lanes(of[0], of[2]), join_lanes(of[1], of[3]));
}

TARGET static inline vec_type vec_add_exponent(vec_type v, vec_type shifted)
{
    __m512i more = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(v), more));
}

TARGET static inline vec_type vec_zero_below(vec_type v, vec_type t,
                                             vec_type floor)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(t, floor, _CMP_GE_OQ), v);
}

TARGET static inline vec_mask vec_true(void)
{
    return 0xffff;
}

TARGET static inline bool vec_all(vec_mask mask)
{
    return mask == 0xffff;
}

TARGET static inline vec_mask vec_and_finite(vec_mask mask, vec_type v)
{
    __mmask16 finite =
        _mm512_cmp_ps_mask(v, _mm512_set1_ps(INFINITY), _CMP_LT_OQ);
    return _kand_mask16(mask, finite);
}

TARGET static inline uint32_t vec_mask_from(vec_type v, vec_type bound)
{
    return _mm512_cmp_ps_mask(v, bound, _CMP_GE_OQ);
}

TARGET static inline uint32_t vec_count_from(vec_type v, vec_type bound)
{
    return (uint32_t)__builtin_popcount(vec_mask_from(v, bound));
}

TARGET static inline lanes_type lanes_zero(void)
{
    lanes_type sums = {_mm512_setzero_pd(), _mm512_setzero_pd()};
    return sums;
}

/* sum + v; see add_quarter of x86.h. */
TARGET static inline __m512d add_half(__m512d sum, __m256 v)
{
    return _mm512_fmadd_pd(_mm512_cvtps_pd(v), _mm512_set1_pd(1), sum);
}

TARGET static inline lanes_type vec_add_to(lanes_type sums, vec_type v)
{
    sums.low = add_half(sums.low, _mm512_castps512_ps256(v));
    sums.high = add_half(sums.high, _mm512_extractf32x8_ps(v, 1));
    return sums;
}

/* sqs_fold_lanes in registers. */
TARGET static inline double lanes_fold(lanes_type sums)
{
    __m512d eight = _mm512_add_pd(sums.low, sums.high);
    __m256d four = _mm256_add_pd(_mm512_castpd512_pd256(eight),
                                 _mm512_extractf64x4_pd(eight, 1));
    __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four),
                             _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

#include "rows/exp2.h"
#include "rows/instances.h"

const sqs_kernels sqs_kernels_avx512[] = ALL_KERNELS;

#endif /* SQS_HAS_X86 */
