/*
 * counts.h - counts as a partition and an arrangement.
 */
#ifndef SQS_COUNTS_H
#define SQS_COUNTS_H

#include "entropy/coder.h"
#include "sqs.h"

/* The most different counts that a distribution can have: 1 + 2 + ... + 361 is
 * the largest such sum up to 2^16, the largest resolution. */
#define SQS_MAX_GROUPS 361u
_Static_assert(SQS_MAX_RESOLUTION >=
                       SQS_MAX_GROUPS * (SQS_MAX_GROUPS + 1) / 2 &&
                   SQS_MAX_RESOLUTION <
                       (SQS_MAX_GROUPS + 1) * (SQS_MAX_GROUPS + 2) / 2,
               "SQS_MAX_GROUPS follows from the largest resolution");

/* A partition: the different counts, descending, and how many tokens have
 * each. */
typedef struct sqs_groups {
    uint32_t n;
    uint32_t count[SQS_MAX_GROUPS];
    uint32_t size[SQS_MAX_GROUPS];
} sqs_groups;

/* Groups k counts, in any order. Each must be 1 or more, and their sum at most
 * SQS_MAX_RESOLUTION: arrays have no room for more. */
void sqs_make_groups(const uint32_t *counts, uint32_t k, sqs_groups *g);

/* Writes or meters groups whose counts sum to the resolution, with at most
 * vocab_size tokens. */
void sqs_write_partition(sqs_coder *c, uint32_t vocab_size,
                         uint32_t resolution, const sqs_groups *g);

/* Reads groups and returns their number of tokens, or more than `limit` as
 * soon as that is certain. In that case, or if the packet is truncated, the
 * groups mean nothing. */
uint32_t sqs_read_partition(sqs_coder *c, uint32_t vocab_size,
                            uint32_t resolution, uint32_t limit,
                            sqs_groups *g);

/* Codes the counts of k tokens, by ascending id. k is the sum of all group
 * sizes; the groups are used up. */
void sqs_code_arrangement(sqs_coder *c, sqs_groups *g, uint32_t k,
                          sqs_values counts);

#endif /* SQS_COUNTS_H */
