/*
 * memory.h - the tokens of recent supports.
 */
#ifndef SQS_MEMORY_H
#define SQS_MEMORY_H

#include "entropy/model.h"

/* Arrays are never read beyond `size`. */
typedef struct sqs_memory {
    uint32_t size; /* remembered tokens, up to SQS_MEMORY_TOKENS */
    uint32_t seen; /* supports so far, up to SQS_MEMORY_MOST_SEEN */
    uint32_t last; /* with a prior of several classes: 1 + the class of the
                      last distribution that had one; otherwise 0 */
    uint32_t ids[SQS_MEMORY_TOKENS];     /* ascending */
    uint32_t weights[SQS_MEMORY_TOKENS]; /* how often and recently each came */
} sqs_memory;

/* Empties a memory, without writing to its arrays. */
void sqs_memory_clear(sqs_memory *memory);

/* Fades the weights and adds a support of k ascending ids. A support of more
 * than SQS_MEMORY_SUPPORT ids changes nothing. `last` stays: sqs_write_ids and
 * sqs_read_ids set it. */
void sqs_memory_learn(sqs_memory *memory, const uint32_t *ids, uint32_t k);

#endif /* SQS_MEMORY_H */
