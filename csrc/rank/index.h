/*
 * index.h - supports and compositions to exact ranks and back.
 *
 * All functions are about distributions with k survivors out of n tokens, and
 * check nothing. 1 <= k <= min(n, resolution, SQS_MAX_ENUMERATIVE_SUPPORT).
 */
#ifndef SQS_INDEX_H
#define SQS_INDEX_H

#include "rank/big.h"
#include "sqs.h"

/* Writes how many there are: C(n, k) * C(resolution - 1, k - 1). */
void sqs_index_size(sqs_big *size, uint32_t n, uint32_t resolution,
                    uint32_t k);

/* Writes the rank of one, which is below that size. Its k ids ascend, its k
 * counts are >= 1 and sum to resolution. */
void sqs_index_rank(sqs_big *rank, const uint32_t *ids, const uint32_t *counts,
                    uint32_t k, uint32_t resolution);

/* Writes the k ids and k counts of the one whose rank this is. The rank must
 * be below that size, and is overwritten. */
void sqs_index_unrank(sqs_big *rank, uint32_t n, uint32_t resolution,
                      uint32_t k, uint32_t *ids, uint32_t *counts);

#endif /* SQS_INDEX_H */
