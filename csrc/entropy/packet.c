/*
 * message.c - the layout of the entropy coding's packets.
 *
 *   distribution := [exponent] counts ids
 *   packet       := distribution
 *   round        := distribution position (more distribution position)* [more]
 *   tokens       := token (more token)* [more]
 *   token        := [exponent] id count
 *
 * Each is one message of the range coder. `more` is a bit, and absent where it
 * could only be 0.
 */
#include "entropy/packet.h"

#include "entropy/modes.h"
#include "entropy/ids.h"

#define MORE_CHANCE 192u     /* in 256ths: rounds have four tokens or so */
#define FIRST_HOME 64u       /* what the first resolution is compared with */

/* An upper bound of bits: a member of a set takes 31 and a trifle at most, and
 * there are two sets. A distribution that isn't coded as two sets is cheaper
 * than that. What there is once takes 18 bits for the exponent, 8 for the
 * modes, 17 for the size, 17 for the position and 2 for `more`. */
#define BITS_PER_SURVIVOR 62u
#define BITS_PER_DISTRIBUTION 64u
#define BITS_PER_TOKEN 256u /* 17 splits of 8 bits, 31, 18 and 2 */

size_t sqs_message_bound(uint64_t length, uint64_t survivors)
{
    return (size_t)((length * BITS_PER_DISTRIBUTION +
                     survivors * BITS_PER_SURVIVOR) / 8 + 1);
}

size_t sqs_message_tokens_bound(uint64_t length)
{
    return (size_t)(length * BITS_PER_TOKEN / 8 + 1);
}

static uint32_t exponent_of(uint32_t resolution)
{
    return sqs_floor_log2(resolution);
}

/* Codes the resolution, if it isn't the codec's; writing, it is given. `home`
 * is the last above 1. */
static uint32_t code_resolution(sqs_coder *c, const sqs_codec *codec,
                                uint32_t *home, uint32_t resolution)
{
    if (codec->resolution != SQS_VARIABLE)
        return codec->resolution;
    uint32_t exponent = sqs_code_exponent(
        c, exponent_of(*home ? *home : FIRST_HOME),
        c->mode == SQS_READ ? 0 : exponent_of(resolution));
    if (exponent > 0)
        *home = 1u << exponent;
    return 1u << exponent;
}

/* Makes a memory empty; all of it need not be zero for that. */
static void forget_all(sqs_memory *memory)
{
    memory->size = 0;
    memory->seen = 0;
    memory->home = 0;
}

static uint32_t sum(const uint32_t *counts, uint32_t k)
{
    uint32_t total = 0;
    for (uint32_t i = 0; i < k; i++)
        total += counts[i];
    return total;
}

/* Writes a distribution and returns its resolution. */
static uint32_t put_distribution(sqs_coder *c, const sqs_codec *codec,
                                 sqs_memory *memory, const uint32_t *ids,
                                 const uint32_t *counts, uint32_t k)
{
    uint32_t resolution = code_resolution(c, codec, &memory->home,
                                          sum(counts, k));
    sqs_write_counts(c, codec->vocab_size, resolution, counts, k);
    sqs_write_ids(c, codec->vocab_size, memory, ids, k);
    return resolution;
}

/* Reads a distribution into room for `room` survivors, of which the format
 * allows `allowed`. */
static sqs_status get_distribution(sqs_coder *c, const sqs_codec *codec,
                                   sqs_memory *memory, uint32_t *ids,
                                   uint32_t *counts, uint32_t *survivors,
                                   size_t allowed, size_t room)
{
    size_t most = allowed < room ? allowed : room;
    uint32_t resolution =
        code_resolution(c, codec, &memory->home, 0);
    uint32_t k =
        sqs_read_counts(c, codec->vocab_size, resolution, counts, most);
    if (c->truncated)
        return SQS_TRUNCATED;
    if (k > most)
        return k > allowed ? SQS_ROUND_SUPPORT : SQS_NO_SPACE;
    sqs_read_ids(c, codec->vocab_size, memory, ids, k);
    *survivors = k;
    return c->truncated ? SQS_TRUNCATED : SQS_OK;
}

static sqs_status finish(sqs_coder *c, size_t *size)
{
    size_t needed = sqs_coder_finish(c);
    if (needed > c->size)
        return SQS_NO_SPACE;
    *size = needed;
    return SQS_OK;
}

static sqs_status ending(const sqs_coder *c)
{
    switch (sqs_coder_ending(c)) {
    case SQS_ENDS_WELL:
        break;
    case SQS_ENDS_EARLY:
        return SQS_TRUNCATED;
    case SQS_ENDS_LATE:
        return SQS_TRAILING_BYTES;
    case SQS_ENDS_OTHERWISE:
        return SQS_PADDING;
    }
    return SQS_OK;
}

/* The bits that a coder has spent, rounded up. */
static uint32_t spent(const sqs_coder *c)
{
    uint64_t narrowed = ((uint64_t)SQS_CODER_BITS << SQS_LOG_UNIT) -
                        sqs_log2(c->range);
    return (uint32_t)(8 * c->shifts + (narrowed + SQS_BIT - 1) / SQS_BIT);
}

/* The estimate is close for what language models give: supports that are
 * small, sparse and like the model. Others are coded to nowhere. */
#define SMALL 128u /* each member adds up to 2^-8 of error */
#define SPARSE 4u

uint32_t sqs_message_bits(const sqs_codec *codec, const uint32_t *token_ids,
                          const uint32_t *counts, uint32_t survivors)
{
    if (survivors <= SMALL && survivors <= codec->vocab_size / SPARSE) {
        uint32_t home = 0;
        sqs_coder meter = sqs_coder_meter();
        uint32_t resolution = code_resolution(&meter, codec, &home,
                                              sum(counts, survivors));
        sqs_cost cost = sqs_entropy_cost(codec->vocab_size, resolution,
                                         token_ids, counts, survivors);
        if (cost.close)
            return (uint32_t)((meter.cost + cost.bits + SQS_BIT - 1) / SQS_BIT);
    }
    sqs_memory memory;
    forget_all(&memory);
    sqs_coder nowhere = sqs_coder_write(NULL, 0);
    put_distribution(&nowhere, codec, &memory, token_ids, counts, survivors);
    return spent(&nowhere);
}

sqs_status sqs_message_encode(const sqs_codec *codec,
                              const uint32_t *token_ids,
                              const uint32_t *counts, uint32_t survivors,
                              uint8_t *packet, size_t capacity, size_t *size)
{
    sqs_memory memory;
    forget_all(&memory);
    sqs_coder c = sqs_coder_write(packet, capacity);
    put_distribution(&c, codec, &memory, token_ids, counts, survivors);
    return finish(&c, size);
}

sqs_status sqs_message_decode(const sqs_codec *codec, const uint8_t *packet,
                              size_t size, uint32_t *token_ids,
                              uint32_t *counts, uint32_t *survivors)
{
    sqs_memory memory;
    forget_all(&memory);
    sqs_coder c = sqs_coder_read(packet, size);
    size_t most = sqs_max_survivors(codec);
    sqs_status status = get_distribution(&c, codec, &memory, token_ids, counts,
                                         survivors, most, most);
    return status == SQS_OK ? ending(&c) : status;
}

/* Codes whether item `done` follows; false if there can't be one. */
static bool code_more(sqs_coder *c, uint32_t done, bool more)
{
    return done < SQS_MAX_ROUND && sqs_code_bit(c, MORE_CHANCE, more);
}

sqs_status sqs_message_encode_round(
    const sqs_codec *codec, sqs_memory *memory, uint32_t length,
    const uint32_t *token_ids, const uint32_t *counts,
    const uint32_t *survivors, const uint32_t *positions, uint8_t *packet,
    size_t capacity, size_t *size)
{
    sqs_memory known;
    if (memory)
        known = *memory;
    else
        forget_all(&known);
    sqs_coder c = sqs_coder_write(packet, capacity);
    for (uint32_t i = 0; i < length; i++) {
        uint32_t k = survivors[i];
        uint32_t resolution =
            put_distribution(&c, codec, &known, token_ids, counts, k);
        sqs_code_position(&c, counts, k, resolution, positions[i]);
        sqs_memory_learn(&known, token_ids, k);
        code_more(&c, i + 1, i + 1 < length);
        token_ids += k;
        counts += k;
    }
    sqs_status status = finish(&c, size);
    if (status == SQS_OK && memory)
        *memory = known;
    return status;
}

/* What sqs_message_decode_round does, but for the end of the packet. */
static sqs_status get_round(sqs_coder *c, const sqs_codec *codec,
                            sqs_memory *memory, uint32_t *token_ids,
                            uint32_t *counts, size_t capacity,
                            uint32_t *survivors, uint32_t *positions,
                            uint32_t *length)
{
    size_t used = 0;
    uint32_t i = 0;
    do {
        uint32_t *ids = token_ids + used, *own = counts + used, k;
        sqs_status status = get_distribution(
            c, codec, memory, ids, own, &k, SQS_MAX_ENTROPY_SURVIVORS - used,
            capacity - used);
        if (status != SQS_OK)
            return status;
        positions[i] = sqs_code_position(c, own, k, sum(own, k), 0);
        sqs_memory_learn(memory, ids, k);
        survivors[i++] = k;
        used += k;
    } while (code_more(c, i, false));
    *length = i;
    return SQS_OK;
}

sqs_status sqs_message_decode_round(const sqs_codec *codec,
                                    sqs_memory *memory, const uint8_t *packet,
                                    size_t size, uint32_t *token_ids,
                                    uint32_t *counts, size_t capacity,
                                    uint32_t *survivors, uint32_t *positions,
                                    uint32_t *length)
{
    sqs_memory known;
    if (memory)
        known = *memory;
    else
        forget_all(&known);
    sqs_coder c = sqs_coder_read(packet, size);
    sqs_status status = get_round(&c, codec, &known, token_ids, counts,
                                  capacity, survivors, positions, length);
    if (status == SQS_OK)
        status = ending(&c);
    if (status == SQS_OK && memory)
        *memory = known;
    return status;
}

sqs_status sqs_message_encode_tokens(const sqs_codec *codec, uint32_t length,
                                     const uint32_t *tokens,
                                     const uint32_t *counts,
                                     const uint32_t *resolutions,
                                     uint8_t *packet, size_t capacity,
                                     size_t *size)
{
    uint32_t home = 0;
    sqs_coder c = sqs_coder_write(packet, capacity);
    for (uint32_t i = 0; i < length; i++) {
        uint32_t resolution =
            code_resolution(&c, codec, &home, resolutions[i]);
        sqs_code_token(&c, codec->vocab_size, tokens[i]);
        sqs_code_token_count(&c, resolution, counts[i]);
        code_more(&c, i + 1, i + 1 < length);
    }
    return finish(&c, size);
}

sqs_status sqs_message_decode_tokens(const sqs_codec *codec,
                                     const uint8_t *packet, size_t size,
                                     uint32_t *tokens, uint32_t *counts,
                                     uint32_t *resolutions, uint32_t *length)
{
    uint32_t home = 0, i = 0;
    sqs_coder c = sqs_coder_read(packet, size);
    do {
        resolutions[i] = code_resolution(&c, codec, &home, 0);
        tokens[i] = sqs_code_token(&c, codec->vocab_size, 0);
        counts[i] = sqs_code_token_count(&c, resolutions[i], 0);
        i++;
    } while (code_more(&c, i, false));
    *length = i;
    return ending(&c);
}
