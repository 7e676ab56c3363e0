/*
 * entropy.h - the models of the entropy coding.
 */
#ifndef SQS_ENTROPY_H
#define SQS_ENTROPY_H

#include "entropy/coder.h"
#include "sqs.h"

/* Code the counts of a distribution's k tokens by ascending id. */
void sqs_write_counts(sqs_coder *c, uint32_t vocab_size, uint32_t resolution,
                      const uint32_t *counts, uint32_t k);

/* Returns k, or more than `limit` as soon as k is known to be that. In that
 * case, or if the packet is truncated, the counts hold nothing of use. */
uint32_t sqs_read_counts(sqs_coder *c, uint32_t vocab_size,
                         uint32_t resolution, uint32_t *counts,
                         uint32_t limit);

/* Code the ids of a distribution's k tokens. */
void sqs_write_ids(sqs_coder *c, uint32_t vocab_size, const sqs_memory *memory,
                   const uint32_t *ids, uint32_t k);
void sqs_read_ids(sqs_coder *c, uint32_t vocab_size, const sqs_memory *memory,
                  uint32_t *ids, uint32_t k);

/* Codes which of its k tokens was drawn from a distribution. */
uint32_t sqs_code_position(sqs_coder *c, const uint32_t *counts, uint32_t k,
                           uint32_t resolution, uint32_t position);

/* Code a token, and its count, without their distribution. */
uint32_t sqs_code_token(sqs_coder *c, uint32_t vocab_size, uint32_t token);
uint32_t sqs_code_token_count(sqs_coder *c, uint32_t resolution,
                              uint32_t count);

/* About what counts and ids take in a distribution that stands alone. */
typedef struct sqs_cost {
    uint64_t bits; /* in units of 2^-32 */
    bool close;    /* to what is spent, within a bit */
} sqs_cost;

sqs_cost sqs_entropy_cost(uint32_t vocab_size, uint32_t resolution,
                          const uint32_t *ids, const uint32_t *counts,
                          uint32_t k);

#endif /* SQS_ENTROPY_H */
