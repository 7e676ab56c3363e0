/*
 * lattice.h - weights to counts.
 */
#ifndef SQS_LATTICE_H
#define SQS_LATTICE_H

#include <stdint.h>

#include "quantize/heap.h"

/*
 * Rounds n > 0 weights to n counts that sum to the resolution; some may be 0.
 * Weights need not be normalized, and at least one is above 0. `heap` is
 * scratch for n items.
 */
void sqs_lattice(const double *weights, uint32_t n, uint32_t resolution,
                 sqs_ranked *heap, uint32_t *counts);

#endif /* SQS_LATTICE_H */
