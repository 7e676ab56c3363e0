/*
 * verify.c - which of a round's tokens stand, and which one follows.
 *
 * Every target row is read to be checked and summed: by blocks, whose sums
 * are kept. A token is then drawn by walking over sums of blocks, and over the
 * values of one block alone. A residual differs from its row at the tokens of
 * a support, so only the blocks that hold one are summed anew.
 */
#include <math.h>
#include <stdbool.h>

#include "rows/kernels.h"
#include "rows/softmax.h"

/* The distribution of a drafted token. */
typedef struct draft {
    const uint32_t *ids;
    const uint32_t *counts;
    uint32_t n;
    double resolution;
} draft;

/* A target row, its values by index, and the sums of its blocks. */
typedef struct target_row {
    const sqs_kernels *kernels;
    const float *f32;  /* one of these two, */
    const double *f64; /* the other is null */
    uint32_t n;
    double *sums;
    double total;
} target_row;

static uint32_t blocks(uint32_t n)
{
    return (n + SQS_BLOCK - 1) / SQS_BLOCK;
}

size_t sqs_verify_scratch(const sqs_codec *codec, uint32_t length)
{
    return ((size_t)length + 1) * blocks(codec->vocab_size) * sizeof(double);
}

static double value(const target_row *row, uint32_t i)
{
    return row->f32 ? (double)row->f32[i] : row->f64[i];
}

/* The first value past the end of a block. */
static uint32_t block_end(const target_row *row, uint32_t block)
{
    uint32_t left = row->n - block * SQS_BLOCK;
    return block * SQS_BLOCK + (left < SQS_BLOCK ? left : SQS_BLOCK);
}

static bool all_finite(const target_row *row)
{
    for (uint32_t i = 0; i < row->n; i++)
        if (!isfinite(value(row, i)))
            return false;
    return true;
}

static sqs_status check_row(target_row *row)
{
    double least;
    row->kernels->sum_blocks(row->f32 ? (const void *)row->f32
                                      : (const void *)row->f64,
                             row->n, row->sums, &least);
    row->total = sqs_sum(row->sums, blocks(row->n));
    if (!isfinite(row->total) && !all_finite(row))
        return SQS_NOT_FINITE;
    if (least < 0)
        return SQS_NEGATIVE;
    return fabs(row->total - 1) <= SQS_SUM_TOLERANCE ? SQS_OK : SQS_SUM;
}

static bool stands(const target_row *row, const draft *q, uint32_t position,
                   double draw)
{
    double p = value(row, q->ids[position]);
    return draw * q->counts[position] * row->total < p * q->resolution;
}

/* What is left for a token of the row, when `at` is the place of the first in
 * the support that isn't below it. */
static double residual(const target_row *row, const draft *q, uint32_t at,
                       uint32_t i)
{
    double p = value(row, i);
    if (at == q->n || q->ids[at] != i)
        return p;
    double rest = p - q->counts[at] / q->resolution * row->total;
    return rest > 0 ? rest : 0;
}

/* Sums the blocks that hold tokens of the support by what is left of them. */
static void sum_residuals(target_row *row, const draft *q)
{
    for (uint32_t at = 0; at < q->n;) {
        uint32_t block = q->ids[at] / SQS_BLOCK, end = block_end(row, block);
        double lanes[SQS_LANES] = {0};
        for (uint32_t i = block * SQS_BLOCK; i < end; i++) {
            lanes[i % SQS_LANES] += residual(row, q, at, i);
            at += at < q->n && q->ids[at] == i;
        }
        row->sums[block] = sqs_fold_lanes(lanes);
    }
}

/* In the order in which draw_token passes them. */
static double sum_of_blocks(const target_row *row)
{
    double sum = 0;
    for (uint32_t i = 0; i < blocks(row->n); i++)
        sum += row->sums[i];
    return sum;
}

/* Draws a token in proportion to what is left for each, of which row->sums are
 * the sums, and `sum` is theirs. */
static uint32_t draw_token(const target_row *row, const draft *q, double sum,
                           double draw)
{
    double past = 0, before = 0, goal = draw * sum;
    uint32_t block = 0, token = 0;
    for (uint32_t i = 0; i < blocks(row->n) && past <= goal; i++) {
        if (row->sums[i] > 0) {
            block = i;
            before = past;
        }
        past += row->sums[i];
    }
    uint32_t at = 0, from = block * SQS_BLOCK, end = block_end(row, block);
    while (at < q->n && q->ids[at] < from)
        at++;
    for (uint32_t i = from; i < end && before <= goal; i++) {
        double weight = residual(row, q, at, i);
        if (weight > 0)
            token = i;
        before += weight;
        at += at < q->n && q->ids[at] == i;
    }
    return token;
}

/* Draws the token after a rejected one. A rejection means that q exceeds p
 * somewhere, and so falls short of it elsewhere, but by less than rounding
 * shows if the two all but agree; p itself then serves as well. */
static uint32_t draw_residual(target_row *row, const draft *q, double draw)
{
    sum_residuals(row, q);
    double sum = sum_of_blocks(row);
    if (sum > 0)
        return draw_token(row, q, sum, draw);
    const draft none = {.n = 0};
    check_row(row);
    return draw_token(row, &none, sum_of_blocks(row), draw);
}

static uint32_t sum_counts(const uint32_t *counts, uint32_t n)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += counts[i];
    return sum;
}

static target_row make_target(const sqs_kernels *kernels, uint32_t n,
                              const sqs_rows *target, double *sums, uint32_t i)
{
    target_row row = {.kernels = kernels,
                      .n = n,
                      .sums = sums + (size_t)i * blocks(n)};
    if (target->dtype == SQS_F32)
        row.f32 = (const float *)target->values + i * target->stride;
    else
        row.f64 = (const double *)target->values + i * target->stride;
    return row;
}

/* Checks and sums the target rows; *done becomes how many there are, or the
 * number of the bad one. */
static sqs_status check_target(const sqs_kernels *kernels, uint32_t n,
                               const sqs_rows *target, uint32_t length,
                               double *sums, uint32_t *done)
{
    for (*done = 0; *done <= length; ++*done) {
        target_row row = make_target(kernels, n, target, sums, *done);
        sqs_status status = check_row(&row);
        if (status != SQS_OK)
            return status;
    }
    return SQS_OK;
}

sqs_status sqs_verify(const sqs_codec *codec, const sqs_round *round,
                      const sqs_rows *target, const double *draws,
                      void *scratch, sqs_verdict *verdict)
{
    const uint32_t *ids = round->token_ids, *counts = round->counts;
    uint32_t n = codec->vocab_size, length = round->length;
    verdict->done = 0;
    if (target->dtype != SQS_F32 && target->dtype != SQS_F64)
        return SQS_BAD_DTYPE;
    const sqs_kernels *kernels = sqs_find_kernels(codec->isa, target->dtype);
    sqs_status status = check_target(kernels, n, target, length, scratch,
                                     &verdict->done);
    if (status != SQS_OK)
        return status;
    for (uint32_t i = 0; i < length; i++) {
        uint32_t k = round->survivors[i];
        target_row row = make_target(kernels, n, target, scratch, i);
        row.total = sqs_sum(row.sums, blocks(row.n));
        draft q = {ids, counts, k, sum_counts(counts, k)};
        if (!stands(&row, &q, round->positions[i], draws[i])) {
            verdict->accepted = i;
            verdict->token = draw_residual(&row, &q, draws[i + 1]);
            return SQS_OK;
        }
        ids += k;
        counts += k;
    }
    const draft none = {.n = 0};
    target_row last = make_target(kernels, n, target, scratch, length);
    verdict->accepted = length;
    verdict->token =
        draw_token(&last, &none, sum_of_blocks(&last), draws[length]);
    return SQS_OK;
}
