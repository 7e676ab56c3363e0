/*
 * lattice.h - weights to counts.
 */
#ifndef SQS_LATTICE_H
#define SQS_LATTICE_H

#include <stdint.h>

#include "quantize/heap.h"

/*
 * Rounds n > 0 weights, which need not be normalized and of which one is above
 * 0, to n counts that sum to resolution; some may be 0. heap is scratch for n.
 */
void sqs_lattice(const double *weights, uint32_t n, uint32_t resolution,
                 sqs_ranked *heap, uint32_t *counts);

#endif /* SQS_LATTICE_H */
