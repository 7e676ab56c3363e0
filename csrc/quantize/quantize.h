/*
 * quantize.h - a row to a distribution: sparsify, weigh, round.
 */
#ifndef SQS_QUANTIZE_H
#define SQS_QUANTIZE_H

#include "quantize/sparsify.h"
#include "sqs.h"

/* How the rows of one call are quantized, and scratch for one of them. */
typedef struct sqs_quantizer {
    const sqs_keep *keep;
    double temperature;
    uint32_t resolution;
    sqs_row row;
    double *weights;  /* of the tokens kept; they replace row.kept.values */
    uint32_t *counts; /* of the tokens kept, some of them 0 */
} sqs_quantizer;

/* Arguments must have been checked. For probabilities, pass temperature 1.
 * `keep` and the scratch, of sqs_quantize_scratch(codec) bytes, must outlive
 * the quantizer. */
sqs_quantizer sqs_make_quantizer(const sqs_codec *codec, const sqs_rows *rows,
                                 bool probs, double temperature,
                                 const sqs_keep *keep, void *scratch);

/* The distribution of one row. */
typedef struct sqs_outcome {
    uint32_t *ids, *counts; /* room as in sqs_sparse_room */
    uint32_t survivors;
    double *dropped_mass; /* may be null */
} sqs_outcome;

/* Quantizes row i; `out` is written if SQS_OK is returned. */
sqs_status sqs_quantize_row(sqs_quantizer *q, const sqs_rows *rows, uint32_t i,
                            sqs_outcome *out);

#endif /* SQS_QUANTIZE_H */
