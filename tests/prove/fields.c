/*
 * The whole decoder of bitpack distributions: no byte outside the packet is
 * read, none outside the arrays is written, and what is accepted keeps every
 * rule.
 */
#include "any.h"

#include "rank/fields.c"

#define BYTES 4u
#define VOCAB_SIZE 8u
#define RESOLUTION 10u

static const sqs_codec codec = {
    .vocab_size = VOCAB_SIZE, .resolution = RESOLUTION, .coding = SQS_BITPACK};

static uint32_t *any_words(size_t n)
{
    return (uint32_t *)any_bytes(n * sizeof(uint32_t));
}

static void check(const uint32_t *ids, const uint32_t *counts, uint32_t k)
{
    uint32_t sum = 0;
    assert(k >= 1 && k <= VOCAB_SIZE);
    for (uint32_t i = 0; i < k; i++) {
        assert(ids[i] < VOCAB_SIZE && counts[i] >= 1);
        assert(i == 0 || ids[i] > ids[i - 1]);
        sum += counts[i];
    }
    assert(sum == RESOLUTION);
}

void distribution(void)
{
    size_t size = any_within(0, BYTES), most = any_within(0, VOCAB_SIZE);
    uint32_t *ids = any_words(most), *counts = any_words(most), k;
    sqs_status status = sqs_fields_decode(&codec, any_bytes(size), size, most,
                                          ids, counts, &k);
    if (status == SQS_OK) {
        assert(k <= most);
        check(ids, counts, k);
    }
}
