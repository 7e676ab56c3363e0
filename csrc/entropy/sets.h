/*
 * sets.h - sets of numbers, weighted or not.
 *
 * Members ascend below `size`, so n <= size. Writing checks nothing. Reading
 * yields such members from any bits; if the packet is truncated, not all of
 * them are written.
 */
#ifndef SQS_SETS_H
#define SQS_SETS_H

#include "entropy/coder.h"
#include "entropy/ids.h"

/* log2 R(x) and log2 R(x + 1) of a member x of a set of ids. */
typedef struct sqs_logs {
    uint64_t here, next;
} sqs_logs;

/* Estimating keeps the logarithms of at most this many members for writing. */
#define SQS_KNOWN_LOGS 128u

typedef struct sqs_members_cost {
    uint64_t bits; /* an estimate, in units of 2^-SQS_LOG_UNIT */
    bool rough;    /* the estimate may be several bits too high */
} sqs_members_cost;

/* Estimates the cost of writing n of the ids below `size`. Also writes the
 * logarithms of the first members to `known`. */
sqs_members_cost sqs_cost_of_members(const sqs_ids *model, uint32_t size,
                                     const uint32_t *ids, uint32_t n,
                                     sqs_logs known[SQS_KNOWN_LOGS]);

/* Write and read n of the ids below `size`, each as likely as its weight in
 * the model. sqs_cost_of_members has written `known` for the same set. */
void sqs_write_members(sqs_coder *c, const sqs_ids *model, uint32_t size,
                       const uint32_t *ids, uint32_t n,
                       const sqs_logs known[SQS_KNOWN_LOGS]);
void sqs_read_members(sqs_coder *c, const sqs_ids *model, uint32_t size,
                      uint32_t *ids, uint32_t n);

/* Codes n of the numbers below `size`, where all such sets are equally likely.
 * `members` holds the members or, if `distances`, the distances between them,
 * the first from -1: if members are the cuts of a composition, these are its
 * counts. */
void sqs_code_uniform_set(sqs_coder *c, uint32_t n, uint32_t size,
                          sqs_values members, bool distances);

#endif /* SQS_SETS_H */
