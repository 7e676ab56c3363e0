/*
 * kernels.h - passes over whole rows, for each instruction set and element type.
 *
 * A row is read once for the maxima of its groups, once more if its terms are
 * to be summed, and otherwise only where it has something to offer. A group is
 * SQS_GROUP consecutive values, seen as vectors of SQS_LANES; it has a maximum
 * for each lane, so that nothing is ever reduced to one number. What is past
 * the end of a row counts as -infinity.
 *
 * The k-th largest of any values that belong to different tokens is a lower
 * bound on the k-th largest of the row: so of the maxima, or for a small k of
 * SQS_BINS groups of maxima. It is found by bisection, counting, which takes
 * no branches that could be mispredicted. About k tokens are above it, and
 * they are among about k groups.
 *
 * template.h has the passes, instances.h their instances, and a file
 * row_*.c for each instruction set what they do with a vector. Values of a row
 * are given and returned as doubles, which hold all types exactly.
 */
#ifndef SQS_ROW_H
#define SQS_ROW_H

#include <stdbool.h>
#include <stdint.h>

#include "rows/softmax.h"
#include "sqs.h"

/* Function attributes and intrinsics as gcc and clang have them. */
#if defined __GNUC__ && defined __x86_64__
#define SQS_HAS_X86
#endif
#if defined __GNUC__ && defined __aarch64__ && !defined __AARCH64EB__
#define SQS_HAS_NEON
#endif

#define SQS_GROUP_VECTORS 8u
#define SQS_GROUP (SQS_GROUP_VECTORS * SQS_LANES)
#define SQS_BINS 512u
/* Blocks are for walking over their sums and then in one of them. */
#define SQS_BLOCK 256u

/* Maxima of a row of n values. */
static inline uint32_t sqs_maxima(uint32_t n)
{
    return (n + SQS_GROUP - 1) / SQS_GROUP * SQS_LANES;
}

/* A row, and what a scan finds out about it. */
typedef struct sqs_scanned {
    const void *values;
    uint32_t n;
    double lowest; /* what is below it is masked */
    void *maxima; /* room for sqs_maxima(n) of float or, for SQS_F64, double */
    double max;   /* the largest of them */
} sqs_scanned;

/* Tokens of a row by ascending id, and their values. */
typedef struct sqs_taken {
    uint32_t *ids;  /* room for n */
    double *values; /* room for n */
    void *work;     /* room for n + SQS_LANES doubles, or floats */
} sqs_taken;

typedef struct sqs_kernels {
    /* Fills in maxima and max; false if there is a NaN or +infinity. */
    bool (*scan)(sqs_scanned *row);

    /* The sum of 2^((x - max) * scale) in single precision, by lanes. */
    double (*sum_terms)(const sqs_scanned *row, float scale);

    /* The sum of n values, by lanes, and the least of them and 0. */
    double (*sum_values)(const void *values, uint32_t n, double *least);

    /* The sums of every SQS_BLOCK of n > 0 values, likewise. */
    void (*sum_blocks)(const void *values, uint32_t n, double *sums,
                       double *least);

    /* Takes the k largest values from row->lowest on, ties by lower id, or as
     * many as there are; returns how many. */
    uint32_t (*take_top)(const sqs_scanned *row, uint32_t k,
                         const sqs_taken *to);

    /* Takes all values from `bound` on. */
    uint32_t (*take_from)(const sqs_scanned *row, double bound,
                          const sqs_taken *to);
} sqs_kernels;

/* By dtype. */
extern const sqs_kernels sqs_kernels_scalar[4];
extern const sqs_kernels sqs_kernels_avx2[4];
extern const sqs_kernels sqs_kernels_avx512[4];
extern const sqs_kernels sqs_kernels_neon[4];

/* `isa` is one that sqs_check_codec accepts. */
const sqs_kernels *sqs_find_kernels(sqs_isa isa, sqs_dtype dtype);

#endif /* SQS_ROW_H */
