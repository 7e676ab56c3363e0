/*
 * memory.h - the tokens of recent supports.
 */
#ifndef SQS_MEMORY_H
#define SQS_MEMORY_H

#include <stdbool.h>

#include "sqs.h"

/* Makes a memory empty, without writing all of it. */
void sqs_memory_clear(sqs_memory *memory);

/* Whether all fields are within the limits that learning keeps them to. */
bool sqs_is_memory(const sqs_memory *memory, uint32_t vocab_size);

/* Lets a memory fade and adds a support to it, unless it is larger than
 * SQS_MEMORY_SUPPORT. */
void sqs_memory_learn(sqs_memory *memory, const uint32_t *ids, uint32_t k);

#endif /* SQS_MEMORY_H */
