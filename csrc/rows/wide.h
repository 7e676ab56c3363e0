/*
 * wide.h - vectors of double, for rows of SQS_F64.
 *
 * Such rows are rare, so all instruction sets share these loops, which
 * compilers can vectorize. Each operation does what its namesake of scalar.c
 * does.
 */

typedef struct wide_type {
    double of[SQS_LANES];
} wide_type;

typedef bool wide_mask;

TARGET static inline wide_type wide_load(const double *p)
{
    wide_type v;
    memcpy(v.of, p, sizeof v.of);
    return v;
}

TARGET static inline void wide_store(double *p, wide_type v)
{
    memcpy(p, v.of, sizeof v.of);
}

TARGET static inline wide_type wide_set(double x)
{
    wide_type v;
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        v.of[i] = x;
    return v;
}

/* Rounds the difference to float. */
TARGET static inline vec_type wide_minus(wide_type a, wide_type b)
{
    float difference[SQS_LANES];
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        difference[i] = (float)(a.of[i] - b.of[i]);
    return vec_load(difference);
}

TARGET static inline wide_type wide_max(wide_type a, wide_type b)
{
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        a.of[i] = a.of[i] > b.of[i] ? a.of[i] : b.of[i];
    return a;
}

TARGET static inline wide_type wide_min(wide_type a, wide_type b)
{
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        a.of[i] = a.of[i] < b.of[i] ? a.of[i] : b.of[i];
    return a;
}

TARGET static inline wide_type wide_largest_of(const wide_type v[SQS_LANES])
{
    wide_type largest;
    for (uint32_t i = 0; i < SQS_LANES; i++) {
        double best = v[i].of[0];
        for (uint32_t j = 1; j < SQS_LANES; j++)
            best = v[i].of[j] > best ? v[i].of[j] : best;
        largest.of[i] = best;
    }
    return largest;
}

TARGET static inline wide_mask wide_true(void)
{
    return true;
}

TARGET static inline bool wide_all(wide_mask mask)
{
    return mask;
}

TARGET static inline wide_mask wide_and_finite(wide_mask mask, wide_type v)
{
    uint32_t finite = 0;
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        finite += v.of[i] < (double)INFINITY;
    return mask & (finite == SQS_LANES);
}

TARGET static inline uint32_t wide_mask_from(wide_type v, wide_type bound)
{
    uint32_t mask = 0;
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        mask |= (uint32_t)(v.of[i] >= bound.of[i]) << i;
    return mask;
}

TARGET static inline uint32_t wide_count_from(wide_type v, wide_type bound)
{
    uint32_t count = 0;
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        count += v.of[i] >= bound.of[i];
    return count;
}

TARGET static inline wide_type wide_zero(void)
{
    return wide_set(0);
}

TARGET static inline wide_type wide_add_from(wide_type sums, const double *p)
{
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        sums.of[i] += p[i];
    return sums;
}

TARGET static inline double wide_fold(wide_type sums)
{
    return sqs_fold_lanes(sums.of);
}

static inline uint64_t wide_order(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits >> 63 ? ~bits : bits | (uint64_t)1 << 63;
}

static inline double wide_in_order(uint64_t order)
{
    order = order >> 63 ? order & ~((uint64_t)1 << 63) : ~order;
    double value;
    memcpy(&value, &order, sizeof value);
    return value;
}
