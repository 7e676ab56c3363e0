/*
 * quantize.c - rows of logits or probabilities to counts, or to packets.
 */
#include <math.h>
#include <stdbool.h>

#include "quantize/sparsify.h"

/* The caller's scratch, cut up. Widest elements first keeps all aligned. */
typedef struct scratch {
    sqs_ranked *heap;
    double *values; /* or weights */
    double *work;
    void *maxima; /* room for doubles */
    uint32_t *ids;
    uint32_t *counts;
} scratch;

static size_t row_size(uint32_t n)
{
    return n * (sizeof(sqs_ranked) + 2 * sizeof(double) +
                2 * sizeof(uint32_t)) +
           (SQS_LANES + sqs_maxima(n)) * sizeof(double);
}

size_t sqs_quantize_scratch(const sqs_codec *codec)
{
    return row_size(codec->vocab_size);
}

size_t sqs_encode_logits_scratch(const sqs_codec *codec)
{
    return row_size(codec->vocab_size) +
           2 * sizeof(uint32_t) * sqs_max_survivors(codec);
}

static scratch cut_scratch(void *memory, const sqs_codec *codec)
{
    uint32_t n = codec->vocab_size;
    scratch s;
    s.heap = memory;
    s.values = (double *)(s.heap + n);
    s.work = s.values + n;
    s.maxima = s.work + n + SQS_LANES;
    s.ids = (uint32_t *)((double *)s.maxima + sqs_maxima(n));
    s.counts = s.ids + n;
    return s;
}

/* The smallest value that isn't masked: of logits the lowest finite one, of
 * probabilities the smallest above 0. */
static double lowest_value(sqs_dtype dtype, bool probs)
{
    if (dtype == SQS_F64)
        return probs ? 0x1p-1074 : -DBL_MAX;
    return probs ? 0x1p-149 : -(double)FLT_MAX;
}

static const void *row_values(const sqs_rows *rows, uint32_t i)
{
    static const size_t sizes[] = {
        [SQS_F16] = 2, [SQS_F32] = 4, [SQS_F64] = 8, [SQS_BF16] = 2};
    return (const char *)rows->values + i * rows->stride * sizes[rows->dtype];
}

static sqs_row make_row(const sqs_codec *codec, const sqs_rows *rows,
                        bool probs, const scratch *s)
{
    sqs_row row = {
        .kernels = sqs_find_kernels(codec->isa, rows->dtype),
        .scanned = {.n = codec->vocab_size,
                    .maxima = s->maxima,
                    .lowest = lowest_value(rows->dtype, probs)},
        .probs = probs,
        .kept = {s->ids, s->values, s->work},
        .heap = s->heap};
    return row;
}

/* Turns the values of the tokens kept into their weights. */
static void weigh(const sqs_row *row, double temperature)
{
    double *values = row->kept.values, max = row->scanned.max;
    if (row->probs)
        return;
    for (uint32_t i = 0; i < row->n; i++)
        values[i] =
            sqs_exp2_f64((values[i] - max) / temperature * SQS_LOG2_E);
}

/* What becomes of a row. */
typedef struct outcome {
    uint32_t *ids;
    uint32_t *counts;
    uint32_t survivors;
    double *dropped_mass; /* null if it isn't wanted */
} outcome;

/* Rounds the tokens kept. */
static void round_kept(const sqs_codec *codec, const sqs_fit *fit,
                       const sqs_row *row, const scratch *s,
                       double dropped_mass, outcome *out)
{
    sqs_point kept = {.n = row->n,
                      .ids = row->kept.ids,
                      .weights = row->kept.values,
                      .counts = s->counts};
    sqs_point found = {
        .ids = out->ids, .weights = s->work, .counts = out->counts};
    sqs_fit_point(codec, fit, dropped_mass, &kept, &found, row->heap);
    out->survivors = found.n;
}

static void keep_one(const sqs_codec *codec, sqs_row *row, outcome *out)
{
    row->kernels->take_top(&row->scanned, 1, &row->kept);
    out->ids[0] = row->kept.ids[0];
    out->counts[0] =
        codec->resolution == SQS_VARIABLE ? 1 : codec->resolution;
    out->survivors = 1;
    if (out->dropped_mass)
        *out->dropped_mass = 0;
}

static bool fit_needs_mass(const sqs_codec *codec, const sqs_fit *fit)
{
    return codec->resolution == SQS_VARIABLE || fit->bits_per_tv > 0;
}

static sqs_status quantize_row(const sqs_codec *codec, sqs_row *row,
                               double temperature, const sqs_keep *keep,
                               const sqs_fit *fit, const scratch *s,
                               outcome *out)
{
    bool greedy = temperature == 0;
    sqs_status status =
        row->probs ? sqs_row_probs(row)
                   : sqs_row_logits(row, greedy ? 1 : temperature);
    if (status != SQS_OK)
        return status;
    if (greedy) {
        keep_one(codec, row, out);
        return SQS_OK;
    }
    bool mass = out->dropped_mass || fit_needs_mass(codec, fit);
    if (mass || sqs_needs_total(keep))
        sqs_row_total(row);
    sqs_sparsify(row, keep);
    double dropped_mass = mass ? sqs_dropped_mass(row) : 0;
    if (out->dropped_mass)
        *out->dropped_mass = dropped_mass;
    weigh(row, temperature);
    round_kept(codec, fit, row, s, dropped_mass, out);
    return SQS_OK;
}

static sqs_status check_arguments(const sqs_codec *codec, double temperature,
                                  const sqs_keep *keep, const sqs_fit *fit)
{
    if (sqs_check_keep(keep) != SQS_OK)
        return SQS_BAD_KEEP;
    if (sqs_check_fit(codec, fit) != SQS_OK)
        return SQS_BAD_FIT;
    return temperature >= 0 && temperature < INFINITY ? SQS_OK
                                                      : SQS_BAD_TEMPERATURE;
}

static sqs_status quantize_rows(const sqs_codec *codec, const sqs_rows *rows,
                                bool probs, double temperature,
                                const sqs_keep *keep, const sqs_fit *fit,
                                void *memory, uint32_t *token_ids,
                                uint32_t *counts, uint32_t *survivors,
                                double *dropped_mass, uint32_t *done)
{
    *done = 0;
    sqs_status status = check_arguments(codec, temperature, keep, fit);
    if (status != SQS_OK)
        return status;
    scratch s = cut_scratch(memory, codec);
    sqs_row row = make_row(codec, rows, probs, &s);
    for (uint32_t i = 0; i < rows->n; i++) {
        outcome out = {token_ids, counts, 0,
                       dropped_mass ? dropped_mass + i : NULL};
        row.scanned.values = row_values(rows, i);
        status = quantize_row(codec, &row, temperature, keep, fit, &s, &out);
        if (status != SQS_OK)
            return status;
        survivors[i] = out.survivors;
        token_ids += out.survivors;
        counts += out.survivors;
        ++*done;
    }
    return SQS_OK;
}

sqs_status sqs_quantize_logits(const sqs_codec *codec, const sqs_rows *logits,
                               double temperature, const sqs_keep *keep,
                               const sqs_fit *fit, void *memory,
                               uint32_t *token_ids, uint32_t *counts,
                               uint32_t *survivors, double *dropped_mass,
                               uint32_t *done)
{
    return quantize_rows(codec, logits, false, temperature, keep, fit, memory,
                         token_ids, counts, survivors, dropped_mass, done);
}

sqs_status sqs_quantize_probs(const sqs_codec *codec, const sqs_rows *probs,
                              const sqs_keep *keep, const sqs_fit *fit,
                              void *memory, uint32_t *token_ids,
                              uint32_t *counts, uint32_t *survivors,
                              double *dropped_mass, uint32_t *done)
{
    return quantize_rows(codec, probs, true, 1, keep, fit, memory, token_ids,
                         counts, survivors, dropped_mass, done);
}

/* The most survivors that a row can have. */
static uint32_t most_survivors(const sqs_codec *codec, const sqs_keep *keep)
{
    uint32_t most = sqs_max_survivors(codec);
    if (keep->kind == SQS_TOP_K && keep->value < most)
        most = keep->value >= 1 ? (uint32_t)keep->value : 1;
    return most;
}

size_t sqs_encode_logits_bound(const sqs_codec *codec, const sqs_keep *keep)
{
    return sqs_encode_bound(codec, most_survivors(codec, keep));
}

sqs_status sqs_encode_logits(const sqs_codec *codec, const sqs_rows *logits,
                             double temperature, const sqs_keep *keep,
                             const sqs_fit *fit, void *memory,
                             uint8_t *packets, size_t capacity, size_t *sizes,
                             double *dropped_mass, uint32_t *done)
{
    *done = 0;
    sqs_status status = check_arguments(codec, temperature, keep, fit);
    if (status != SQS_OK)
        return status;
    scratch s = cut_scratch(memory, codec);
    uint32_t *ids = s.counts + codec->vocab_size;
    uint32_t *counts = ids + sqs_max_survivors(codec);
    sqs_row row = make_row(codec, logits, false, &s);
    for (uint32_t i = 0; i < logits->n; i++) {
        outcome out = {ids, counts, 0, dropped_mass ? dropped_mass + i : NULL};
        row.scanned.values = row_values(logits, i);
        status = quantize_row(codec, &row, temperature, keep, fit, &s, &out);
        if (status == SQS_OK)
            status = sqs_encode(codec, ids, counts, out.survivors, packets,
                                capacity, &sizes[i]);
        if (status != SQS_OK)
            return status;
        packets += sizes[i];
        capacity -= sizes[i];
        ++*done;
    }
    return SQS_OK;
}
