/*
 * sets.h - sets of numbers, weighted or not.
 *
 * Members ascend below `size`, so n <= size. Nothing is checked when writing.
 * When reading, any bits give such members; if the packet is truncated, not
 * all of them are written.
 */
#ifndef SQS_SETS_H
#define SQS_SETS_H

#include "entropy/coder.h"
#include "entropy/ids.h"

/* log2 R(x) and log2 R(x + 1) of a member x of a set of ids. */
typedef struct sqs_logs {
    uint64_t here, next;
} sqs_logs;

/* Estimating keeps the logarithms of so many members for writing. */
#define SQS_KNOWN_LOGS 128u

typedef struct sqs_members_cost {
    uint64_t bits; /* an estimate, in units of 2^-SQS_LOG_UNIT */
    bool rough;    /* the estimate may be several bits too high */
} sqs_members_cost;

/* What it would cost to write n of the ids below `size`. Writes as many of
 * `known` as there are members. */
sqs_members_cost sqs_cost_of_members(const sqs_ids *model, uint32_t size,
                                     const uint32_t *ids, uint32_t n,
                                     sqs_logs known[SQS_KNOWN_LOGS]);

/* Code n of the ids below `size`, each as likely as its weight in the model;
 * `known` is what sqs_cost_of_members has written for the same set. */
void sqs_write_members(sqs_coder *c, const sqs_ids *model, uint32_t size,
                       const uint32_t *ids, uint32_t n,
                       const sqs_logs known[SQS_KNOWN_LOGS]);
void sqs_read_members(sqs_coder *c, const sqs_ids *model, uint32_t size,
                      uint32_t *ids, uint32_t n);

/* Codes n of the numbers below `size`, all such sets being equally likely.
 * Given or found are the members; or, if `distances`, the distances between
 * them, the first one from -1: those between the cuts of a composition are its
 * counts. */
void sqs_code_uniform_set(sqs_coder *c, uint32_t n, uint32_t size,
                          sqs_values members, bool distances);

#endif /* SQS_SETS_H */
