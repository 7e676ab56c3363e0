/*
 * Rounds and sequences of the entropy coding: whatever their distributions
 * turn out to be, nothing is written outside the arrays, and the limits are
 * kept.
 *
 * Functions of modes.c give any answer, and need only have room for it.
 */
#include "entropy/modes.h"

#include "stubs.h"

#include "entropy/packet.c"

static bool has_room(const uint32_t *values, uint32_t n)
{
    return __CPROVER_rw_ok(values, n * sizeof *values);
}

static uint32_t ended(sqs_coder *c, uint32_t value)
{
    return sqs_coder_going(c) ? (move_on(c), value) : 0;
}

uint32_t sqs_read_counts(sqs_coder *c, uint32_t vocab_size,
                         uint32_t resolution, uint32_t *counts, uint32_t limit)
{
    uint32_t k = any_within(1, sqs_lesser(vocab_size, resolution));
    if (!ended(c, 1))
        return nondet_uint32();
    assert(k > limit || has_room(counts, k));
    return k;
}

void sqs_read_ids(sqs_coder *c, const sqs_codec *codec, sqs_memory *memory,
                  uint32_t *ids, uint32_t k)
{
    ended(c, 1);
    assert(has_room(ids, k));
}

uint32_t sqs_code_position(sqs_coder *c, const uint32_t *counts, uint32_t k,
                           uint32_t resolution, uint32_t position)
{
    assert(has_room(counts, k));
    return ended(c, any_within(0, k - 1));
}

void sqs_memory_clear(sqs_memory *memory)
{
    memory->size = 0;
}

void sqs_memory_learn(sqs_memory *memory, const uint32_t *ids, uint32_t k)
{
    assert(has_room(ids, k));
}

static uint32_t *any_words(size_t n)
{
    return (uint32_t *)any_bytes(n * sizeof(uint32_t));
}

static sqs_sparse_room any_round(size_t length, size_t survivors)
{
    return (sqs_sparse_room){.survivors = any_words(length),
                             .token_ids = any_words(survivors),
                             .counts = any_words(survivors)};
}

static void check(const sqs_sparse_room *round, uint32_t longest, size_t most)
{
    size_t sum = 0;
    assert(round->done >= 1 && round->done <= longest);
    for (uint32_t i = 0; i < round->done; i++)
        sum += round->survivors[i];
    assert(sum <= most && sum <= SQS_MAX_ENTROPY_SURVIVORS);
}

static sqs_codec any_codec(void)
{
    return (sqs_codec){.vocab_size = any_within(2, SQS_MAX_VOCAB),
                       .resolution = any_within(1, SQS_MAX_RESOLUTION),
                       .coding = SQS_ENTROPY};
}

void rounds(void)
{
    sqs_codec codec = any_codec();
    size_t size = any_within(0, 1 << 20), most = any_within(0, 1 << 24);
    sqs_sparse_room round = any_round(SQS_MAX_ROUND, most);
    if (sqs_entropy_decode_round(&codec, any_bytes(size), size, most, &round,
                                 any_words(SQS_MAX_ROUND)) == SQS_OK)
        check(&round, SQS_MAX_ROUND, most);
}

void sequences(void)
{
    sqs_codec codec = any_codec();
    size_t size = any_within(0, 1 << 20), most = any_within(0, 1 << 24);
    size_t length = any_within(1, SQS_MAX_SEQUENCE);
    sqs_sparse_room sequence = any_round(most < length ? most : length, most);
    if (sqs_entropy_decode_sequence(&codec, any_bytes(size), size, length,
                                    most, &sequence) == SQS_OK)
        check(&sequence, length, most);
}
