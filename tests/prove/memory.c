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

void learn(void)
{
    sqs_codec codec = {.vocab_size = any_within(2, SQS_MAX_VOCAB)};
    sqs_memory memory;
    assume(sqs_is_memory(&memory, &codec));
    uint32_t k = any_within(0, SQS_MEMORY_SUPPORT + 1);
    assume(k <= codec.vocab_size);
    uint32_t *ids = (uint32_t *)any_bytes(k * sizeof *ids);
    for (uint32_t i = 0; i < k; i++)
        assume(ids[i] < codec.vocab_size && (i == 0 || ids[i] > ids[i - 1]));
    sqs_memory_learn(&memory, ids, k);
    assert(sqs_is_memory(&memory, &codec));
}
