/*
 * memory.c - remembers the tokens of recent supports, and forgets old ones.
 */
#include "entropy/memory.h"

#include <stdbool.h>
#include <string.h>

/* Each support first reduces all weights by 1/32, then adds 1024 to those of
 * its tokens. A token that came once falls below 32 after about 110 other
 * supports, and is forgotten: 31 / 32 is 0, so its weight couldn't fade
 * further. These numbers and the delay of ids.c are the best of a few tried on
 * the drafts of fit_model.py; none is critical. */
_Static_assert(SQS_MEMORY_LEAST_WEIGHT == 1u << SQS_MEMORY_FADING,
               "a weight that can't fade is forgotten");

void sqs_memory_clear(sqs_memory *memory)
{
    memory->size = 0;
    memory->seen = 0;
    memory->last = 0;
}

/* The union of a memory and a support, before it is cut to size. */
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
