/*
 * ids.h - what token ids weigh: R(x), the weight of all ids from x on.
 *
 * Each id has a static weight, that of its bucket or that in a class of a
 * prior, and ids of the memory weigh more: `unit` times their weight there.
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
    const sqs_memory *memory; /* read only where unit is above 0 */
    uint64_t unit;            /* U of docs/format.md; 0 without a memory */
    uint64_t whole;           /* R(0) */
    uint64_t below[SQS_MEMORY_TOKENS + 1]; /* below[i]: the sum of the first i
                                              weights of the memory */
} sqs_ids;

/* The weights of a codec's ids, those of one class if it has a prior. The
 * memory may be null; otherwise it is kept, must be valid, and its tokens must
 * not change. */
void sqs_make_ids(sqs_ids *m, const sqs_codec *codec, uint32_t in_class,
                  const sqs_memory *memory);

/* Bucket 0 has all ids below 2^SQS_FIRST_BUCKET_BITS; every octave above that
 * has two buckets, its lower and its upper half. Let the two highest bits of
 * an id have the value v, 2 or 3, and let t bits follow them. The id's bucket
 * is v + 2 t - SQS_BUCKETS_BEFORE: bucket 1 begins with 2 << 4. */
#define SQS_BUCKETS_BEFORE (2 + 2 * (SQS_FIRST_BUCKET_BITS - 1) - 1)

/* The weights of all lower ids' buckets, summed. */
static inline uint64_t sqs_bucket_weight_below(uint32_t id)
{
    if (id < 1u << SQS_FIRST_BUCKET_BITS)
        return (uint64_t)id * sqs_id_weights[0];
    uint32_t step_bits = sqs_floor_log2(id) - 1;
    uint32_t bucket = (id >> step_bits) + 2 * step_bits - SQS_BUCKETS_BEFORE;
    uint64_t past = id & ((1u << step_bits) - 1);
    return sqs_id_starts[bucket] + past * sqs_id_weights[bucket];
}

/* Where an id is, or another one not far from it. The functions below step
 * from a place, which may be any, to their id: the next one asked for is
 * seldom far. All zero to begin with. */
typedef struct sqs_place {
    uint32_t at; /* how many of the memory's ids are below */
    sqs_prior_place in_prior;
} sqs_place;

/* The static weights of all lower ids, summed; `prior` says whether there is
 * one, here and below. Loops know that when compiled, so that those without
 * one have nothing to do with it. */
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

/* The other way round: the last id from `start` on with an R of about `rest`
 * or more; `start` if there is none. With a prior, if `rough`, one not far
 * from it will do. */
uint32_t sqs_ids_at(const sqs_ids *m, uint64_t rest, uint32_t start,
                    sqs_place *place);
uint32_t sqs_prior_ids_at(const sqs_ids *m, uint64_t rest, uint32_t start,
                          bool rough, sqs_place *place);

#endif /* SQS_IDS_H */
