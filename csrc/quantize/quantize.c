/*
 * quantize.c - a row of logits or probabilities to a distribution.
 */
#include "quantize/quantize.h"

#include "quantize/lattice.h"
#include "rows/values.h"

/* The parts of the scratch, in the order of sqs_make_quantizer: a heap,
 * values, work space for rows/, maxima with room for doubles, ids and counts.
 * The widest elements come first, so that all are aligned. */
size_t sqs_quantize_scratch(const sqs_codec *codec)
{
    uint32_t n = codec->vocab_size;
    size_t each = sizeof(sqs_ranked) + 2 * sizeof(double);
    return n * (each + 2 * sizeof(uint32_t)) +
           (SQS_LANES + sqs_maxima(n)) * sizeof(double);
}

/* The smallest value that isn't masked: the lowest finite logit, or the
 * smallest probability above 0. */
static double lowest_value(sqs_dtype dtype, bool probs)
{
    if (dtype == SQS_F64)
        return probs ? 0x1p-1074 : -DBL_MAX;
    return probs ? 0x1p-149 : -(double)FLT_MAX;
}

sqs_quantizer sqs_make_quantizer(const sqs_codec *codec, const sqs_rows *rows,
                                 bool probs, double temperature,
                                 const sqs_keep *keep, void *scratch)
{
    uint32_t n = codec->vocab_size;
    sqs_ranked *heap = scratch;
    double *values = (double *)(heap + n), *work = values + n;
    double *maxima = work + n + SQS_LANES;
    uint32_t *ids = (uint32_t *)(maxima + sqs_maxima(n));
    return (sqs_quantizer){
        .keep = keep,
        .temperature = temperature,
        .resolution = codec->resolution,
        .row = {.kernels = sqs_find_kernels(rows),
                .scanned = {.n = n,
                            .maxima = maxima,
                            .lowest = lowest_value(rows->dtype, probs)},
                .probs = probs,
                .kept = {ids, values, work},
                .heap = heap},
        .weights = values,
        .counts = ids + n};
}

/* Turns the logits of the tokens kept into weights; probabilities are weights
 * already. */
static void weigh(const sqs_quantizer *q)
{
    double max = q->row.scanned.max;
    if (q->row.probs)
        return;
    for (uint32_t i = 0; i < q->row.n; i++)
        q->weights[i] =
            sqs_exp2_f64((q->weights[i] - max) / q->temperature * SQS_LOG2_E);
}

/* Rounds the weights of the tokens kept, and drops tokens of count 0. If
 * another thread writes to the row meanwhile, counts may be anything, so the
 * loop also ends where the room does. */
static void round_kept(const sqs_quantizer *q, sqs_outcome *out)
{
    const uint32_t *ids = q->row.kept.ids, *counts = q->counts;
    uint32_t n = 0;
    sqs_lattice(q->weights, q->row.n, q->resolution, q->row.heap, q->counts);
    for (uint32_t i = 0; i < q->row.n && n < q->resolution; i++)
        if (counts[i] > 0) {
            out->ids[n] = ids[i];
            out->counts[n++] = counts[i];
        }
    out->survivors = n;
}

/* Temperature 0: the first of the largest values. */
static void keep_one(sqs_quantizer *q, sqs_outcome *out)
{
    q->row.kernels->select_top(&q->row.scanned, 1, &q->row.kept);
    out->ids[0] = q->row.kept.ids[0];
    out->counts[0] = q->resolution;
    out->survivors = 1;
    if (out->dropped_mass)
        *out->dropped_mass = 0;
}

sqs_status sqs_quantize_row(sqs_quantizer *q, const sqs_rows *rows, uint32_t i,
                            sqs_outcome *out)
{
    sqs_row *row = &q->row;
    bool greedy = q->temperature == 0;
    row->scanned.values =
        sqs_value_at(rows->values, rows->dtype, i * rows->stride);
    sqs_status status =
        row->probs ? sqs_scan_probs(row)
                   : sqs_scan_logits(row, greedy ? 1 : q->temperature);
    if (status != SQS_OK)
        return status;
    if (greedy) {
        keep_one(q, out);
        return SQS_OK;
    }
    if (out->dropped_mass || sqs_needs_normalizer(q->keep))
        sqs_find_normalizer(row);
    sqs_sparsify(row, q->keep);
    if (out->dropped_mass)
        *out->dropped_mass = sqs_dropped_mass(row);
    weigh(q);
    round_kept(q, out);
    return SQS_OK;
}
