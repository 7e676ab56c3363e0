/*
 * sparsify.c - which tokens of a row are kept.
 *
 * Both rules, the first k and all from a level on, keep a prefix of the tokens
 * in descending order of probability; ties go to the lower id. Choosing the
 * first k compares the values in memory, without any arithmetic. The level is
 * compared with unnormalized probabilities: exponentials in single precision,
 * relative to the row's maximum, which a first loop sums over all tokens. A
 * bound on the values then selects the tokens that may reach the level, and
 * only their exponentials are computed again.
 */
#include "quantize/sparsify.h"

#include <math.h>

#include "bits.h"
#include "rows/values.h"

static double unnormalized(const sqs_row *row, double value)
{
    if (row->probs)
        return value;
    return sqs_unnormalized(value, row->scanned.max, row->scale);
}

sqs_status sqs_scan_logits(sqs_row *row, double temperature)
{
    row->scale = sqs_exponent_scale(temperature);
    if (!row->kernels->scan(&row->scanned))
        return SQS_NOT_FINITE;
    return row->scanned.max == -INFINITY ? SQS_ALL_MASKED : SQS_OK;
}

sqs_status sqs_scan_probs(sqs_row *row)
{
    if (!row->kernels->scan(&row->scanned))
        return SQS_NOT_FINITE;
    double least;
    row->normalizer =
        row->kernels->sum_values(row->scanned.values, row->scanned.n, &least);
    if (least < 0)
        return least == -INFINITY ? SQS_NOT_FINITE : SQS_NEGATIVE;
    if (!(fabs(row->normalizer - 1) <= SQS_SUM_TOLERANCE))
        return SQS_SUM;
    return SQS_OK;
}

bool sqs_needs_normalizer(const sqs_keep *keep)
{
    return keep->least > 0;
}

void sqs_find_normalizer(sqs_row *row)
{
    if (!row->probs)
        row->normalizer = row->kernels->sum_exp2(&row->scanned, row->scale);
}

sqs_status sqs_check_keep(const sqs_keep *keep)
{
    return keep->most >= 1 && isfinite(keep->least) ? SQS_OK : SQS_BAD_KEEP;
}

static void select_top(sqs_row *row, uint32_t k)
{
    k = sqs_lesser(k, row->scanned.n);
    row->n = row->kernels->select_top(&row->scanned, k, &row->kept);
}

/* A lower bound of log2(x), less than 0.09 below it, for 0 < x <= 1 that is
 * not subnormal: the chord between powers of two, which lies below the
 * logarithm. */
static double low_log2(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int exponent = (int)(bits >> 52) - 1023;
    bits = (bits & (((uint64_t)1 << 52) - 1)) | (uint64_t)1023 << 52;
    memcpy(&x, &bits, sizeof x);
    return exponent + (x - 1);
}

/* Exceeds the error of an exponent in single precision, which is some 100
 * units of 2^-23 where the exponent is 100. */
#define MARGIN 0x1p-10

/* Every token whose unnormalized probability is `level` or more has at least
 * this value. The bound is at most the row's maximum, and at least the lowest
 * value that isn't masked. */
static double value_bound(const sqs_row *row, double level)
{
    double max = row->scanned.max, bound = level;
    if (!row->probs && level < 0x1p-100)
        bound = -INFINITY;
    else if (!row->probs)
        bound = max + (low_log2(level < 1 ? level : 1) - MARGIN) /
                          (double)row->scale;
    if (!(bound > row->scanned.lowest))
        bound = row->scanned.lowest;
    return bound < max ? bound : max;
}

/* Keeps the tokens of unnormalized probability `level` or more, and always the
 * first one of the largest value. */
static void keep_level(sqs_row *row, double level)
{
    const sqs_selected *kept = &row->kept;
    uint32_t selected = row->kernels->select_from(
        &row->scanned, value_bound(row, level), kept);
    row->n = 0;
    for (uint32_t i = 0; i < selected; i++) {
        double value = kept->values[i];
        double p = unnormalized(row, value);
        kept->ids[row->n] = kept->ids[i];
        kept->values[row->n] = value;
        row->n += p >= level && p > 0;
    }
    /* No value reaches the level, or the bound is a flushed subnormal. */
    if (row->n == 0)
        select_top(row, 1);
}

void sqs_sparsify(sqs_row *row, const sqs_keep *keep)
{
    row->n = row->scanned.n;
    if (keep->least > 0)
        keep_level(row, keep->least * row->normalizer);
    if (keep->least <= 0 || row->n > keep->most)
        select_top(row, keep->most);
}

double sqs_dropped_mass(const sqs_row *row)
{
    double lanes[SQS_LANES] = {0};
    for (uint32_t i = 0; i < row->n; i++)
        lanes[row->kept.ids[i] % SQS_LANES] +=
            unnormalized(row, row->kept.values[i]);
    double dropped = row->normalizer - sqs_fold_lanes(lanes);
    return dropped > 0 ? dropped / row->normalizer : 0.0;
}
