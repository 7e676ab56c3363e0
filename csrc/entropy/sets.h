/*
 * sets.h - sets of numbers, weighted or not.
 */
#ifndef SQS_SETS_H
#define SQS_SETS_H

#include "entropy/coder.h"
#include "entropy/ids.h"

/* Logarithms of what ids weigh, from the own one and from the next one on. */
typedef struct sqs_logs {
    uint64_t own, next;
} sqs_logs;

/* Those of this many members are kept between weighing them and writing. */
#define SQS_KNOWN_LOGS 128u

typedef struct sqs_members_cost {
    uint64_t bits; /* about, in units of 2^-32 */
    bool rough;    /* may be several bits too high */
} sqs_members_cost;

sqs_members_cost sqs_cost_of_members(const sqs_ids *model, uint32_t size,
                                     const uint32_t *ids, uint32_t n,
                                     sqs_logs known[SQS_KNOWN_LOGS]);

/* Code n of the ids below `size`, each as likely as the model says; `known` is
 * from sqs_cost_of_members. */
void sqs_write_members(sqs_coder *c, const sqs_ids *model, uint32_t size,
                       const uint32_t *ids, uint32_t n,
                       const sqs_logs known[SQS_KNOWN_LOGS]);
void sqs_read_members(sqs_coder *c, const sqs_ids *model, uint32_t size,
                      uint32_t *ids, uint32_t n);

/* Code n of the numbers below `size`; any such set is equally likely. Given
 * or found are its members or, as counts are the distances between the cuts
 * of a composition, the distances between them. */
void sqs_code_uniform_set(sqs_coder *c, uint32_t n, uint32_t size,
                          sqs_values members, bool distances);

#endif /* SQS_SETS_H */
