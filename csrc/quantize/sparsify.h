/*
 * sparsify.h - a row to the tokens kept.
 *
 * Of each row the caller sets `scanned` (values, n, lowest and room for
 * maxima), `probs`, and room for what is selected; then calls one of the two
 * functions that scan, sqs_find_normaliser if that is needed, and
 * sqs_sparsify.
 */
#ifndef SQS_SPARSIFY_H
#define SQS_SPARSIFY_H

#include "quantize/heap.h"
#include "rows/kernels.h"
#include "sqs.h"

typedef struct sqs_row {
    const sqs_kernels *kernels;
    sqs_scanned scanned;
    bool probs; /* whether the values are probabilities or logits */

    /* The unnormalised probability of a logit x is 2^((x - max) * scale). */
    float scale;
    double normaliser; /* the sum of all of them */

    sqs_selected kept;
    uint32_t n;       /* tokens kept */
    sqs_ranked *heap; /* room for as many as the row has values */
} sqs_row;

/* Scan a row, and return SQS_OK or what is wrong with it: SQS_NOT_FINITE,
 * SQS_ALL_MASKED, SQS_NEGATIVE or SQS_SUM. The normaliser of probabilities,
 * their sum, is written too. */
sqs_status sqs_scan_logits(sqs_row *row, double temperature);
sqs_status sqs_scan_probs(sqs_row *row);

/* Whether a keep rule needs the normaliser. The dropped mass needs it too. */
bool sqs_needs_normaliser(const sqs_keep *keep);
void sqs_find_normaliser(sqs_row *row);

sqs_status sqs_check_keep(const sqs_keep *keep);

/* Writes the tokens that the rule keeps to row->kept and row->n. */
void sqs_sparsify(sqs_row *row, const sqs_keep *keep);

/* The probability of the tokens that are not kept. It is exactly 0 if none of
 * them has an unnormalised probability above 0. */
double sqs_dropped_mass(const sqs_row *row);

#endif /* SQS_SPARSIFY_H */
