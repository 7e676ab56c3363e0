/*
 * verify.c - which of a round's tokens are accepted, and which one follows.
 *
 * Speculative sampling (arXiv 2211.17192): a token x sampled from q is
 * accepted with probability min(1, p(x) / q(x)). After the first rejection,
 * the next token is sampled from the residual max(0, p - q), normalized. p is
 * a target row's weights divided by their sum, and q(x) = b / l. Weights are
 * the row's values if these are probabilities. For logits, weights are
 * exponentials, computed where they are needed.
 *
 * Checking reads every target row once, in blocks of SQS_BLOCK values. This
 * also gives the blocks' sums of probabilities, or maxima of logits. A second
 * loop over the rows up to the first rejection turns maxima into sums of
 * weights. Sampling walks over the sums of blocks, then over the weights of
 * one block. The residual differs from its row only at the tokens of the
 * support, so only the blocks with such tokens are summed again.
 */
#include <math.h>
#include <stdbool.h>

#include "rows/kernels.h"
#include "rows/values.h"

/* The distribution q of a drafted token. With n = 0, q is 0 everywhere, and
 * the residual is the row itself. */
typedef struct draft {
    const uint32_t *ids; /* ascending */
    const uint32_t *counts;
    uint32_t n;
    double resolution; /* the sum of the counts */
} draft;

/* How a value becomes a weight. */
typedef enum weighing {
    PROBS,  /* itself */
    LOGITS, /* its exponential, relative to the row's maximum */
    GREEDY  /* 1 if it is the first of the largest, otherwise 0 */
} weighing;

/* A target row, and the sums of its blocks. */
typedef struct target_row {
    const sqs_kernels *kernels;
    const void *values;
    uint32_t dtype;
    uint32_t n;
    weighing weighing;
    float scale;   /* LOGITS */
    double max;    /* LOGITS */
    uint32_t best; /* GREEDY */
    double *sums;
    double total;
} target_row;

/* All target rows, and room for their sums. */
typedef struct target {
    const sqs_kernels *kernels;
    const sqs_rows *rows;
    weighing weighing;
    float scale;
    double *sums;
} target;

static uint32_t blocks(uint32_t n)
{
    return (n + SQS_BLOCK - 1) / SQS_BLOCK;
}

size_t sqs_verify_scratch(const sqs_rows *rows)
{
    if (rows->width < SQS_MIN_VOCAB || rows->width > SQS_MAX_VOCAB ||
        rows->n == 0 || rows->n > SQS_MAX_ROUND + 1)
        return SIZE_MAX;
    return (size_t)rows->n * blocks(rows->width) * sizeof(double);
}

static target_row get_row(const target *t, uint32_t i)
{
    const sqs_rows *rows = t->rows;
    return (target_row){
        .kernels = t->kernels,
        .values = sqs_value_at(rows->values, rows->dtype, i * rows->stride),
        .dtype = rows->dtype,
        .n = rows->width,
        .weighing = t->weighing,
        .scale = t->scale,
        .sums = t->sums + (size_t)i * blocks(rows->width)};
}

static double value(const target_row *row, uint32_t i)
{
    return sqs_value(row->values, row->dtype, i);
}

static double weight(const target_row *row, uint32_t i)
{
    switch (row->weighing) {
    case LOGITS:
        return sqs_unnormalized(value(row, i), row->max, row->scale);
    case GREEDY:
        return i == row->best;
    default:
        return value(row, i);
    }
}

static uint32_t block_end(const target_row *row, uint32_t block)
{
    uint32_t left = row->n - block * SQS_BLOCK;
    return block * SQS_BLOCK + (left < SQS_BLOCK ? left : SQS_BLOCK);
}

/* Checks. */

static bool all_finite(const target_row *row)
{
    for (uint32_t i = 0; i < row->n; i++)
        if (!isfinite(value(row, i)))
            return false;
    return true;
}

/* Writes the sums of a row's blocks, and checks the row. */
static sqs_status check_probs(const target_row *row)
{
    double least;
    row->kernels->sum_blocks(row->values, row->n, row->sums, &least);
    double total = sqs_sum(row->sums, blocks(row->n));
    if (!isfinite(total) && !all_finite(row))
        return SQS_NOT_FINITE;
    if (least < 0)
        return SQS_NEGATIVE;
    return fabs(total - 1) <= SQS_SUM_TOLERANCE ? SQS_OK : SQS_SUM;
}

/* A block as an argument of the kernels. */
static sqs_scanned get_block(const target_row *row, uint32_t block)
{
    uint32_t from = block * SQS_BLOCK;
    return (sqs_scanned){.values = sqs_value_at(row->values, row->dtype, from),
                         .n = block_end(row, block) - from,
                         .max = row->max};
}

/* Writes the maxima of a row's blocks to row->sums, and checks the row. */
static sqs_status check_logits(const target_row *row)
{
    double maxima[SQS_BLOCK / SQS_GROUP * SQS_LANES], max = -INFINITY;
    for (uint32_t i = 0; i < blocks(row->n); i++) {
        sqs_scanned block = get_block(row, i);
        block.maxima = maxima;
        if (!row->kernels->scan(&block))
            return SQS_NOT_FINITE;
        row->sums[i] = block.max;
        max = block.max > max ? block.max : max;
    }
    return max == -INFINITY ? SQS_ALL_MASKED : SQS_OK;
}

/* Checks all rows; *done becomes the number of valid rows before the first
 * bad one. */
static sqs_status check_rows(const target *t, uint32_t *done)
{
    for (*done = 0; *done < t->rows->n; ++*done) {
        target_row row = get_row(t, *done);
        sqs_status status =
            t->weighing == PROBS ? check_probs(&row) : check_logits(&row);
        if (status != SQS_OK)
            return status;
    }
    return SQS_OK;
}

/* Weights. */

/* The first block that has the row's maximum. */
static uint32_t find_max(const target_row *row)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < blocks(row->n); i++)
        if (row->sums[i] > row->sums[best])
            best = i;
    return best;
}

/* Replaces the maxima of blocks by the sums of their exponentials. */
static void sum_exponentials(target_row *row)
{
    for (uint32_t i = 0; i < blocks(row->n); i++) {
        sqs_scanned block = get_block(row, i);
        row->sums[i] = row->kernels->sum_exp2(&block, row->scale);
    }
}

/* Gives all weight to the first of a block's largest values, and sets the sums
 * of blocks accordingly. */
static void choose(target_row *row, uint32_t block)
{
    row->best = block * SQS_BLOCK;
    for (uint32_t i = row->best; i < block_end(row, block); i++)
        if (value(row, i) > value(row, row->best))
            row->best = i;
    for (uint32_t i = 0; i < blocks(row->n); i++)
        row->sums[i] = i == block;
}

/* Row i, which has been checked, with its sums. */
static target_row sum_up(const target *t, uint32_t i)
{
    target_row row = get_row(t, i);
    if (row.weighing != PROBS) {
        uint32_t block = find_max(&row);
        row.max = row.sums[block];
        if (row.weighing == GREEDY)
            choose(&row, block);
        else
            sum_exponentials(&row);
    }
    row.total = sqs_sum(row.sums, blocks(row.n));
    return row;
}

/* Accepting and sampling. */

/* Whether the token at a position of q is accepted: draw < p(x) / q(x). */
static bool accepts(const target_row *row, const draft *q, uint32_t position,
                    double draw)
{
    double p = weight(row, q->ids[position]);
    return draw * q->counts[position] * row->total < p * q->resolution;
}

/* The unnormalized residual at token i. `at` is the position in the support of
 * the first token that is i or above. */
static double residual(const target_row *row, const draft *q, uint32_t at,
                       uint32_t i)
{
    double p = weight(row, i);
    if (at == q->n || q->ids[at] != i)
        return p;
    double rest = p - q->counts[at] / q->resolution * row->total;
    return rest > 0 ? rest : 0;
}

/* Replaces the sums of the blocks that hold tokens of the support with sums of
 * the residual. */
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

/* The sum of all blocks, added in the order of find_block, so that a draw
 * below 1 never goes past the end. */
static double sum_of_blocks(const target_row *row)
{
    double sum = 0;
    for (uint32_t i = 0; i < blocks(row->n); i++)
        sum += row->sums[i];
    return sum;
}

/* Finds the block to sample from: the last one with a sum above 0 such that
 * the blocks before it sum to `goal` or less. *before becomes their sum. */
static uint32_t find_block(const target_row *row, double goal, double *before)
{
    double past = 0;
    uint32_t block = 0;
    *before = 0;
    for (uint32_t i = 0; i < blocks(row->n) && past <= goal; i++) {
        if (row->sums[i] > 0) {
            block = i;
            *before = past;
        }
        past += row->sums[i];
    }
    return block;
}

/* Samples a token in proportion to the residual, whose blocks sum to row->sums
 * and in all to `sum`: the last token with a residual above 0 such that the
 * residuals before it sum to draw * sum or less. */
static uint32_t draw_token(const target_row *row, const draft *q, double sum,
                           double draw)
{
    double past, goal = draw * sum;
    uint32_t block = find_block(row, goal, &past), token = 0, at = 0;
    uint32_t from = block * SQS_BLOCK, end = block_end(row, block);
    while (at < q->n && q->ids[at] < from)
        at++;
    for (uint32_t i = from; i < end && past <= goal; i++) {
        double rest = residual(row, q, at, i);
        if (rest > 0)
            token = i;
        past += rest;
        at += at < q->n && q->ids[at] == i;
    }
    return token;
}

/* Samples the token after a rejected one. A rejection means that q exceeds p
 * at one token, so p exceeds q at another. If p and q are nearly the same,
 * rounding may hide that and make the residual 0 everywhere. Then this samples
 * from p: with an infinite resolution, q subtracts nothing. */
static uint32_t draw_residual(target_row *row, const draft *q, double draw)
{
    sum_residuals(row, q);
    double sum = sum_of_blocks(row);
    if (sum > 0)
        return draw_token(row, q, sum, draw);
    draft idle = {q->ids, q->counts, q->n, INFINITY};
    sum_residuals(row, &idle);
    return draw_token(row, &idle, sum_of_blocks(row), draw);
}

static uint32_t sum_counts(const uint32_t *counts, uint32_t n)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += counts[i];
    return sum;
}

/* Accepts tokens up to the first rejection, and samples the next one. */
static void decide(const target *t, const sqs_sparse_rows *round,
                   const uint32_t *positions, const double *draws,
                   sqs_verdict *verdict)
{
    const uint32_t *ids = round->token_ids, *counts = round->counts;
    for (uint32_t i = 0; i < round->length; i++) {
        uint32_t k = round->survivors[i];
        target_row row = sum_up(t, i);
        draft q = {ids, counts, k, sum_counts(counts, k)};
        if (!accepts(&row, &q, positions[i], draws[i])) {
            verdict->accepted = i;
            verdict->token = draw_residual(&row, &q, draws[i + 1]);
            return;
        }
        ids += k;
        counts += k;
    }
    target_row last = sum_up(t, round->length);
    const draft nothing = {.n = 0};
    verdict->accepted = round->length;
    verdict->token = draw_token(&last, &nothing, sum_of_blocks(&last),
                                draws[round->length]);
}

static sqs_status verify(target *t, const sqs_sparse_rows *round,
                         const uint32_t *positions, const double *draws,
                         sqs_verdict *verdict)
{
    if (t->rows->n != round->length + 1)
        return SQS_BAD_ARGUMENT;
    t->kernels = sqs_find_kernels(t->rows);
    sqs_status status = check_rows(t, &verdict->done);
    if (status == SQS_OK)
        decide(t, round, positions, draws, verdict);
    return status;
}

sqs_status sqs_verify(const sqs_sparse_rows *round, const uint32_t *positions,
                      const sqs_rows *target_rows, const double *draws,
                      void *scratch, sqs_verdict *verdict)
{
    verdict->done = 0;
    sqs_status status = sqs_check_rows(target_rows, 1);
    if (status != SQS_OK)
        return status;
    if (target_rows->dtype != SQS_F32 && target_rows->dtype != SQS_F64)
        return SQS_BAD_DTYPE;
    target t = {.rows = target_rows, .weighing = PROBS, .sums = scratch};
    return verify(&t, round, positions, draws, verdict);
}

sqs_status sqs_verify_logits(const sqs_sparse_rows *round,
                             const uint32_t *positions,
                             const sqs_rows *target_rows, double temperature,
                             const double *draws, void *scratch,
                             sqs_verdict *verdict)
{
    verdict->done = 0;
    sqs_status status = sqs_check_rows(target_rows, temperature);
    if (status != SQS_OK)
        return status;
    target t = {.rows = target_rows,
                .weighing = temperature > 0 ? LOGITS : GREEDY,
                .scale = sqs_exponent_scale(temperature > 0 ? temperature : 1),
                .sums = scratch};
    return verify(&t, round, positions, draws, verdict);
}
