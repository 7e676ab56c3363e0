/*
 * memory.c - the tokens of recent supports, and how they are forgotten.
 */
#include "entropy/memory.h"

#include <string.h>

#include "bits.h"
#include "entropy/crc.h"
#include "entropy/model.h"
#include "entropy/prior.h"

_Static_assert(SQS_MODEL_MEMORY_TOKENS == SQS_MEMORY_TOKENS &&
                   SQS_MODEL_MEMORY_SUPPORT == SQS_MEMORY_SUPPORT,
               "the memory of sqs.h is the model's");

/* Each support adds a weight of 1024 to its tokens, and all weights lose a
 * 32nd of themselves. So a token that came once falls below 32 after about 110
 * other supports. Below 32 a weight would lose nothing any more, as 31 / 32 is
 * 0: it is forgotten. These numbers and the delay of ids.c are the best of a
 * few tried on the drafts of fit_model.py; none of them is critical. */
_Static_assert(SQS_MEMORY_LEAST_WEIGHT == 1u << SQS_MEMORY_FADING,
               "a weight that can't fade is forgotten");

/* The weight of a token that is in every support comes near this: here fading
 * takes as much as a support adds. */
#define MOST_WEIGHT (SQS_MEMORY_NEW_WEIGHT << SQS_MEMORY_FADING)

void sqs_memory_clear(sqs_memory *memory)
{
    memory->size = 0;
    memory->seen = 0;
    memory->last = 0;
}

bool sqs_is_memory(const sqs_memory *memory, const sqs_codec *codec)
{
    if (memory->size > SQS_MEMORY_TOKENS ||
        memory->seen > SQS_MEMORY_MOST_SEEN ||
        memory->last > sqs_coded_classes(codec->prior))
        return false;
    for (uint32_t i = 0; i < memory->size; i++)
        if (memory->ids[i] >= codec->vocab_size ||
            (i > 0 && memory->ids[i] <= memory->ids[i - 1]) ||
            memory->weights[i] < SQS_MEMORY_LEAST_WEIGHT ||
            memory->weights[i] > MOST_WEIGHT)
            return false;
    return true;
}

/* A memory and a support together, before it is cut to size. */
typedef struct merged {
    uint32_t size;
    uint32_t ids[SQS_MEMORY_TOKENS + SQS_MEMORY_SUPPORT];
    uint32_t weights[SQS_MEMORY_TOKENS + SQS_MEMORY_SUPPORT];
} merged;

static void merge(const sqs_memory *m, const uint32_t *ids, uint32_t k,
                  merged *to)
{
    uint32_t i = 0, j = 0, n = 0;
    while (i < m->size || j < k) {
        bool old = i < m->size && (j == k || m->ids[i] <= ids[j]);
        bool new = j < k && (i == m->size || ids[j] <= m->ids[i]);
        uint32_t before = old ? m->weights[i] : 0;
        uint32_t faded = before - (before >> SQS_MEMORY_FADING);
        to->ids[n] = old ? m->ids[i] : ids[j];
        to->weights[n] = faded + (new ? SQS_MEMORY_NEW_WEIGHT : 0);
        n += to->weights[n] >= SQS_MEMORY_LEAST_WEIGHT;
        i += old;
        j += new;
    }
    to->size = n;
}

/* Drops the tokens that weigh less than `least`. */
static void forget(merged *m, uint32_t least)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < m->size; i++)
        if (m->weights[i] >= least) {
            m->ids[kept] = m->ids[i];
            m->weights[kept++] = m->weights[i];
        }
    m->size = kept;
}

void sqs_memory_learn(sqs_memory *memory, const uint32_t *ids, uint32_t k)
{
    if (k > SQS_MEMORY_SUPPORT)
        return;
    merged m;
    merge(memory, ids, k, &m);
    for (uint32_t least = SQS_MEMORY_LEAST_WEIGHT; m.size > SQS_MEMORY_TOKENS;)
        forget(&m, least *= 2);
    memory->size = m.size;
    memcpy(memory->ids, m.ids, m.size * sizeof *m.ids);
    memcpy(memory->weights, m.weights, m.size * sizeof *m.weights);
    if (memory->seen < SQS_MEMORY_MOST_SEEN)
        memory->seen++;
}

/* Appends numbers, the least significant byte of each first. */
static uint8_t *put_numbers(uint8_t *to, const uint32_t *numbers, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t shift = 0; shift < 32; shift += 8)
            *to++ = (uint8_t)(numbers[i] >> shift);
    return to;
}

uint8_t sqs_stream_head(const sqs_memory *memory)
{
    uint8_t bytes[sizeof *memory], *end = bytes;
    uint32_t size = sqs_lesser(memory->size, SQS_MEMORY_TOKENS);
    end = put_numbers(end, &memory->seen, 1);
    end = put_numbers(end, &memory->last, 1);
    end = put_numbers(end, memory->ids, size);
    end = put_numbers(end, memory->weights, size);
    return (uint8_t)(1 + sqs_crc32(bytes, (size_t)(end - bytes)) % 255);
}
