/*
 * sparsify.h - rows to the tokens kept.
 */
#ifndef SQS_SPARSIFY_H
#define SQS_SPARSIFY_H

#include "quantize/heap.h"
#include "rows/kernels.h"
#include "sqs.h"

/* A row, and the tokens kept from it. */
typedef struct sqs_row {
    const sqs_kernels *kernels;
    sqs_scanned scanned;
    bool probs;   /* otherwise logits */
    float scale;  /* of a logit, in its term's exponent */
    double total; /* the sum of terms, if sqs_row_total was called */
    sqs_taken kept;
    uint32_t n; /* tokens kept */
    sqs_ranked *heap; /* room for all */
} sqs_row;

/* Reads the row once and finds what no rule can do with. */
sqs_status sqs_row_logits(sqs_row *row, double temperature);
sqs_status sqs_row_probs(sqs_row *row);

/* Whether a rule looks at the sum of terms. */
bool sqs_needs_total(const sqs_keep *keep);
void sqs_row_total(sqs_row *row);

sqs_status sqs_check_keep(const sqs_keep *keep);

/* Takes the tokens that the rule keeps. */
void sqs_sparsify(sqs_row *row, const sqs_keep *keep);

/* The probability of the tokens that aren't kept; exactly 0 if all that have a
 * term are. */
double sqs_dropped_mass(const sqs_row *row);

#endif /* SQS_SPARSIFY_H */
