/*
 * quantize.h - a row to a distribution: sparsify, weigh, round.
 */
#ifndef SQS_QUANTIZE_H
#define SQS_QUANTIZE_H

#include "quantize/sparsify.h"
#include "sqs.h"

/* How the rows of one call are turned, and scratch for one of them. */
typedef struct sqs_quantizer {
    const sqs_keep *keep;
    double temperature;
    uint32_t resolution;
    sqs_row row;
    double *weights;  /* room for the tokens kept */
    uint32_t *counts; /* the same, before those of 0 are left out */
} sqs_quantizer;

/* Bytes of scratch for rows of so many values, aligned as malloc aligns. */
size_t sqs_quantizer_scratch(uint32_t vocab_size);

/* The arguments have been checked; `temperature` is of logits. `scratch` is the
 * quantizer's as long as that is used. */
sqs_quantizer sqs_make_quantizer(const sqs_codec *codec, const sqs_rows *rows,
                                 bool probs, double temperature,
                                 const sqs_keep *keep, void *scratch);

/* What becomes of a row. */
typedef struct sqs_outcome {
    uint32_t *ids, *counts; /* room for what sqs_quantized asks for a row */
    uint32_t survivors;
    double *dropped_mass; /* null if it isn't wanted */
} sqs_outcome;

/* Quantizes row i. */
sqs_status sqs_quantize_row(sqs_quantizer *q, const sqs_rows *rows, uint32_t i,
                            sqs_outcome *out);

#endif /* SQS_QUANTIZE_H */
