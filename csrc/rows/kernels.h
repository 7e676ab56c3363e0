/*
 * kernels.h - the passes over whole rows, for each instruction set and type of
 * values.
 *
 * Vectors of SQS_LANES values make up a row, and SQS_GROUP_VECTORS of them a
 * group. A scan keeps the maximum of each lane of each group, so that it never
 * has to compare the lanes of a vector with each other:
 *
 *     lane          0     1     2    ...   15
 *     vector 0     x0    x1    x2    ...  x15  \
 *     vector 1    x16   x17   x18    ...  x31   |  group 0: 128 values
 *       ...                                     |
 *     vector 7   x112  x113  x114    ... x127  /
 *                ----  ----  ----        ----
 *     maxima       m0    m1    m2    ...  m15      then those of group 1, ...
 *
 * The last group is filled up with -infinity. A scan reads all values once,
 * and so does a sum of exponentials. After that the maxima tell which groups
 * are worth a second look:
 *
 * Selecting the k largest values. No two maxima are of the same token, so the
 * k-th largest maximum is a lower bound on the k-th largest value. Bisection
 * finds a number that about k maxima reach: it counts them, which takes no
 * branch that could be mispredicted. Few values but those k reach the number,
 * and they lie in at most about k groups. If k is small, bisection has fewer
 * numbers to count: the maxima are first put into SQS_BINS bins, and only the
 * largest of each bin is counted. Bin i has the maxima i, i + SQS_BINS,
 * i + 2 SQS_BINS, ...
 *
 * A race (gumbel.c) has blocks of SQS_RACE values, and each has a word by which
 * its least score is bounded. So their maxima are compared across lanes.
 *
 * template.h has the passes, instances.h makes one of each for every type of
 * values, and scalar.c, avx2.c, avx512.c and neon.c say what they do with a
 * vector. Values come and go as doubles, which hold those of all types
 * exactly.
 */
#ifndef SQS_KERNELS_H
#define SQS_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "rows/philox.h"
#include "rows/softmax.h"
#include "sqs.h"

/* Function attributes and intrinsics as gcc and clang have them. */
#if defined __GNUC__ && defined __x86_64__
#define SQS_HAS_X86
#endif
#if defined __GNUC__ && defined __aarch64__ && !defined __AARCH64EB__
#define SQS_HAS_NEON
#endif

/* Before a loop over lanes. gcc makes vectors of one only if it has not been
 * unrolled, and keeps them in registers only if what is left of it then is: as
 * there are 16 lanes, 8 rounds are few enough to tell the two apart. */
#if defined __GNUC__ && !defined __clang__
#define SQS_VECTORS _Pragma("GCC unroll 8")
#else
#define SQS_VECTORS
#endif

#define SQS_GROUP_VECTORS 8u
#define SQS_GROUP (SQS_GROUP_VECTORS * SQS_LANES)
#define SQS_BINS 512u

/* How many values a block has. The sum of each block is kept, so that a draw
 * walks over the sums of blocks and then over the values of one block. */
#define SQS_BLOCK 256u

/* How many values a block of a race has, and how many blocks n values make,
 * with empty ones that fill up the last vector. */
#define SQS_RACE 64u

static inline uint32_t sqs_races(uint32_t n)
{
    uint32_t most = SQS_RACE * SQS_LANES;
    return (n + most - 1) / most * SQS_LANES;
}

/* What a word says of a block's least number at least: 2^-32 of it / SQS_RACE,
 * less what single precision can lose in a bound: 2e-5 of it by t, of at most
 * 100 with three roundings, and 1e-6 by the others. */
#define SQS_LEAST_OF_WORD (0x1p-38f * 0.9999f)

/* How many maxima a row of n values has. */
static inline uint32_t sqs_maxima(uint32_t n)
{
    return (n + SQS_GROUP - 1) / SQS_GROUP * SQS_LANES;
}

/* A row, and what a scan finds out about it. */
typedef struct sqs_scanned {
    const void *values; /* n of them; read only */
    uint32_t n;
    double lowest; /* values below it are masked */
    void *maxima;  /* written by a scan: sqs_maxima(n) floats or, for SQS_F64,
                      doubles */
    double max;    /* written by a scan: the largest value */
} sqs_scanned;

/* Where selected tokens go, by ascending id. The memory is the caller's. */
typedef struct sqs_selected {
    uint32_t *ids;  /* room for n */
    double *values; /* room for n */
    void *work;     /* room for n + SQS_LANES doubles; of no meaning after */
} sqs_selected;

typedef struct sqs_kernels {
    /* Writes maxima and max; false if there is a NaN or +infinity. */
    bool (*scan)(sqs_scanned *row);

    /* The sum of 2^((x - max) * scale) over a scanned row, in single precision
     * but for the sum, which is by lanes as softmax.h defines it. */
    double (*sum_exp2)(const sqs_scanned *row, float scale);

    /* Writes the same powers of at most SQS_BLOCK values, in whole units, with
     * zeros up to a multiple of SQS_LANES; returns their sum, which is exact.
     */
    double (*weigh)(const sqs_scanned *row, float scale, float *weights);

    /* The sum of n values by lanes. *least becomes the least of them and 0. */
    double (*sum_values)(const void *values, uint32_t n, double *least);

    /* The same for each block of n > 0 values; room for a sum a block. */
    void (*sum_blocks)(const void *values, uint32_t n, double *sums,
                       double *least);

    /* Selects from a scanned row the k largest values that are not masked,
     * ties by lower id, or as many as there are; returns how many. k > 0. */
    uint32_t (*select_top)(const sqs_scanned *row, uint32_t k,
                           const sqs_selected *to);

    /* Selects all values from `bound` on; bound >= row->lowest. */
    uint32_t (*select_from)(const sqs_scanned *row, double bound,
                            const sqs_selected *to);

    /* For races. Writes the maxima of sqs_races(n) blocks, and max; false if
     * there is a NaN or +infinity. */
    bool (*scan_blocks)(sqs_scanned *row);

    /* Writes for each of these blocks a bound below which it has no score, and
     * words, up to a multiple of SQS_WORDS. */
    void (*bound_blocks)(const sqs_scanned *row, float scale,
                         const sqs_numbers *numbers, uint32_t *words,
                         float *lows);

    /* A bit for each of n values, 1 to SQS_RACE, that is at least `bound`. */
    uint64_t (*find_from)(const void *values, uint32_t n, double bound);

    /* The first of n bounds, a multiple of SQS_LANES, from place `from` on
     * that is at most `bound`, and the first of the least; n if none is. */
    uint32_t (*find_low)(const float *lows, uint32_t from, uint32_t n,
                         float bound);
    uint32_t (*find_least)(const float *lows, uint32_t n);
} sqs_kernels;

/* By dtype. */
extern const sqs_kernels sqs_kernels_scalar[4];
#ifdef SQS_HAS_X86
extern const sqs_kernels sqs_kernels_avx2[4];
extern const sqs_kernels sqs_kernels_avx512[4];
#endif
#ifdef SQS_HAS_NEON
extern const sqs_kernels sqs_kernels_neon[4];
#endif

/* Of rows that have been checked. */
const sqs_kernels *sqs_find_kernels(const sqs_rows *rows);

#endif /* SQS_KERNELS_H */
