/*
 * modes.h - counts, ids and what goes with them to symbols and back; for
 * counts and ids, in one of two modes.
 *
 * Functions named write or read do the one or the other. Those named code do
 * both, by the coder's mode.
 */
#ifndef SQS_MODES_H
#define SQS_MODES_H

#include "entropy/coder.h"
#include "entropy/memory.h"
#include "sqs.h"

/* Code the counts of a distribution's k tokens, by ascending id. They sum to
 * the resolution, and k is vocab_size at most. */
void sqs_write_counts(sqs_coder *c, uint32_t vocab_size, uint32_t resolution,
                      const uint32_t *counts, uint32_t k);

/* Returns k, or more than `limit` as soon as that is certain. In that case, or
 * if the packet is truncated, the counts hold nothing of use. */
uint32_t sqs_read_counts(sqs_coder *c, uint32_t vocab_size,
                         uint32_t resolution, uint32_t *counts,
                         uint32_t limit);

/* Code the ids of a distribution's k tokens, ascending below vocab_size. The
 * memory may be empty but not null. It learns nothing but the ids' class, for
 * that of the next distribution. */
void sqs_write_ids(sqs_coder *c, const sqs_codec *codec, sqs_memory *memory,
                   const uint32_t *ids, uint32_t k);
void sqs_read_ids(sqs_coder *c, const sqs_codec *codec, sqs_memory *memory,
                  uint32_t *ids, uint32_t k);

/* Codes which of a distribution's k tokens was drawn: its position among
 * them. */
uint32_t sqs_code_position(sqs_coder *c, const uint32_t *counts, uint32_t k,
                           uint32_t resolution, uint32_t position);

/* An estimate of what a distribution takes in a packet of its own. */
typedef struct sqs_cost {
    uint64_t bits; /* in units of 2^-SQS_LOG_UNIT */
    bool modeled;  /* both counts and ids would be written in the model's mode,
                      and the estimate for them isn't rough */
} sqs_cost;

sqs_cost sqs_entropy_cost(const sqs_codec *codec, const uint32_t *ids,
                          const uint32_t *counts, uint32_t k);

#endif /* SQS_MODES_H */
