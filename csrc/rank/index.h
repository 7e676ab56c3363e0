/*
 * index.h - supports and compositions to exact ranks and back.
 *
 * All functions are about distributions with a support of k out of n tokens,
 * 1 <= k <= min(n, resolution, SQS_MAX_ENUMERATIVE_SUPPORT). They check
 * nothing.
 */
#ifndef SQS_INDEX_H
#define SQS_INDEX_H

#include "rank/big.h"
#include "sqs.h"

/* Writes the number of distributions: C(n, k) * C(resolution - 1, k - 1). */
void sqs_index_size(sqs_big *size, uint32_t n, uint32_t resolution,
                    uint32_t k);

/* Writes the rank of a distribution, which is below sqs_index_size. The k ids
 * ascend; the k counts are >= 1 and sum to the resolution. */
void sqs_index_rank(sqs_big *rank, const uint32_t *ids, const uint32_t *counts,
                    uint32_t k, uint32_t resolution);

/* Writes the k ids and k counts of the distribution with this rank, which must
 * be below sqs_index_size and is overwritten. */
void sqs_index_unrank(sqs_big *rank, uint32_t n, uint32_t resolution,
                      uint32_t k, uint32_t *ids, uint32_t *counts);

#endif /* SQS_INDEX_H */
