/*
 * memory.c - the tokens of recent supports, and how they are forgotten.
 */
#include <stdbool.h>
#include <string.h>

#include "entropy/ids.h"

/* Weights fade by 2^-5 with each support, so that a token seen once is
 * forgotten after about 110 others, where fading would stop at 31 for lack of
 * digits. These and MEMORY_DELAY are the best of a few tried on the drafts of
 * fit_model.py; none of them is critical. */
#define NEW_WEIGHT 1024u
#define LEAST_WEIGHT 32u
#define FADING 5u
#define MOST_SEEN 255u /* by then MEMORY_DELAY no longer shows */

/* A memory while it is being added to. */
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
        uint32_t faded = old ? m->weights[i] - (m->weights[i] >> FADING) : 0;
        to->ids[n] = old ? m->ids[i] : ids[j];
        to->weights[n] = faded + (new ? NEW_WEIGHT : 0);
        n += to->weights[n] >= LEAST_WEIGHT;
        i += old;
        j += new;
    }
    to->size = n;
}

/* Drops what weighs less than `least`. */
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
    for (uint32_t least = LEAST_WEIGHT; m.size > SQS_MEMORY_TOKENS;)
        forget(&m, least *= 2);
    memory->size = m.size;
    memcpy(memory->ids, m.ids, m.size * sizeof *m.ids);
    memcpy(memory->weights, m.weights, m.size * sizeof *m.weights);
    if (memory->seen < MOST_SEEN)
        memory->seen++;
}
