/*
 * ids.c - what token ids weigh.
 *
 * Static weights are those of buckets of ids, half an octave each: in a
 * vocabulary made by merging the most frequent pairs first, a low id is a
 * frequent token. Tokens of recent supports weigh more, see sqs_memory.
 *
 * The members of a set are looked for one after the other, in ascending order.
 * So each search, for a bucket or a place in the memory, steps on from where
 * the last one ended.
 */
#include "entropy/ids.h"

#include <stdbool.h>

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

/* Whether another bucket follows, and all ids before that weigh `below` or
 * less together. */
static bool ends_before(uint32_t bucket, uint64_t below)
{
    return bucket + 1 < SQS_ID_BUCKETS && sqs_id_starts[bucket + 1] <= below;
}

/* The largest id such that the static weights of all lower ids sum to `below`
 * or less, or `start` if that is larger. */
static uint32_t static_id(uint64_t below, uint32_t start)
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

/* After h supports, the tokens of the memory together weigh h / (h + delay)
 * times as much as all static weights: the more supports the memory has seen,
 * the more it is trusted. */
void sqs_make_ids(sqs_ids *m, uint32_t vocab_size, const sqs_memory *memory)
{
    uint32_t last = vocab_size - 1;
    m->memory = memory;
    m->unit = 0;
    m->whole = sqs_static_weight_below(last) + sqs_id_weights[bucket_of(last)];
    uint64_t total = 0;
    for (uint32_t i = 0; memory && i < memory->size; i++) {
        m->below[i] = total;
        total += memory->weights[i];
    }
    if (total == 0)
        return;
    m->below[memory->size] = total;
    m->unit = m->whole * memory->seen / (memory->seen + SQS_MEMORY_DELAY) /
              total;
    m->whole += m->unit * total;
}

uint32_t sqs_ids_at(const sqs_ids *m, uint64_t rest, uint32_t start,
                    uint32_t *place)
{
    uint64_t below = m->whole > rest ? m->whole - rest : 0;
    if (m->unit == 0)
        return static_id(below, start);
    const uint32_t *ids = m->memory->ids;
    uint32_t at = *place;
    while (at > 0 && ids[at - 1] >= start)
        at--;
    while (at < m->memory->size &&
           sqs_static_weight_below(ids[at]) + m->unit * m->below[at] <= below)
        at++;
    *place = at;
    uint64_t recent = m->unit * m->below[at];
    uint32_t id = static_id(below > recent ? below - recent : 0, start);
    return at > 0 && id < ids[at - 1] ? ids[at - 1] : id;
}
