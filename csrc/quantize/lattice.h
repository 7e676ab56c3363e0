/*
 * lattice.h - weights to counts.
 */
#ifndef SQS_LATTICE_H
#define SQS_LATTICE_H

#include <stdint.h>

#include "quantize/heap.h"

/*
 * Rounds n weights (up to a common factor) to n counts that sum to resolution,
 * some of them 0. heap has room for n.
 */
void sqs_lattice(const double *weights, uint32_t n, uint32_t resolution,
                 sqs_ranked *heap, uint32_t *counts);

#endif /* SQS_LATTICE_H */
