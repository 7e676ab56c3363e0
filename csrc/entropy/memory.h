/*
 * memory.h - what is known of earlier distributions: the tokens of recent
 * supports.
 */
#ifndef SQS_MEMORY_H
#define SQS_MEMORY_H

#include "entropy/model.h"

/* What lies beyond `size` in the arrays means nothing, and is never read. */
typedef struct sqs_memory {
    uint32_t size; /* tokens known, up to SQS_MEMORY_TOKENS */
    uint32_t seen; /* supports so far, up to SQS_MEMORY_MOST_SEEN */
    uint32_t last; /* with a prior of several classes: 1 + the class of the
                      last distribution that had one; otherwise 0 */
    uint32_t ids[SQS_MEMORY_TOKENS];     /* `size` ids, ascending */
    uint32_t weights[SQS_MEMORY_TOKENS]; /* of each: how often and recently it
                                            came */
} sqs_memory;

/* Makes a memory empty; writes no more than it must. */
void sqs_memory_clear(sqs_memory *memory);

/* Lets a memory fade and adds a support to it, k ids that ascend below the
 * vocabulary's size. A support of more than SQS_MEMORY_SUPPORT ids changes
 * nothing. `last` stays: it is of sqs_write_ids and sqs_read_ids. */
void sqs_memory_learn(sqs_memory *memory, const uint32_t *ids, uint32_t k);

#endif /* SQS_MEMORY_H */
