/*
 * quantize.c - a row of logits or probabilities to counts.
 */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "internal.h"
#include "softmax.h"

/* The caller's scratch, cut up. Widest elements first keeps all aligned. */
typedef struct scratch {
    sqs_ranked *heap;
    double *terms;
    double *weights;
    float *widened;
    uint32_t *kept;
    uint32_t *counts;
} scratch;

static size_t scratch_per_token(void)
{
    return sizeof(sqs_ranked) + 2 * sizeof(double) + sizeof(float) +
           2 * sizeof(uint32_t);
}

size_t sqs_quantize_scratch(const sqs_codec *codec)
{
    return codec->vocab_size * scratch_per_token();
}

static scratch cut_scratch(void *memory, uint32_t size)
{
    scratch s;
    s.heap = memory;
    s.terms = (double *)(s.heap + size);
    s.weights = s.terms + size;
    s.widened = (float *)(s.weights + size);
    s.kept = (uint32_t *)(s.widened + size);
    s.counts = s.kept + size;
    return s;
}

/* binary16 to float, exactly. */
static float widen(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = (half >> 10) & 31;
    uint32_t mantissa = half & 1023;
    if (exponent == 0) {
        float magnitude = (float)mantissa * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    uint32_t biased = exponent == 31 ? 255 : exponent - 15 + 127;
    uint32_t bits = sign | biased << 23 | mantissa << 13;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void load_logits(sqs_row *row, const void *logits, sqs_dtype dtype,
                        float *widened)
{
    if (dtype == SQS_F64) {
        row->f64 = logits;
        return;
    }
    row->f32 = logits;
    if (dtype == SQS_F16) {
        const uint16_t *half = logits;
        for (uint32_t i = 0; i < row->size; i++)
            widened[i] = widen(half[i]);
        row->f32 = widened;
    }
}

static void load_probs(sqs_row *row, const void *probs, sqs_dtype dtype)
{
    const uint16_t *f16 = probs;
    const float *f32 = probs;
    const double *f64 = probs;
    for (uint32_t i = 0; i < row->size; i++)
        row->terms[i] = dtype == SQS_F64   ? f64[i]
                        : dtype == SQS_F32 ? (double)f32[i]
                                           : (double)widen(f16[i]);
    row->f64 = row->terms;
}

static void softmax_weights(const sqs_row *row, uint32_t n,
                            double temperature, double *weights)
{
    const uint32_t *kept = row->kept;
    double max = row->f32 ? (double)row->f32[row->argmax]
                          : row->f64[row->argmax];
    for (uint32_t i = 0; i < n; i++) {
        double x = row->f32 ? (double)row->f32[kept[i]] : row->f64[kept[i]];
        weights[i] = sqs_exp2_f64((x - max) / temperature * SQS_LOG2_E);
    }
}

/* Rounds the weights of the n tokens kept and returns how many survive. */
static uint32_t write_survivors(const sqs_codec *codec, const sqs_fit *fit,
                                double dropped_mass, const scratch *s,
                                uint32_t n, uint32_t *token_ids,
                                uint32_t *counts)
{
    sqs_point kept = {
        .n = n, .ids = s->kept, .weights = s->weights, .counts = s->counts};
    /* The terms have served their purpose. */
    sqs_point found = {
        .ids = token_ids, .weights = s->terms, .counts = counts};
    sqs_fit_point(codec, fit, dropped_mass, &kept, &found, s->heap);
    return found.n;
}

sqs_status sqs_quantize_logits(const sqs_codec *codec, const void *logits,
                               sqs_dtype dtype, double temperature,
                               const sqs_keep *keep, const sqs_fit *fit,
                               void *memory, uint32_t *token_ids,
                               uint32_t *counts, uint32_t *survivors,
                               double *dropped_mass)
{
    if (sqs_check_keep(keep) != SQS_OK)
        return SQS_BAD_KEEP;
    if (sqs_check_fit(codec, fit) != SQS_OK)
        return SQS_BAD_FIT;
    if (!(temperature >= 0 && temperature < INFINITY))
        return SQS_BAD_TEMPERATURE;
    scratch s = cut_scratch(memory, codec->vocab_size);
    sqs_row row = {.size = codec->vocab_size,
                   .floor = -INFINITY,
                   .terms = s.terms,
                   .heap = s.heap,
                   .kept = s.kept};
    load_logits(&row, logits, dtype, s.widened);
    bool greedy = temperature == 0;
    sqs_status status = sqs_row_softmax(&row, greedy ? 1 : temperature);
    if (status != SQS_OK)
        return status;
    if (greedy) {
        token_ids[0] = row.argmax;
        counts[0] = codec->resolution == SQS_VARIABLE ? 1 : codec->resolution;
        *survivors = 1;
        *dropped_mass = 0;
        return SQS_OK;
    }
    uint32_t n = sqs_sparsify(&row, keep);
    *dropped_mass = sqs_dropped_mass(&row, n);
    softmax_weights(&row, n, temperature, s.weights);
    *survivors = write_survivors(codec, fit, *dropped_mass, &s, n, token_ids,
                                 counts);
    return SQS_OK;
}

sqs_status sqs_quantize_probs(const sqs_codec *codec, const void *probs,
                              sqs_dtype dtype, const sqs_keep *keep,
                              const sqs_fit *fit, void *memory,
                              uint32_t *token_ids, uint32_t *counts,
                              uint32_t *survivors, double *dropped_mass)
{
    if (sqs_check_keep(keep) != SQS_OK)
        return SQS_BAD_KEEP;
    if (sqs_check_fit(codec, fit) != SQS_OK)
        return SQS_BAD_FIT;
    scratch s = cut_scratch(memory, codec->vocab_size);
    sqs_row row = {.size = codec->vocab_size,
                   .floor = 0,
                   .terms = s.terms,
                   .heap = s.heap,
                   .kept = s.kept};
    load_probs(&row, probs, dtype);
    sqs_status status = sqs_row_probs(&row);
    if (status != SQS_OK)
        return status;
    uint32_t n = sqs_sparsify(&row, keep);
    *dropped_mass = sqs_dropped_mass(&row, n);
    for (uint32_t i = 0; i < n; i++)
        s.weights[i] = s.terms[s.kept[i]];
    *survivors = write_survivors(codec, fit, *dropped_mass, &s, n, token_ids,
                                 counts);
    return SQS_OK;
}
