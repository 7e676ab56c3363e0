/*
 * sparsify.h - a row to the tokens kept.
 *
 * For each row, the caller sets `scanned` (values, n, lowest and room for
 * maxima), `probs`, and room for selected tokens. Then it calls one of the two
 * functions that scan, sqs_find_normalizer if needed, and sqs_sparsify.
 */
#ifndef SQS_SPARSIFY_H
#define SQS_SPARSIFY_H

#include "quantize/heap.h"
#include "rows/kernels.h"
#include "sqs.h"

typedef struct sqs_row {
    const sqs_kernels *kernels;
    sqs_scanned scanned;
    bool probs; /* values are probabilities, otherwise logits */

    /* The unnormalized probability of a logit x is 2^((x - max) * scale). */
    float scale;
    double normalizer; /* the sum of the unnormalized probabilities */

    sqs_selected kept;
    uint32_t n;       /* tokens kept */
    sqs_ranked *heap; /* room for one item per value */
} sqs_row;

/* Scan a row and check it: SQS_OK, SQS_NOT_FINITE, SQS_ALL_MASKED,
 * SQS_NEGATIVE or SQS_SUM. sqs_scan_probs also writes the normalizer. */
sqs_status sqs_scan_logits(sqs_row *row, double temperature);
sqs_status sqs_scan_probs(sqs_row *row);

/* Whether a keep rule needs the normalizer. The dropped mass also needs it. */
bool sqs_needs_normalizer(const sqs_keep *keep);
void sqs_find_normalizer(sqs_row *row);

sqs_status sqs_check_keep(const sqs_keep *keep);

/* Writes the tokens that the rule keeps to row->kept and row->n. */
void sqs_sparsify(sqs_row *row, const sqs_keep *keep);

/* The probability of the tokens not kept: exactly 0 if all their unnormalized
 * probabilities are 0. */
double sqs_dropped_mass(const sqs_row *row);

#endif /* SQS_SPARSIFY_H */
