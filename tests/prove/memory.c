/*
 * Memory, scaled down: it keeps its invariant, whatever it learns.
 */
#include "sqs.h"

#include "any.h"

/* CBMC's own loses what it copies into an array of a struct, if the size isn't
 * known. */
static void copy_words(uint32_t *to, const uint32_t *from, size_t size)
{
    for (size_t i = 0; i < size / sizeof *to; i++)
        to[i] = from[i];
}

#include <string.h>
#define memcpy copy_words

#include "entropy/memory.c"

/* At the largest weight fading takes as much as a support adds. */
static bool is_memory(const sqs_memory *m, uint32_t vocab_size)
{
    const uint32_t most = SQS_MEMORY_NEW_WEIGHT << SQS_MEMORY_FADING;
    if (m->size > SQS_MEMORY_TOKENS || m->seen > SQS_MEMORY_MOST_SEEN)
        return false;
    for (uint32_t i = 0; i < m->size; i++)
        if (m->ids[i] >= vocab_size || m->weights[i] > most ||
            m->weights[i] < SQS_MEMORY_LEAST_WEIGHT ||
            (i > 0 && m->ids[i] <= m->ids[i - 1]))
            return false;
    return true;
}

void learn(void)
{
    uint32_t vocab_size = any_within(2, SQS_MAX_VOCAB);
    sqs_memory memory;
    assume(is_memory(&memory, vocab_size));
    uint32_t k = any_within(0, SQS_MEMORY_SUPPORT + 1);
    assume(k <= vocab_size);
    uint32_t *ids = (uint32_t *)any_bytes(k * sizeof *ids);
    for (uint32_t i = 0; i < k; i++)
        assume(ids[i] < vocab_size && (i == 0 || ids[i] > ids[i - 1]));
    sqs_memory_learn(&memory, ids, k);
    assert(is_memory(&memory, vocab_size));
}
