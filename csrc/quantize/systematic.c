/*
 * systematic.c - a row to unbiased counts.
 *
 * Systematic sampling (W. G. Madow, On the theory of systematic sampling, II,
 * Annals of Mathematical Statistics 20, 1949). Tokens lie side by side on a
 * line, in the order of their ids. Each is as long as its weight W(x): token x
 * ends at C(x), and the last one at T. There are l marks on the line, T / l
 * apart, and a random number places the first. A token's count is the number
 * of marks on it. Mark j = 1 .. l is at (j T - R) / l, with R in 0 .. T - 1,
 * so that up to the end of token x there are
 *
 *     N(x) = (l C(x) + R) / T marks, rounded down.
 *
 * Counts, the differences of N, are l W(x) / T rounded up or down, and sum to
 * l. W = 5, 1, 0, 2 and l = 3, for example, give
 *
 *     R           counts
 *     0           1  1  0  1
 *     1 to 5      2  0  0  1
 *     6 and 7     2  1  0  0
 *     mean        15/8  3/8  0  6/8, which is l W / T
 *
 * R comes from 64 random bits r: r T / 2^64, rounded down. Rounding down twice
 * is rounding down once, so N(x) = l C(x) / T + r / 2^64, rounded down. Its
 * mean over all r is l C(x) / T rounded down to a multiple of 2^-64 (Hermite's
 * identity); this is the only error.
 *
 * Weights are unnormalized probabilities in whole units, so that their sums
 * are exact in any order. C(x) reaches a mark if it reaches the first integer
 * at or after the mark. Each of these integers follows from the one before,
 * without a division. Sums of blocks show which blocks have marks; only these
 * blocks are weighed again and walked over.
 */
#include "bits.h"
#include "quantize/quantize.h"
#include "rows/kernels.h"
#include "rows/values.h"

typedef struct line {
    const sqs_kernels *kernels;
    sqs_scanned row;
    uint32_t dtype;
    float scale;
    uint64_t *sums;  /* the weight of each block */
    uint64_t length; /* T */
} line;

/* The marks that are still to come. */
typedef struct marks {
    uint64_t next;   /* the first integer at or after the next mark */
    uint32_t beyond; /* its distance from the mark, times l */
    uint32_t left, l;
    uint64_t apart; /* T / l */
    uint32_t rest;  /* T % l */
} marks;

static marks make_marks(uint64_t length, uint32_t l, uint64_t number)
{
    uint64_t first = length - sqs_multiply_high(number, length); /* times l */
    uint64_t next = (first + l - 1) / l;
    return (marks){.next = next,
                   .beyond = (uint32_t)(next * l - first),
                   .left = l,
                   .l = l,
                   .apart = length / l,
                   .rest = (uint32_t)(length % l)};
}

static void pass(marks *m)
{
    bool up = m->beyond < m->rest;
    m->next += m->apart + up;
    m->beyond += (up ? m->l : 0) - m->rest;
    m->left--;
}

static sqs_scanned block_at(const line *on, uint32_t first)
{
    sqs_scanned part = on->row;
    part.values = sqs_value_at(on->row.values, on->dtype, first);
    part.n = sqs_lesser(on->row.n - first, SQS_BLOCK);
    return part;
}

/* A sum of weights in units; 0 if it is impossible, as another thread may
 * write to the row meanwhile. */
static uint64_t in_units(double sum)
{
    return sum >= 0 && sum <= SQS_BLOCK ? (uint64_t)(sum * SQS_UNITS) : 0;
}

static void sum_blocks(line *on)
{
    float weights[SQS_BLOCK];
    on->length = 0;
    for (uint32_t first = 0; first < on->row.n; first += SQS_BLOCK) {
        sqs_scanned part = block_at(on, first);
        uint64_t sum = in_units(on->kernels->weigh(&part, on->scale, weights));
        on->sums[first / SQS_BLOCK] = sum;
        on->length += sum;
    }
}

/* Counts the marks on a block's tokens, which begin at `before`. */
static void count_block(const line *on, uint32_t first, uint64_t before,
                        marks *m, sqs_outcome *out)
{
    float weights[SQS_BLOCK];
    sqs_scanned part = block_at(on, first);
    on->kernels->weigh(&part, on->scale, weights);
    double end = 0, goal = (double)(m->next - before) / SQS_UNITS;
    for (uint32_t i = 0; i < part.n && m->left > 0; i++) {
        uint32_t left = m->left;
        end += (double)weights[i];
        while (end >= goal && m->left > 0) {
            pass(m);
            goal = (double)(m->next - before) / SQS_UNITS;
        }
        if (m->left < left) {
            out->ids[out->survivors] = first + i;
            out->counts[out->survivors++] = left - m->left;
        }
    }
}

/* Writes at most min(marks, tokens) counts, even if another thread writes to
 * the row meanwhile. */
static void count_marks(const line *on, marks *m, sqs_outcome *out)
{
    uint64_t before = 0;
    out->survivors = 0;
    for (uint32_t b = 0; b * SQS_BLOCK < on->row.n; b++) {
        uint64_t end = before + on->sums[b];
        if (m->left > 0 && m->next <= end)
            count_block(on, b * SQS_BLOCK, before, m, out);
        before = end;
    }
}

/* Temperature 0: the first of the largest values gets all counts. */
static void count_largest(const line *on, uint32_t l, sqs_outcome *out)
{
    const sqs_scanned *row = &on->row;
    uint64_t found = 0;
    uint32_t id = 0;
    for (uint32_t first = 0; first < row->n && !found; first += SQS_RACE) {
        const void *values = sqs_value_at(row->values, on->dtype, first);
        uint32_t n = sqs_lesser(row->n - first, SQS_RACE);
        found = on->kernels->find_from(values, n, row->max);
        id = first;
    }
    for (; found > 1 && !(found & 1); found >>= 1)
        id++;
    out->ids[0] = id;
    out->counts[0] = l;
    out->survivors = 1;
}

static sqs_status count_row(line *on, double temperature, uint32_t l,
                            uint64_t number, sqs_outcome *out)
{
    if (!on->kernels->scan(&on->row))
        return SQS_NOT_FINITE;
    if (on->row.max == -INFINITY)
        return SQS_ALL_MASKED;
    if (temperature > 0) {
        sum_blocks(on);
        marks m = make_marks(on->length, l, number);
        count_marks(on, &m, out);
    } else {
        count_largest(on, l, out);
    }
    return SQS_OK;
}

/* sqs_quantize_scratch exceeds what the blocks and maxima here take. */
sqs_status sqs_quantize_unbiased(const sqs_codec *codec,
                                 const sqs_rows *logits, double temperature,
                                 const uint64_t *numbers, void *scratch,
                                 sqs_sparse_room *to)
{
    to->done = 0;
    sqs_status status = sqs_check_rows(logits, temperature);
    if (status == SQS_OK && logits->width != codec->vocab_size)
        status = SQS_BAD_ARGUMENT;
    if (status != SQS_OK)
        return status;
    sqs_outcome out = {.ids = to->token_ids, .counts = to->counts};
    uint32_t n = codec->vocab_size;
    line on = {.kernels = sqs_find_kernels(logits),
               .row = {.n = n, .maxima = scratch},
               .dtype = logits->dtype,
               .scale = sqs_exponent_scale(temperature > 0 ? temperature : 1),
               .sums = (uint64_t *)scratch + sqs_maxima(n)};
    for (; to->done < logits->n; to->done++) {
        uint32_t i = to->done;
        on.row.values =
            sqs_value_at(logits->values, logits->dtype, i * logits->stride);
        status =
            count_row(&on, temperature, codec->resolution, numbers[i], &out);
        if (status != SQS_OK)
            return status;
        to->survivors[i] = out.survivors;
        out.ids += out.survivors;
        out.counts += out.survivors;
    }
    return SQS_OK;
}
