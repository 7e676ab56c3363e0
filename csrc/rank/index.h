/*
 * index.h - supports and compositions to exact ranks and back.
 */
#ifndef SQS_INDEX_H
#define SQS_INDEX_H

#include "rank/big.h"
#include "sqs.h"

/*
 * The number of distributions with k survivors out of n tokens:
 * C(n, k) * C(resolution - 1, k - 1).
 * 1 <= k <= min(n, resolution, SQS_MAX_ENUMERATIVE_SUPPORT).
 */
void sqs_index_size(sqs_big *size, uint32_t n, uint32_t resolution,
                    uint32_t k);

/* The rank, below that size, of a distribution; ids ascend, counts are >= 1
 * and sum to resolution. */
void sqs_index_rank(sqs_big *rank, const uint32_t *ids,
                    const uint32_t *counts, uint32_t k, uint32_t resolution);

/* The distribution of a rank below that size; `rank` is used up. */
void sqs_index_unrank(sqs_big *rank, uint32_t n, uint32_t resolution,
                      uint32_t k, uint32_t *ids, uint32_t *counts);

#endif /* SQS_INDEX_H */
