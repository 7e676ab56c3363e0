/*
 * ids.h - what ids weigh: those of low ranks, and those seen of late.
 */
#ifndef SQS_IDS_H
#define SQS_IDS_H

#include "entropy/fixed.h"
#include "sqs.h"

/* The weights of buckets of ids and, times `unit`, those of the memory, if
 * there is one. */
typedef struct sqs_ids {
    const sqs_memory *memory;
    uint64_t unit;
    uint64_t whole;                         /* what all ids weigh */
    uint64_t below[SQS_MEMORY_TOKENS + 1]; /* what earlier tokens of the memory
                                               weigh, in units */
} sqs_ids;

/* `memory` may be null. */
void sqs_make_ids(sqs_ids *m, uint32_t vocab_size, const sqs_memory *memory);

/* Buckets of half an octave: the first has all ids below 2^5, the second starts
 * at 2 << 4. The two highest bits of an id, and twice the number of those that
 * follow, are its bucket plus SQS_BUCKETS_BEFORE. */
#define SQS_BUCKETS_BEFORE (2 + 2 * (SQS_FIRST_BUCKET_BITS - 1) - 1)

/* What all ids below one weigh by their buckets. */
static inline uint64_t sqs_static_weight_below(uint32_t id)
{
    if (id < 1u << SQS_FIRST_BUCKET_BITS)
        return (uint64_t)id * sqs_id_weights[0];
    uint32_t step_bits = sqs_floor_log2(id) - 1;
    uint32_t bucket = (id >> step_bits) + 2 * step_bits - SQS_BUCKETS_BEFORE;
    uint64_t past = id & ((1u << step_bits) - 1);
    return sqs_id_starts[bucket] + past * sqs_id_weights[bucket];
}

/* The two below look for a place in the memory, which is how many of its ids
 * are below an id, from *place on, and leave it there. */

/* What an id and all above it weigh. */
static inline uint64_t sqs_ids_rest(const sqs_ids *m, uint32_t id,
                                    uint32_t *place)
{
    uint64_t rest = m->whole - sqs_static_weight_below(id);
    if (m->unit == 0)
        return rest;
    uint32_t at = *place;
    while (at < m->memory->size && m->memory->ids[at] < id)
        at++;
    while (at > 0 && m->memory->ids[at - 1] >= id)
        at--;
    *place = at;
    return rest - m->unit * m->below[at];
}

/* The last id of about that rest or more. Neither it nor its place is before
 * `start` and *place. */
uint32_t sqs_ids_at(const sqs_ids *m, uint64_t rest, uint32_t start,
                    uint32_t *place);

#endif /* SQS_IDS_H */
