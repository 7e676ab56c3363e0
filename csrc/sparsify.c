/*
 * sparsify.c - which tokens of a row are kept.
 *
 * A rule keeps a prefix of the tokens in descending order of probability,
 * ties going to the lower id. The order is that of the values themselves,
 * compared exactly, so the set that TOP_K keeps involves no arithmetic. The
 * other rules compare terms: single-precision exponentials relative to the
 * row's maximum, and their sum.
 */
#include "internal.h"

#include <math.h>

#include "softmax.h"

#define ROW_T float
#define ROW(name) name##_f32
#define ROW_DIFF_F32(x, y) ((x) - (y))
#include "row_template.h"

#define ROW_T double
#define ROW(name) name##_f64
#define ROW_DIFF_F32(x, y) ((float)((x) - (y)))
#include "row_template.h"

/* The nucleus of a language model seldom exceeds a few dozen tokens, so look
 * for it among this many first and widen from there. */
#define FIRST_NUCLEUS 64u
#define NUCLEUS_GROWTH 8u

/* log2(e) / temperature as a float, kept finite so that 0 * scale is 0. */
static float exponent_scale(double temperature)
{
    double scale = SQS_LOG2_E / temperature;
    return scale > FLT_MAX ? FLT_MAX : (float)scale;
}

sqs_status sqs_row_softmax(sqs_row *row, double temperature)
{
    float scale = exponent_scale(temperature);
    float max_f32 = 0;
    double max_f64 = 0;
    sqs_status status =
        row->f32 ? find_max_f32(row->f32, row->size, &max_f32, &row->argmax)
                 : find_max_f64(row->f64, row->size, &max_f64, &row->argmax);
    if (status != SQS_OK)
        return status;
    if ((row->f32 ? (double)max_f32 : max_f64) == -INFINITY)
        return SQS_ALL_MASKED;
    row->total =
        row->f32
            ? make_terms_f32(row->f32, row->size, max_f32, scale, row->terms)
            : make_terms_f64(row->f64, row->size, max_f64, scale, row->terms);
    return SQS_OK;
}

sqs_status sqs_row_probs(sqs_row *row)
{
    double max;
    if (find_max_f64(row->f64, row->size, &max, &row->argmax) != SQS_OK)
        return SQS_NOT_FINITE;
    for (uint32_t i = 0; i < row->size; i++)
        if (row->f64[i] < 0)
            return row->f64[i] == -INFINITY ? SQS_NOT_FINITE : SQS_NEGATIVE;
    row->total = sqs_sum(row->terms, row->size);
    if (!(fabs(row->total - 1) <= SQS_SUM_TOLERANCE))
        return SQS_SUM;
    return SQS_OK;
}

sqs_status sqs_check_keep(const sqs_keep *keep)
{
    double value = keep->value;
    bool ok = false;
    switch (keep->kind) {
    case SQS_TOP_K:
        ok = value >= 1;
        break;
    case SQS_THRESHOLD:
        ok = isfinite(value);
        break;
    case SQS_TOP_P:
        ok = value > 0 && value <= 1;
        break;
    case SQS_MIN_P:
        ok = value >= 0 && value <= 1;
        break;
    }
    return ok ? SQS_OK : SQS_BAD_KEEP;
}

static uint32_t find_best(const sqs_row *row, uint32_t capacity)
{
    return row->f32 ? find_best_f32(row->f32, row->size, (float)row->floor,
                                    capacity, row->heap)
                    : find_best_f64(row->f64, row->size, row->floor, capacity,
                                    row->heap);
}

static uint32_t list_through(const sqs_row *row, sqs_ranked last)
{
    return row->f32
               ? list_through_f32(row->f32, row->size, last, row->kept)
               : list_through_f64(row->f64, row->size, last, row->kept);
}

static uint32_t keep_top_k(sqs_row *row, double k)
{
    uint32_t capacity = k < row->size ? (uint32_t)k : row->size;
    find_best(row, capacity);
    return list_through(row, row->heap[0]);
}

/* Terms at or above a level; the argmax is always among them. */
static uint32_t keep_level(sqs_row *row, double level)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < row->size; i++)
        if ((row->terms[i] >= level && row->terms[i] > 0) || i == row->argmax)
            row->kept[n++] = i;
    return n;
}

static uint32_t keep_top_p(sqs_row *row, double p)
{
    if (p >= 1)
        return keep_level(row, 0);
    for (uint32_t capacity = FIRST_NUCLEUS;; capacity *= NUCLEUS_GROWTH) {
        if (capacity > row->size)
            capacity = row->size;
        uint32_t found = find_best(row, capacity);
        sqs_heap_sort(row->heap, found);
        double mass = 0;
        for (uint32_t i = 0; i < found; i++) {
            mass += row->terms[row->heap[i].id];
            if (mass >= p * row->total)
                return list_through(row, row->heap[i]);
        }
        if (found < capacity || capacity == row->size)
            return list_through(row, row->heap[found - 1]);
    }
}

uint32_t sqs_sparsify(sqs_row *row, const sqs_keep *keep)
{
    switch (keep->kind) {
    case SQS_TOP_K:
        return keep_top_k(row, keep->value);
    case SQS_THRESHOLD:
        return keep_level(row, keep->value * row->total);
    case SQS_TOP_P:
        return keep_top_p(row, keep->value);
    case SQS_MIN_P:
        break;
    }
    return keep_level(row, keep->value * row->terms[row->argmax]);
}

double sqs_dropped_mass(const sqs_row *row, uint32_t n)
{
    double dropped = row->total - sqs_sum_at(row->terms, row->kept, n);
    return dropped > 0 ? dropped / row->total : 0.0;
}
