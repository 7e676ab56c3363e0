/*
 * counts.h - counts of language models: a partition and its arrangement.
 */
#ifndef SQS_COUNTS_H
#define SQS_COUNTS_H

#include "entropy/coder.h"
#include "sqs.h"

/* How many different counts a distribution can have: 1 + 2 + ... + 361 is the
 * last such sum that does not exceed 2^16, the largest resolution. */
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

/* Writes the groups of k counts, in any order. Each must be 1 or more, and
 * their sum at most SQS_MAX_RESOLUTION: both this function's own arrays and
 * those of the groups are as large as that needs, and no larger. */
void sqs_make_groups(const uint32_t *counts, uint32_t k, sqs_groups *g);

/* Codes the groups, whose counts sum to the resolution and have vocab_size
 * tokens at most; c writes or meters. */
void sqs_write_partition(sqs_coder *c, uint32_t vocab_size,
                         uint32_t resolution, const sqs_groups *g);

/* Reads groups, and returns how many tokens they have; or more than `limit`,
 * as soon as that is certain. Then, or if the packet is truncated, the groups
 * hold nothing of use. */
uint32_t sqs_read_partition(sqs_coder *c, uint32_t vocab_size,
                            uint32_t resolution, uint32_t limit,
                            sqs_groups *g);

/* Codes which of k tokens, by ascending id, has which count; k is the size of
 * all groups together, which are used up. */
void sqs_code_arrangement(sqs_coder *c, sqs_groups *g, uint32_t k,
                          sqs_values counts);

#endif /* SQS_COUNTS_H */
