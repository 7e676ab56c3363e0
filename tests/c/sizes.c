/*
 * sizes.c - sqs_bits against what the range coder spends, to a fraction of a
 * bit, which packets of whole bytes don't show.
 *
 * sqs_bits estimates where it can. Its estimates are worst for supports that
 * no language model has: those whose last member is the last id, those with
 * members of next to no chance, and those of thousands out of a million ids.
 * With a prior, chances are anything.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "entropy/ids.h"
#include "entropy/memory.h"
#include "entropy/modes.h"
#include "priors.h"

#define MOST 4096u
#define SEEDS 64u

static sqs_codec codec = {SQS_MAX_VOCAB, SQS_MAX_RESOLUTION, SQS_ENTROPY,
                                SQS_ISA_BEST, NULL};

static uint32_t n_cases;

static uint32_t spent(const uint32_t *ids, const uint32_t *counts, uint32_t k)
{
    sqs_memory memory;
    sqs_coder nowhere = sqs_coder_write(NULL, 0);
    sqs_memory_clear(&memory);
    sqs_write_counts(&nowhere, codec.vocab_size, codec.resolution, counts, k);
    sqs_write_ids(&nowhere, &codec, &memory, ids, k);
    return sqs_coder_spent(&nowhere);
}

/* Both are rounded up, so they differ by one at most if less than one bit lies
 * between what they round. */
static void check(const char *what, const uint32_t *ids, uint32_t k)
{
    uint32_t counts[MOST], bits = 0;
    for (uint32_t i = 0; i < k; i++)
        counts[i] = i > 0 ? 1 : codec.resolution - k + 1;
    sqs_status status = sqs_bits(&codec, ids, counts, k, &bits);
    uint32_t exact = spent(ids, counts, k);
    if (status != SQS_OK || bits > exact + 1 || exact > bits + 1) {
        printf("FINDING: %s, %u survivors: %u bits, not %u: %s\n", what, k,
               exact, bits, sqs_status_text(status));
        exit(1);
    }
    n_cases++;
}

/* The last id of all is the last value of its symbol, and gets what is left of
 * the range. The nearer the one before it, the likelier it is anyway. */
static void check_last(uint32_t k, uint32_t seed)
{
    uint32_t ids[MOST];
    for (uint32_t i = 0; i < k; i++)
        ids[i] = seed + i * (1 + seed / 8);
    ids[k - 1] = codec.vocab_size - 1;
    check("up to the last id", ids, k);
    if (k < 3)
        return;
    ids[k - 2] = (seed + 1) * (codec.vocab_size / SEEDS) - 2;
    check("up to the last id", ids, k);
}

/* Three members near the end, each with a chance of a few units. */
static void check_rare(uint32_t k, uint32_t seed)
{
    uint32_t ids[MOST];
    for (uint32_t i = 0; i < k; i++)
        ids[i] = i + (i > k / 2 ? seed : 0);
    ids[k - 3] = 519459;
    ids[k - 2] = 1048561;
    ids[k - 1] = 1048574;
    check("with rare ids", ids, k);
}

/* The more members, the more the least weight of a value matters. */
static void check_many(uint32_t k, uint32_t seed)
{
    uint32_t ids[MOST];
    for (uint32_t i = 0; i < k; i++) {
        uint32_t past = i > k / 2 ? i - k / 2 : 0;
        ids[i] = i + past * past / (256 + 8 * seed);
    }
    check("of many ids", ids, k);
}

/* SQS_ID_TOTAL, on which an assertion of sets.c rests. */
static void check_total(void)
{
    sqs_ids all;
    sqs_make_ids(&all, &codec, 0, NULL);
    if (all.whole != SQS_ID_TOTAL) {
        printf("FINDING: all ids weigh %llu\n", (unsigned long long)all.whole);
        exit(1);
    }
}

static void check_all(void)
{
    for (uint32_t seed = 0; seed < SEEDS; seed++) {
        for (uint32_t k = 1; k <= 128; k += k)
            check_last(k, seed);
        for (uint32_t k = 8; k <= 128; k += 8)
            check_rare(k, seed);
        for (uint32_t k = 64; k <= MOST; k += k)
            check_many(k, seed);
    }
}

int main(void)
{
    static holder with;
    check_total();
    check_all();
    for (uint32_t classes = 1; classes <= 5; classes += 4) {
        codec.prior = make_prior(codec.vocab_size, classes, 1, &with);
        check_all();
    }
    printf("%u sizes right\n", n_cases);
    return 0;
}
