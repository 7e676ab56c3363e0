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

/* The arguments have been checked; rows of probabilities don't look at the
 * temperature, which must not be 0 then. The quantizer keeps `keep` and
 * the scratch, sqs_quantize_scratch(codec) bytes. */
sqs_quantizer sqs_make_quantizer(const sqs_codec *codec, const sqs_rows *rows,
                                 bool probs, double temperature,
                                 const sqs_keep *keep, void *scratch);

/* What becomes of a row. */
typedef struct sqs_outcome {
    uint32_t *ids, *counts; /* room for what sqs_sparse_room asks for a row */
    uint32_t survivors;
    double *dropped_mass; /* null if it isn't wanted */
} sqs_outcome;

/* Quantizes row i of those that the quantizer was made for. Writes `out`, if
 * SQS_OK is returned. */
sqs_status sqs_quantize_row(sqs_quantizer *q, const sqs_rows *rows, uint32_t i,
                            sqs_outcome *out);

#endif /* SQS_QUANTIZE_H */
