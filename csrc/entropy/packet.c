/*
 * packet.c - the layout of the entropy coding's packets.
 *
 *   packet       := distribution
 *   round        := drafted (more drafted)* [more]
 *   drafted      := distribution position
 *   sequence     := length distribution+
 *   distribution := counts ids
 *
 * Each packet, round or sequence is one message of the range coder. `more` is
 * a bit, and absent where it could only be 0.
 */
#include "entropy/packet.h"

#include "codec.h"
#include "entropy/modes.h"

/* In the uniform modes, counts and ids are two sets, and each member of a set
 * takes at most slightly more than 31 bits. The model's modes are used only
 * where they seem cheaper. */
#define BITS_PER_SURVIVOR 62u

/* 8 bits for the modes, 17 for the size, 13 for the class, 17 for the position
 * and 2 for `more`. In a sequence, the last two leave room for the length. */
#define BITS_PER_DISTRIBUTION 64u

size_t sqs_entropy_bound(uint64_t length, uint64_t survivors)
{
    uint64_t bits =
        length * BITS_PER_DISTRIBUTION + survivors * BITS_PER_SURVIVOR;
    return (size_t)(bits / 8 + 1);
}

/* Codes whether another position follows after `done` ones; false if the
 * format allows no more. */
static bool code_more(sqs_coder *c, uint32_t done, bool more)
{
    return done < SQS_MAX_ROUND && sqs_code_bit(c, SQS_MORE_CHANCE, more);
}

/* Writing. */

static void put_distribution(sqs_coder *c, const sqs_codec *codec,
                             sqs_memory *memory, const uint32_t *ids,
                             const uint32_t *counts, uint32_t k)
{
    sqs_write_counts(c, codec->vocab_size, codec->resolution, counts, k);
    sqs_write_ids(c, codec, memory, ids, k);
}

/* Writes a distribution of a round or sequence; the memory learns from it. */
static void put_next(sqs_coder *c, const sqs_codec *codec, sqs_memory *memory,
                     const uint32_t *ids, const uint32_t *counts, uint32_t k)
{
    put_distribution(c, codec, memory, ids, counts, k);
    sqs_memory_learn(memory, ids, k);
}

static sqs_status finish(sqs_coder *c, size_t *size)
{
    size_t needed = sqs_coder_finish(c);
    if (needed > c->size)
        return SQS_NO_SPACE;
    *size = needed;
    return SQS_OK;
}

sqs_status sqs_entropy_encode(const sqs_codec *codec,
                              const uint32_t *token_ids,
                              const uint32_t *counts, uint32_t survivors,
                              uint8_t *packet, size_t capacity, size_t *size)
{
    sqs_memory memory;
    sqs_memory_clear(&memory);
    sqs_coder c = sqs_coder_write(packet, capacity);
    put_distribution(&c, codec, &memory, token_ids, counts, survivors);
    return finish(&c, size);
}

sqs_status sqs_entropy_encode_round(const sqs_codec *codec,
                                    const sqs_sparse_rows *round,
                                    const uint32_t *positions, uint8_t *packet,
                                    size_t capacity, size_t *size)
{
    const uint32_t *ids = round->token_ids, *counts = round->counts;
    sqs_memory memory;
    sqs_memory_clear(&memory);
    sqs_coder c = sqs_coder_write(packet, capacity);
    for (uint32_t i = 0; i < round->length; i++) {
        uint32_t k = round->survivors[i];
        put_next(&c, codec, &memory, ids, counts, k);
        sqs_code_position(&c, counts, k, codec->resolution, positions[i]);
        code_more(&c, i + 1, i + 1 < round->length);
        ids += k;
        counts += k;
    }
    return finish(&c, size);
}

sqs_status sqs_entropy_encode_sequence(const sqs_codec *codec,
                                       const sqs_sparse_rows *sequence,
                                       uint8_t *packet, size_t capacity,
                                       size_t *size)
{
    const uint32_t *ids = sequence->token_ids, *counts = sequence->counts;
    sqs_memory memory;
    sqs_memory_clear(&memory);
    sqs_coder c = sqs_coder_write(packet, capacity);
    sqs_code_uniform(&c, SQS_MAX_SEQUENCE, sequence->length - 1);
    for (uint32_t i = 0; i < sequence->length; i++) {
        uint32_t k = sequence->survivors[i];
        put_next(&c, codec, &memory, ids, counts, k);
        ids += k;
        counts += k;
    }
    return finish(&c, size);
}

/* Sizes in bits. */

/*
 * sqs_bits may be off by a bit. Estimates are that accurate in the model's
 * modes, for at most MOST_ESTIMATED members. Other distributions are encoded
 * without storing bytes, to count the bits.
 *
 * Each member adds to the error of an estimate
 *
 *  - 2^-11 log2(e), as every value of its symbol has a weight of at least 1,
 *    which takes up to 2^20 of the 2^31 units from the others, and
 *  - 2^-9, as the power table is linear between knots: its slope is off by up
 *    to ln(2) / 512, and so are the chances of close values.
 *
 * For 128 members this is a third of a bit. The largest error found in a
 * search for bad supports is 0.2 bits. With 4096 members out of 2^20 ids, the
 * first summand dominates, and estimates are 2.8 bits too low.
 */
#define MOST_ESTIMATED 128u

/* Supports of more than 1 / SPARSE of the vocabulary aren't estimated: most of
 * them would be written in a uniform mode. */
#define SPARSE 4u

uint32_t sqs_entropy_bits(const sqs_codec *codec, const uint32_t *token_ids,
                          const uint32_t *counts, uint32_t survivors)
{
    if (survivors <= MOST_ESTIMATED &&
        survivors <= codec->vocab_size / SPARSE) {
        sqs_cost cost = sqs_entropy_cost(codec, token_ids, counts, survivors);
        if (cost.modeled)
            return (uint32_t)((cost.bits + SQS_BIT - 1) / SQS_BIT);
    }
    sqs_memory memory;
    sqs_memory_clear(&memory);
    sqs_coder nowhere = sqs_coder_write(NULL, 0);
    put_distribution(&nowhere, codec, &memory, token_ids, counts, survivors);
    return sqs_coder_spent(&nowhere);
}

/* Reading. */

/* Where the next distribution is written, and how large it may be. */
typedef struct target {
    const sqs_codec *codec;
    sqs_memory memory;
    uint32_t allowed; /* tokens that the format still allows */
    uint32_t most;    /* tokens that the receiver still accepts */
    uint32_t *ids, *counts;
} target;

static void start(target *to, const sqs_codec *codec, uint32_t most,
                  uint32_t *ids, uint32_t *counts)
{
    sqs_memory_clear(&to->memory);
    to->codec = codec;
    to->allowed = SQS_MAX_ENTROPY_SURVIVORS;
    to->most = most;
    to->ids = ids;
    to->counts = counts;
}

static sqs_status get_distribution(sqs_coder *c, target *to,
                                   uint32_t *survivors)
{
    const sqs_codec *codec = to->codec;
    uint32_t limit = sqs_lesser(to->most, to->allowed);
    uint32_t k = sqs_read_counts(c, codec->vocab_size, codec->resolution,
                                 to->counts, limit);
    if (c->truncated)
        return SQS_TRUNCATED;
    if (k > limit)
        return limit == to->allowed ? SQS_ROUND_SUPPORT : SQS_OVER_LIMIT;
    sqs_read_ids(c, codec, &to->memory, to->ids, k);
    *survivors = k;
    return c->truncated ? SQS_TRUNCATED : SQS_OK;
}

sqs_status sqs_entropy_decode(const sqs_codec *codec, const uint8_t *packet,
                              size_t size, uint32_t most, uint32_t *token_ids,
                              uint32_t *counts, uint32_t *survivors)
{
    target to;
    start(&to, codec, most, token_ids, counts);
    sqs_coder c = sqs_coder_read(packet, size);
    sqs_status status = get_distribution(&c, &to, survivors);
    return status == SQS_OK ? sqs_coder_check_end(&c) : status;
}

/* Reads a distribution of a round or sequence; the memory learns from it. */
static sqs_status get_next(sqs_coder *c, target *to, uint32_t *survivors)
{
    sqs_status status = get_distribution(c, to, survivors);
    if (status != SQS_OK)
        return status;
    uint32_t k = *survivors;
    sqs_memory_learn(&to->memory, to->ids, k);
    to->ids += k;
    to->counts += k;
    to->allowed -= k;
    to->most -= k;
    return SQS_OK;
}

static sqs_status get_drafted(sqs_coder *c, target *to, uint32_t *survivors,
                              uint32_t *position)
{
    const uint32_t *counts = to->counts;
    sqs_status status = get_next(c, to, survivors);
    if (status == SQS_OK)
        *position =
            sqs_code_position(c, counts, *survivors, to->codec->resolution, 0);
    return status;
}

/* Reads a round, but doesn't check the packet's end. */
static sqs_status get_round(sqs_coder *c, target *to, sqs_sparse_room *round,
                            uint32_t *positions)
{
    uint32_t i = 0;
    do {
        sqs_status status =
            get_drafted(c, to, &round->survivors[i], &positions[i]);
        if (status != SQS_OK)
            return status;
    } while (code_more(c, ++i, false));
    round->done = i;
    return SQS_OK;
}

sqs_status sqs_entropy_decode_round(const sqs_codec *codec,
                                    const uint8_t *packet, size_t size,
                                    uint32_t most, sqs_sparse_room *round,
                                    uint32_t *positions)
{
    target to;
    start(&to, codec, most, round->token_ids, round->counts);
    sqs_coder c = sqs_coder_read(packet, size);
    sqs_status status = get_round(&c, &to, round, positions);
    return status == SQS_OK ? sqs_coder_check_end(&c) : status;
}

sqs_status sqs_entropy_decode_sequence(const sqs_codec *codec,
                                       const uint8_t *packet, size_t size,
                                       uint32_t length, uint32_t most,
                                       sqs_sparse_room *sequence)
{
    target to;
    start(&to, codec, most, sequence->token_ids, sequence->counts);
    sqs_coder c = sqs_coder_read(packet, size);
    uint32_t whole = 1 + sqs_code_uniform(&c, SQS_MAX_SEQUENCE, 0);
    length = sqs_lesser(length, whole);
    for (uint32_t i = 0; i < length; i++) {
        sqs_status status = get_next(&c, &to, &sequence->survivors[i]);
        if (status != SQS_OK)
            return status;
    }
    sequence->done = length;
    return length == whole ? sqs_coder_check_end(&c) : SQS_OK;
}
