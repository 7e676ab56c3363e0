/*
 * ids.h - the weights of token ids, and R(x), the weight of all ids from x on.
 *
 * Each id has a static weight, from its bucket or from a class of a prior. The
 * memory adds `unit` times its weight of the id.
 */
#ifndef SQS_IDS_H
#define SQS_IDS_H

#include <stdbool.h>

#include "entropy/fixed.h"
#include "entropy/memory.h"
#include "entropy/prior.h"
#include "sqs.h"

typedef struct sqs_ids {
    const sqs_prior *prior; /* null for buckets */
    uint32_t in_class;
    const sqs_memory *memory; /* read only if unit > 0 */
    uint64_t unit;            /* U of docs/format.md; 0 without a memory */
    uint64_t whole;           /* R(0) */
    uint64_t below[SQS_MEMORY_TOKENS + 1]; /* below[i]: the sum of the first i
                                              weights of the memory */
} sqs_ids;

/* Makes the weights of a codec's ids, in one class if it has a prior. The
 * memory may be null. Otherwise it must outlive the weights, and its tokens
 * must not change. */
void sqs_make_ids(sqs_ids *m, const sqs_codec *codec, uint32_t in_class,
                  const sqs_memory *memory);

/* Bucket 0 has all ids below 2^SQS_FIRST_BUCKET_BITS. Every octave above that
 * has two buckets, for its lower and upper half. If the two highest bits of an
 * id have the value v, 2 or 3, and t bits follow them, the id's bucket is
 * v + 2 t - SQS_BUCKETS_BEFORE. Bucket 1 begins with 2 << 4. */
#define SQS_BUCKETS_BEFORE (2 + 2 * (SQS_FIRST_BUCKET_BITS - 1) - 1)

/* The sum of the bucket weights of all lower ids. */
static inline uint64_t sqs_bucket_weight_below(uint32_t id)
{
    if (id < 1u << SQS_FIRST_BUCKET_BITS)
        return (uint64_t)id * sqs_id_weights[0];
    uint32_t step_bits = sqs_floor_log2(id) - 1;
    uint32_t bucket = (id >> step_bits) + 2 * step_bits - SQS_BUCKETS_BEFORE;
    uint64_t past = id & ((1u << step_bits) - 1);
    return sqs_id_starts[bucket] + past * sqs_id_weights[bucket];
}

/* A place near recently used ids, where searches start: the next id is usually
 * close. Any place is valid; all zero to begin with. */
typedef struct sqs_place {
    uint32_t at; /* how many of the memory's ids are below */
    sqs_prior_place in_prior;
} sqs_place;

/* The sum of the static weights of all lower ids. `prior`, here and below, is
 * m->prior != NULL as a constant, so that loops without a prior compile
 * without its code. */
SQS_INLINE uint64_t sqs_static_weight_below(const sqs_ids *m, bool prior,
                                            uint32_t id, sqs_place *place)
{
    if (prior)
        return sqs_prior_below(m->prior, m->in_class, id, &place->in_prior);
    return sqs_bucket_weight_below(id);
}

/* R(id). */
SQS_INLINE uint64_t sqs_ids_rest(const sqs_ids *m, bool prior, uint32_t id,
                                 sqs_place *place)
{
    uint64_t rest = m->whole - sqs_static_weight_below(m, prior, id, place);
    if (m->unit == 0)
        return rest;
    uint32_t at = place->at;
    while (at < m->memory->size && m->memory->ids[at] < id)
        at++;
    while (at > 0 && m->memory->ids[at - 1] >= id)
        at--;
    place->at = at;
    return rest - m->unit * m->below[at];
}

/* The inverse: the last id from `start` on with an R of about `rest` or more,
 * or `start` if there is none. sqs_prior_ids_at is for models with a prior;
 * with `rough`, it returns an id nearby in less time. */
uint32_t sqs_ids_at(const sqs_ids *m, uint64_t rest, uint32_t start,
                    sqs_place *place);
uint32_t sqs_prior_ids_at(const sqs_ids *m, uint64_t rest, uint32_t start,
                          bool rough, sqs_place *place);

#endif /* SQS_IDS_H */
