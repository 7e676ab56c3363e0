/*
 * kernels.h - the loops over whole rows, for each instruction set and type of
 * values.
 *
 * A row is divided into vectors of SQS_LANES values, and groups of
 * SQS_GROUP_VECTORS vectors. A scan keeps the maximum of each lane of each
 * group, so that it never compares the lanes of a vector with each other:
 *
 *     lane          0     1     2    ...   15
 *     vector 0     x0    x1    x2    ...  x15  \
 *     vector 1    x16   x17   x18    ...  x31   |  group 0: 128 values
 *       ...                                     |
 *     vector 7   x112  x113  x114    ... x127  /
 *                ----  ----  ----        ----
 *     maxima       m0    m1    m2    ...  m15      then those of group 1, ...
 *
 * The last group is padded with -infinity. A scan reads all values once, and
 * so does a sum of exponentials. Then the maxima show which groups to read
 * again:
 *
 * Selecting the k largest values. No two maxima are of the same token, so the
 * k-th largest maximum is a lower bound on the k-th largest value. Bisection
 * finds a number that about k maxima reach, by counting, which needs no
 * branches that could be mispredicted. Few other values reach this number, and
 * all that do lie in about k groups or fewer. For small k, bisection counts
 * fewer numbers: only the largest maximum in each of SQS_BINS bins. Bin i has
 * the maxima i, i + SQS_BINS, i + 2 SQS_BINS, ...
 *
 * A race (gumbel.c) has blocks of SQS_RACE values. A random word per block
 * bounds its least score, so maxima of blocks are compared across lanes.
 *
 * template.h has the loops, and instances.h instantiates them for every type
 * of values. scalar.c, avx2.c, avx512.c and neon.c define the operations on
 * vectors. Values are passed as doubles, which hold all types exactly.
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

/* Put this before a loop over lanes. gcc vectorizes a loop only if it isn't
 * unrolled yet, and keeps vectors in registers only if the vectorized loop is
 * unrolled. With 16 lanes, a limit of 8 rounds does both. */
#if defined __GNUC__ && !defined __clang__
#define SQS_VECTORS _Pragma("GCC unroll 8")
#else
#define SQS_VECTORS
#endif

#define SQS_GROUP_VECTORS 8u
#define SQS_GROUP (SQS_GROUP_VECTORS * SQS_LANES)
#define SQS_BINS 512u

/* Values per block. The sum of each block is kept, so that sampling walks over
 * the sums of blocks and then over the values of one block. */
#define SQS_BLOCK 256u

/* Values per block of a race. */
#define SQS_RACE 64u

/* The number of a race's blocks for n values, padded to whole vectors. */
static inline uint32_t sqs_races(uint32_t n)
{
    uint32_t most = SQS_RACE * SQS_LANES;
    return (n + most - 1) / most * SQS_LANES;
}

/* Times a random word, a lower bound on a block's least number: 2^-32 /
 * SQS_RACE, with a margin for single precision. The relative error is 2e-5
 * from t, which is at most 100 and rounded three times, and 1e-6 from the
 * other operations. */
#define SQS_LEAST_OF_WORD (0x1p-38f * 0.9999f)

/* The number of maxima of a row of n values. */
static inline uint32_t sqs_maxima(uint32_t n)
{
    return (n + SQS_GROUP - 1) / SQS_GROUP * SQS_LANES;
}

/* A row, and the results of scanning it. */
typedef struct sqs_scanned {
    const void *values; /* n of them; read only */
    uint32_t n;
    double lowest; /* lower values are masked */
    void *maxima;  /* written by a scan: sqs_maxima(n) floats or, for SQS_F64,
                      doubles */
    double max;    /* written by a scan: the largest value */
} sqs_scanned;

/* Where selected tokens are written, by ascending id, in the caller's memory.
 */
typedef struct sqs_selected {
    uint32_t *ids;  /* room for n */
    double *values; /* room for n */
    void *work;     /* scratch for n + SQS_LANES doubles */
} sqs_selected;

typedef struct sqs_kernels {
    /* Writes maxima and max; false if there is a NaN or +infinity. */
    bool (*scan)(sqs_scanned *row);

    /* The sum of 2^((x - max) * scale) over a scanned row. Powers are in
     * single precision, and the sum has the order that softmax.h defines. */
    double (*sum_exp2)(const sqs_scanned *row, float scale);

    /* Writes the same powers of at most SQS_BLOCK values, in whole units and
     * padded with zeros to a multiple of SQS_LANES; returns their exact sum.
     */
    double (*weigh)(const sqs_scanned *row, float scale, float *weights);

    /* The sum of n values by lanes. *least becomes the least of them and 0. */
    double (*sum_values)(const void *values, uint32_t n, double *least);

    /* Writes such a sum for each block of n > 0 values. */
    void (*sum_blocks)(const void *values, uint32_t n, double *sums,
                       double *least);

    /* Selects the k > 0 largest values of a scanned row that aren't masked, or
     * all if there are fewer; ties go to the lower id. Returns how many. */
    uint32_t (*select_top)(const sqs_scanned *row, uint32_t k,
                           const sqs_selected *to);

    /* Selects all values from `bound` on; bound >= row->lowest. Returns how
     * many. */
    uint32_t (*select_from)(const sqs_scanned *row, double bound,
                            const sqs_selected *to);

    /* For races. Writes the maxima of sqs_races(n) blocks, and max; false if
     * there is a NaN or +infinity. */
    bool (*scan_blocks)(sqs_scanned *row);

    /* For races. Writes each block's random word, up to a multiple of
     * SQS_WORDS, and a lower bound on its scores. */
    void (*bound_blocks)(const sqs_scanned *row, float scale,
                         const sqs_numbers *numbers, uint32_t *words,
                         float *lows);

    /* A mask of those of n values, 1 to SQS_RACE, that are at least `bound`.
     */
    uint64_t (*find_from)(const void *values, uint32_t n, double bound);

    /* The first block from `from` on whose low is at most `bound`, or n if
     * there is none. n is a multiple of SQS_LANES, here and below. */
    uint32_t (*find_low)(const float *lows, uint32_t from, uint32_t n,
                         float bound);

    /* The first block with the least low. */
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

/* The kernels for rows that have been checked. */
const sqs_kernels *sqs_find_kernels(const sqs_rows *rows);

#endif /* SQS_KERNELS_H */
