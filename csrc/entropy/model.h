/*
 * model.h - the tables and scalars of the entropy coding; written by
 * benchmarks/data/fit_model.py.
 */
#ifndef SQS_MODEL_H
#define SQS_MODEL_H

#include <stdint.h>

#define SQS_UNIFORM_CHANCE 16u
#define SQS_MORE_CHANCE 192u
#define SQS_FIRST_BUCKET_BITS 5u
#define SQS_SPLIT_FULL_DEPTH 3u
#define SQS_SPLIT_TOP_DEPTH 8u
#define SQS_SIZE_CLASSES 4u
#define SQS_RATIO_CLASSES 7u
#define SQS_MEMORY_TOKENS 512u
#define SQS_MEMORY_SUPPORT 256u
#define SQS_MEMORY_DELAY 8u
#define SQS_MEMORY_NEW_WEIGHT 1024u
#define SQS_MEMORY_LEAST_WEIGHT 32u
#define SQS_MEMORY_FADING 5u
#define SQS_MEMORY_MOST_SEEN 255u
#define SQS_CODER_BITS 56u
#define SQS_CODER_LEAST_BITS 48u
#define SQS_LOG_UNIT 32u
#define SQS_LOG_KNOT_BITS 10u
#define SQS_POWER_UNIT 31u
#define SQS_POWER_KNOT_BITS 8u

#define SQS_SPLIT_CONTEXTS 28u
#define SQS_SPLIT_NODES 12u
#define SQS_ID_BUCKETS 31u
#define SQS_LOG_KNOTS 1024u
#define SQS_POWER_KNOTS 256u

/* What all ids below 1048576 weigh. */
#define SQS_ID_TOTAL 1585801200u

/* Chances, in 256ths, that a split of a count goes up: a row for each context,
 * a column for each node. */
extern const uint8_t sqs_split_chances[SQS_SPLIT_CONTEXTS][SQS_SPLIT_NODES];

/* What one id weighs in each bucket, and all ids below it. */
extern const uint32_t sqs_id_weights[SQS_ID_BUCKETS];
extern const uint64_t sqs_id_starts[SQS_ID_BUCKETS];

/* log2(1 + i / 1024) in units of 2^-32. */
extern const uint64_t sqs_log2_table[SQS_LOG_KNOTS + 1];

/* 2^(-i / 256) in units of 2^-31. */
extern const uint32_t sqs_exp2_table[SQS_POWER_KNOTS + 1];

#endif /* SQS_MODEL_H */
