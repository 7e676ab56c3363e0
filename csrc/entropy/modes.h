/*
 * modes.h - counts and ids, in one of two modes, and positions to symbols and
 * back.
 *
 * Functions named `code` write or read, depending on the coder's mode.
 */
#ifndef SQS_MODES_H
#define SQS_MODES_H

#include "entropy/coder.h"
#include "entropy/memory.h"
#include "sqs.h"

/* Writes the counts of a distribution's k <= vocab_size tokens, by ascending
 * id. They sum to the resolution. */
void sqs_write_counts(sqs_coder *c, uint32_t vocab_size, uint32_t resolution,
                      const uint32_t *counts, uint32_t k);

/* Reads counts and returns k, or more than `limit` as soon as that is certain.
 * In that case, or if the packet is truncated, the counts mean nothing. */
uint32_t sqs_read_counts(sqs_coder *c, uint32_t vocab_size,
                         uint32_t resolution, uint32_t *counts,
                         uint32_t limit);

/* Write and read the ids of a distribution's k tokens, ascending below
 * vocab_size. The memory may be empty, but not null. Only its `last` changes.
 */
void sqs_write_ids(sqs_coder *c, const sqs_codec *codec, sqs_memory *memory,
                   const uint32_t *ids, uint32_t k);
void sqs_read_ids(sqs_coder *c, const sqs_codec *codec, sqs_memory *memory,
                  uint32_t *ids, uint32_t k);

/* Codes the position of the drafted token among a distribution's k tokens. */
uint32_t sqs_code_position(sqs_coder *c, const uint32_t *counts, uint32_t k,
                           uint32_t resolution, uint32_t position);

/* The estimated cost of a distribution in a packet of its own. */
typedef struct sqs_cost {
    uint64_t bits; /* in units of 2^-SQS_LOG_UNIT */
    bool modeled;  /* both counts and ids would use the model's mode, and the
                      estimate isn't rough */
} sqs_cost;

sqs_cost sqs_entropy_cost(const sqs_codec *codec, const uint32_t *ids,
                          const uint32_t *counts, uint32_t k);

#endif /* SQS_MODES_H */
