/*
 * memory.h - the tokens of recent supports, sqs_memory of sqs.h.
 *
 * Invariant, which sqs_memory_learn keeps and sqs_is_memory checks: ids ascend
 * below the vocabulary's size, weights are within the limits of the model,
 * size is at most SQS_MEMORY_TOKENS, seen at most SQS_MEMORY_MOST_SEEN, and
 * last at most what the codec's prior has classes, or 0 where none is sent.
 * What lies beyond `size` in the arrays means nothing, and is never read.
 */
#ifndef SQS_MEMORY_H
#define SQS_MEMORY_H

#include <stdbool.h>

#include "sqs.h"

/* Makes a memory empty; writes no more than it must. */
void sqs_memory_clear(sqs_memory *memory);

/* Whether a memory from anywhere keeps to the invariant. */
bool sqs_is_memory(const sqs_memory *memory, const sqs_codec *codec);

/* Lets a memory fade and adds a support to it, k ids that ascend below the
 * vocabulary's size. A support of more than SQS_MEMORY_SUPPORT ids changes
 * nothing. `last` stays: it is of sqs_write_ids and sqs_read_ids. */
void sqs_memory_learn(sqs_memory *memory, const uint32_t *ids, uint32_t k);

#endif /* SQS_MEMORY_H */
