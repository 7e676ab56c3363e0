/*
 * ids.c - the weights of token ids.
 *
 * Static weights come from a prior, see prior.c. Without a prior, buckets of
 * half an octave have weights: tokenizers merge the most frequent pairs first,
 * so low ids are frequent tokens. Tokens of recent supports weigh more, see
 * sqs_memory.
 *
 * A set's members are searched in ascending order, so each search for a bucket
 * or a place in the memory starts where the last one ended.
 */
#include "entropy/ids.h"

static uint32_t bucket_of(uint32_t id)
{
    if (id < 1u << SQS_FIRST_BUCKET_BITS)
        return 0;
    uint32_t step_bits = sqs_floor_log2(id) - 1;
    return (id >> step_bits) + 2 * step_bits - SQS_BUCKETS_BEFORE;
}

static uint32_t bucket_start(uint32_t bucket)
{
    if (bucket == 0)
        return 0;
    uint32_t sum = bucket + SQS_BUCKETS_BEFORE;
    return (2 + sum % 2) << (sum / 2 - 1);
}

/* Whether another bucket follows, and all ids before it weigh at most `below`
 * in total. */
static bool ends_before(uint32_t bucket, uint64_t below)
{
    return bucket + 1 < SQS_ID_BUCKETS && sqs_id_starts[bucket + 1] <= below;
}

/* The largest id such that the weights of all lower ids' buckets sum to at
 * most `below`, or `start` if that is larger. */
static uint32_t bucket_id(uint64_t below, uint32_t start)
{
    uint32_t bucket = bucket_of(start);
    bucket += ends_before(bucket, below); /* seldom more than one ahead */
    while (ends_before(bucket, below))
        bucket++;
    if (below < sqs_id_starts[bucket])
        return start;
    uint32_t past = (uint32_t)(below - sqs_id_starts[bucket]);
    uint32_t id = bucket_start(bucket) + past / sqs_id_weights[bucket];
    return id > start ? id : start;
}

static uint64_t static_whole(const sqs_codec *codec, uint32_t in_class)
{
    uint32_t last = codec->vocab_size - 1;
    if (codec->prior)
        return sqs_prior_whole(codec->prior, in_class);
    return sqs_bucket_weight_below(last) + sqs_id_weights[bucket_of(last)];
}

/* After h supports, the memory's total weight is h / (h + delay) times that of
 * all static weights, because a longer memory predicts better. */
void sqs_make_ids(sqs_ids *m, const sqs_codec *codec, uint32_t in_class,
                  const sqs_memory *memory)
{
    m->prior = codec->prior;
    m->in_class = in_class;
    m->memory = memory;
    m->unit = 0;
    m->whole = static_whole(codec, in_class);
    uint64_t total = 0;
    for (uint32_t i = 0; memory && i < memory->size; i++) {
        uint32_t weight = memory->weights[i];
        m->below[i] = total;
        total += m->prior ? sqs_prior_recent(m->prior, in_class,
                                             memory->ids[i], weight)
                          : weight;
    }
    if (total == 0)
        return;
    m->below[memory->size] = total;
    m->unit =
        m->whole * memory->seen / (memory->seen + SQS_MEMORY_DELAY) / total;
    m->whole += m->unit * total;
}

/* The largest id, at least `start`, such that the static weights of all lower
 * ids sum to at most `below`; about that if `rough`. */
SQS_INLINE uint32_t static_id(const sqs_ids *m, bool prior, uint64_t below,
                              uint32_t start, bool rough, sqs_place *place)
{
    if (!prior)
        return bucket_id(below, start);
    uint32_t id =
        rough ? sqs_prior_id_about(m->prior, m->in_class, below)
              : sqs_prior_id(m->prior, m->in_class, below, &place->in_prior);
    return id > start ? id : start;
}

/* Whether the static weights of all lower ids sum to at most `below`. With a
 * prior, bounds mostly answer this without adding up weights. */
SQS_INLINE bool begins_by(const sqs_ids *m, bool prior, uint32_t id,
                          uint64_t below, sqs_place *place)
{
    if (prior) {
        const uint32_t *bounds = sqs_prior_bounds(m->prior, m->in_class, id);
        if (below < bounds[0] || below >= bounds[1])
            return below >= bounds[1];
    }
    return sqs_static_weight_below(m, prior, id, place) <= below;
}

SQS_INLINE uint32_t ids_at(const sqs_ids *m, bool prior, uint64_t rest,
                           uint32_t start, bool rough, sqs_place *place)
{
    uint64_t below = m->whole > rest ? m->whole - rest : 0;
    if (m->unit == 0)
        return static_id(m, prior, below, start, rough, place);
    const uint32_t *ids = m->memory->ids;
    uint32_t at = place->at;
    while (at > 0 && ids[at - 1] >= start)
        at--;
    while (at < m->memory->size && m->unit * m->below[at] <= below &&
           begins_by(m, prior, ids[at], below - m->unit * m->below[at], place))
        at++;
    place->at = at;
    uint64_t recent = m->unit * m->below[at];
    uint32_t id = static_id(m, prior, below > recent ? below - recent : 0,
                            start, rough, place);
    return at > 0 && id < ids[at - 1] ? ids[at - 1] : id;
}

uint32_t sqs_ids_at(const sqs_ids *m, uint64_t rest, uint32_t start,
                    sqs_place *place)
{
    return ids_at(m, false, rest, start, false, place);
}

uint32_t sqs_prior_ids_at(const sqs_ids *m, uint64_t rest, uint32_t start,
                          bool rough, sqs_place *place)
{
    return ids_at(m, true, rest, start, rough, place);
}
