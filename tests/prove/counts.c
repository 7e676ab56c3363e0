/*
 * Counts: whatever the coder reads, they are a partition of the resolution
 * into at most as many parts as there are tokens.
 */
#include "entropy/counts.h"

#include "stubs.h"

#include "entropy/counts.c"

#define RESOLUTION 6u

/* A single count. */
void count(void)
{
    sqs_coder c = any_reader();
    uint32_t left = 1 + (nondet_uint32() & 63);
    uint32_t high = any_within(1, left), low = any_within(1, high);
    uint32_t found = code_count(&c, low, high, left, nondet_uint32());
    assert(found >= low && found <= high);
    assert(is_reader(&c));
}

void partition(void)
{
    sqs_coder c = any_reader();
    c.truncated = false;
    uint32_t vocab_size = 2 + (nondet_uint32() & 7);
    uint32_t limit = any_within(0, SQS_MAX_VOCAB);
    sqs_groups g;
    uint32_t k =
        sqs_read_partition(&c, vocab_size, RESOLUTION, limit, &g);
    assert(is_reader(&c));
    if (c.truncated || k > limit)
        return;
    uint32_t tokens = 0, sum = 0;
    for (uint32_t i = 0; i < g.n; i++) {
        assert(g.count[i] >= 1 && g.size[i] >= 1);
        assert(i == 0 || g.count[i] < g.count[i - 1]);
        tokens += g.size[i];
        sum += g.count[i] * g.size[i];
    }
    assert(tokens == k && k >= 1 && k <= vocab_size);
    assert(sum == RESOLUTION);
}
