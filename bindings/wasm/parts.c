/*
 * parts.c - how many bits each part of an SQS_ENTROPY packet takes, for
 * sqs.mjs.
 *
 * This reads the packet with the functions that entropy/packet.c uses. After
 * each part the coder knows how many bits have been used.
 */
#include "bits.h"
#include "entropy/counts.h"
#include "entropy/memory.h"
#include "entropy/modes.h"
#include "entropy/prior.h"

enum { COUNTS, ARRANGEMENT, CLASS, IDS, REST };

static double as_bits(uint64_t cost)
{
    return (double)cost / (double)SQS_BIT;
}

static double spent(const sqs_coder *c)
{
    return 8.0 * (double)c->shifts + SQS_CODER_BITS -
           as_bits(sqs_log2(c->range));
}

/* Bits of the counts without their arrangement. The uniform mode codes both
 * together. */
static double spent_on_partition(const sqs_codec *codec, sqs_coder c,
                                 uint32_t *counts)
{
    sqs_groups groups;
    uint32_t v = codec->vocab_size, l = codec->resolution;
    uint32_t most = sqs_lesser(v, l);
    sqs_coder begin = c;
    if (sqs_code_bit(&c, SQS_UNIFORM_CHANCE, false)) {
        c = begin;
        sqs_read_counts(&c, v, l, counts, most);
    } else {
        sqs_read_partition(&c, v, l, most, &groups);
    }
    return spent(&c);
}

/* Sets bits[0..4] to the bits that a packet of sqs_encode takes for the
 * counts, their arrangement, the ids' class, the ids, and the rest. ids and
 * counts are scratch for min(vocab_size, resolution) values each. */
void sqs_parts(const sqs_codec *codec, const uint8_t *packet, size_t size,
               uint32_t *ids, uint32_t *counts, double *bits);

void sqs_parts(const sqs_codec *codec, const uint8_t *packet, size_t size,
               uint32_t *ids, uint32_t *counts, double *bits)
{
    sqs_memory memory;
    sqs_memory_clear(&memory);
    sqs_coder c = sqs_coder_read(packet, size);
    bits[COUNTS] = spent_on_partition(codec, c, counts);
    uint32_t most = sqs_lesser(codec->vocab_size, codec->resolution);
    uint32_t k = sqs_read_counts(&c, codec->vocab_size, codec->resolution,
                                 counts, most);
    double before = spent(&c);
    bits[ARRANGEMENT] = before - bits[COUNTS];
    sqs_read_ids(&c, codec, &memory, ids, k);
    bits[CLASS] = 0;
    if (memory.last > 0) {
        const uint16_t *starts = sqs_prior_starts(codec->prior, 0);
        bits[CLASS] = as_bits(sqs_prior_chance_cost(
            starts, codec->prior->classes, memory.last - 1));
    }
    bits[IDS] = spent(&c) - before - bits[CLASS];
    bits[REST] = 8.0 * (double)size - spent(&c);
}
