/*
 * memory.h - the tokens of recent supports, sqs_memory of sqs.h.
 *
 * Invariant, which sqs_memory_learn keeps and sqs_is_memory checks: ids ascend
 * below the vocabulary's size, weights are within the limits of the model,
 * size is at most SQS_MEMORY_TOKENS and seen at most SQS_MEMORY_MOST_SEEN.
 * What lies beyond `size` in the arrays means nothing, and is never read.
 */
#ifndef SQS_MEMORY_H
#define SQS_MEMORY_H

#include <stdbool.h>

#include "sqs.h"

/* Makes a memory empty; writes no more than it must. */
void sqs_memory_clear(sqs_memory *memory);

/* Whether a memory from anywhere keeps to the invariant. */
bool sqs_is_memory(const sqs_memory *memory, uint32_t vocab_size);

/* Lets a memory fade and adds a support to it, k ids that ascend below the
 * vocabulary's size. A support of more than SQS_MEMORY_SUPPORT ids changes
 * nothing. */
void sqs_memory_learn(sqs_memory *memory, const uint32_t *ids, uint32_t k);

#endif /* SQS_MEMORY_H */
