/*
 * x86.h - sums by lanes, in double precision, in vectors of 256 bits.
 *
 * AVX-512 also uses these for floats in memory: converting eight floats at
 * once takes longer than converting four twice.
 */

typedef struct quarters_type {
    __m256d of[4];
} quarters_type;

TARGET static inline quarters_type quarters_zero(void)
{
    __m256d zero = _mm256_setzero_pd();
    quarters_type sums = {{zero, zero, zero, zero}};
    return sums;
}

/* sum + v as a fused sum + v * 1, which rounds the same. On AMD's processors
 * conversions occupy the adders, while multipliers are free. */
TARGET static inline __m256d add_quarter(__m256d sum, __m128 v)
{
    return _mm256_fmadd_pd(_mm256_cvtps_pd(v), _mm256_set1_pd(1), sum);
}

TARGET static inline quarters_type quarters_add_from(quarters_type sums,
                                                     const float *p)
{
    sums.of[0] = add_quarter(sums.of[0], _mm_loadu_ps(p));
    sums.of[1] = add_quarter(sums.of[1], _mm_loadu_ps(p + 4));
    sums.of[2] = add_quarter(sums.of[2], _mm_loadu_ps(p + 8));
    sums.of[3] = add_quarter(sums.of[3], _mm_loadu_ps(p + 12));
    return sums;
}

/* sqs_fold_lanes in registers. */
TARGET static inline double quarters_fold(quarters_type sums)
{
    __m256d four = _mm256_add_pd(_mm256_add_pd(sums.of[0], sums.of[2]),
                                 _mm256_add_pd(sums.of[1], sums.of[3]));
    __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four),
                             _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}
