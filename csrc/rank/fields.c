/*
 * packet.c - the fields of a packet; docs/format.md in code.
 *
 *   distribution := size  payload
 *   payload      := id^k count^(k-1)        bitpack
 *                 | rank                    enumerative
 *   packet       := distribution  padding
 *   round        := length (distribution position)^length  padding
 *   tokens       := length (id count)^length  padding
 *
 * The packets of the entropy coding are message.c's; here they are only told
 * apart, and their arguments checked.
 */
#include <string.h>

#include "bits.h"
#include "rank/index.h"
#include "entropy/packet.h"
#include "sqs.h"

#define LENGTH_WIDTH 8u
_Static_assert(SQS_MAX_ROUND == 1u << LENGTH_WIDTH,
               "every value of the length field is a legal length");

/* The most survivors of an enumerative round: as the sum of L numbers is at
 * most sqrt(L * the sum of their squares), sqrt(2^8 * 2^23), rounded up. */
#define MOST_RANKED 46341u
_Static_assert(SQS_MAX_ROUND == 1u << 8 &&
                   SQS_MAX_ENUMERATIVE_SQUARES == 1u << 23,
               "MOST_RANKED follows from these");

/* Ranks pass between integers and packets in pieces of so many bits. */
#define PIECE 16u

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

uint32_t sqs_max_survivors(const sqs_codec *codec)
{
    return least(codec->vocab_size, codec->resolution == SQS_VARIABLE
                                        ? SQS_MAX_RESOLUTION
                                        : codec->resolution);
}

/* The largest support that this codec's packets can name. */
static uint32_t max_size(const sqs_codec *codec)
{
    uint32_t most = sqs_max_survivors(codec);
    return codec->coding == SQS_ENUMERATIVE
               ? least(most, SQS_MAX_ENUMERATIVE_SUPPORT)
               : most;
}

/* Counts another k survivors of a round; false if they are too many. */
static bool within_round(const sqs_codec *codec, uint32_t *load, uint32_t k)
{
    switch (codec->coding) {
    case SQS_BITPACK:
        break;
    case SQS_ENUMERATIVE:
        *load += k * k;
        return *load <= SQS_MAX_ENUMERATIVE_SQUARES;
    case SQS_ENTROPY:
        *load += k;
        return *load <= SQS_MAX_ENTROPY_SURVIVORS;
    }
    return true;
}

/* Field widths. */

static uint32_t size_width(const sqs_codec *codec)
{
    return sqs_width(max_size(codec) - 1);
}

static uint32_t id_width(const sqs_codec *codec)
{
    return sqs_width(codec->vocab_size - 1);
}

static uint32_t count_width(const sqs_codec *codec, uint32_t k)
{
    return sqs_width(codec->resolution - k);
}

static uint32_t position_width(uint32_t k)
{
    return sqs_width(k - 1);
}

/* The width of a rank below `size`. */
static uint32_t rank_width(sqs_big *size)
{
    sqs_big one;
    sqs_big_set(&one, 1);
    sqs_big_subtract(size, &one);
    return sqs_big_length(size);
}

sqs_status sqs_check_codec(const sqs_codec *codec)
{
    bool entropy = codec->coding == SQS_ENTROPY;
    bool ok = codec->vocab_size >= SQS_MIN_VOCAB &&
              codec->vocab_size <= SQS_MAX_VOCAB &&
              codec->resolution <= SQS_MAX_RESOLUTION &&
              (codec->resolution != SQS_VARIABLE || entropy) &&
              (codec->coding == SQS_BITPACK ||
               codec->coding == SQS_ENUMERATIVE || entropy) &&
              sqs_find_isa(codec->isa) != SQS_ISA_BEST;
    return ok ? SQS_OK : SQS_BAD_CODEC;
}

/* Whether a distribution of the codec can have this resolution. */
static bool is_resolution(const sqs_codec *codec, uint32_t resolution)
{
    if (codec->resolution != SQS_VARIABLE)
        return resolution == codec->resolution;
    return resolution > 0 && resolution <= SQS_MAX_RESOLUTION &&
           (resolution & (resolution - 1)) == 0;
}

static sqs_status check_distribution(const sqs_codec *codec,
                                     const uint32_t *ids,
                                     const uint32_t *counts, uint32_t k)
{
    if (k == 0 || k > sqs_max_survivors(codec))
        return SQS_BAD_DISTRIBUTION;
    uint32_t sum = 0;
    for (uint32_t i = 0; i < k; i++) {
        if (ids[i] >= codec->vocab_size || (i > 0 && ids[i] <= ids[i - 1]))
            return SQS_BAD_DISTRIBUTION;
        if (counts[i] == 0 || counts[i] > SQS_MAX_RESOLUTION - sum)
            return SQS_BAD_DISTRIBUTION;
        sum += counts[i];
    }
    if (!is_resolution(codec, sum))
        return SQS_BAD_DISTRIBUTION;
    return k <= max_size(codec) ? SQS_OK : SQS_LARGE_SUPPORT;
}

/* Sizes. */

sqs_status sqs_bits(const sqs_codec *codec, const uint32_t *token_ids,
                    const uint32_t *counts, uint32_t survivors,
                    uint32_t *bits)
{
    sqs_status status =
        check_distribution(codec, token_ids, counts, survivors);
    if (status != SQS_OK)
        return status;
    if (codec->coding == SQS_ENTROPY) {
        *bits = sqs_message_bits(codec, token_ids, counts, survivors);
        return SQS_OK;
    }
    *bits = size_width(codec);
    if (codec->coding == SQS_BITPACK) {
        *bits += survivors * id_width(codec);
        *bits += (survivors - 1) * count_width(codec, survivors);
    } else {
        sqs_big size;
        sqs_index_size(&size, codec->vocab_size, codec->resolution,
                       survivors);
        *bits += rank_width(&size);
    }
    return SQS_OK;
}

/* Ids, counts and positions of an enumerative packet never take more than
 * those of a bitpack one: a fixed width is one way of numbering them. */
static size_t bound(const sqs_codec *codec, uint64_t fixed, uint64_t length,
                    uint64_t survivors)
{
    if (codec->coding == SQS_ENTROPY)
        return sqs_message_bound(length, survivors);
    uint64_t each = id_width(codec) + sqs_width(codec->resolution);
    uint64_t once = size_width(codec) + size_width(codec);
    return (size_t)((fixed + length * once + survivors * each + 7) / 8);
}

size_t sqs_encode_bound(const sqs_codec *codec, uint32_t survivors)
{
    return bound(codec, 0, 1, survivors);
}

size_t sqs_encode_round_bound(const sqs_codec *codec, uint32_t length,
                              size_t survivors)
{
    return bound(codec, LENGTH_WIDTH, length, survivors);
}

size_t sqs_decode_round_bound(const sqs_codec *codec, size_t size)
{
    size_t most = (size_t)SQS_MAX_ROUND * max_size(codec);
    if (codec->coding == SQS_ENUMERATIVE)
        return most < MOST_RANKED ? most : MOST_RANKED;
    if (codec->coding == SQS_ENTROPY)
        return most < SQS_MAX_ENTROPY_SURVIVORS ? most
                                                : SQS_MAX_ENTROPY_SURVIVORS;
    return size < most / 8 ? 8 * size : most; /* an id takes a bit at least */
}

/* Writing. */

static void put_rank(sqs_writer *w, const sqs_big *rank, uint32_t width)
{
    while (width > 0) {
        uint32_t n = width % PIECE ? width % PIECE : PIECE;
        width -= n;
        sqs_put(w, sqs_big_bits(rank, width, n), n);
    }
}

static void put_distribution(sqs_writer *w, const sqs_codec *codec,
                             const uint32_t *ids, const uint32_t *counts,
                             uint32_t k)
{
    sqs_put(w, k - 1, size_width(codec));
    if (codec->coding == SQS_ENUMERATIVE) {
        sqs_big size, rank;
        sqs_index_size(&size, codec->vocab_size, codec->resolution, k);
        sqs_index_rank(&rank, ids, counts, k, codec->resolution);
        put_rank(w, &rank, rank_width(&size));
        return;
    }
    for (uint32_t i = 0; i < k; i++)
        sqs_put(w, ids[i], id_width(codec));
    for (uint32_t i = 0; i + 1 < k; i++)
        sqs_put(w, counts[i] - 1, count_width(codec, k));
}

static sqs_status finish(const sqs_writer *w, size_t *size)
{
    if (sqs_writer_size(w) > w->capacity)
        return SQS_NO_SPACE;
    *size = (size_t)sqs_writer_size(w);
    return SQS_OK;
}

sqs_status sqs_encode(const sqs_codec *codec, const uint32_t *token_ids,
                      const uint32_t *counts, uint32_t survivors,
                      uint8_t *packet, size_t capacity, size_t *size)
{
    sqs_status status =
        check_distribution(codec, token_ids, counts, survivors);
    if (status != SQS_OK)
        return status;
    if (codec->coding == SQS_ENTROPY)
        return sqs_message_encode(codec, token_ids, counts, survivors, packet,
                                  capacity, size);
    sqs_writer w = {packet, capacity, 0};
    put_distribution(&w, codec, token_ids, counts, survivors);
    return finish(&w, size);
}

static sqs_status check_round(const sqs_codec *codec, uint32_t length,
                              const uint32_t *token_ids,
                              const uint32_t *counts,
                              const uint32_t *survivors,
                              const uint32_t *positions)
{
    if (length == 0 || length > SQS_MAX_ROUND)
        return SQS_BAD_ROUND;
    uint32_t load = 0;
    for (uint32_t i = 0; i < length; i++) {
        uint32_t k = survivors[i];
        sqs_status status = check_distribution(codec, token_ids, counts, k);
        if (status != SQS_OK)
            return status;
        if (positions[i] >= k || !within_round(codec, &load, k))
            return SQS_BAD_ROUND;
        token_ids += k;
        counts += k;
    }
    return SQS_OK;
}

sqs_status sqs_encode_round(const sqs_codec *codec, sqs_memory *memory,
                            uint32_t length, const uint32_t *token_ids,
                            const uint32_t *counts, const uint32_t *survivors,
                            const uint32_t *positions, uint8_t *packet,
                            size_t capacity, size_t *size)
{
    sqs_status status = check_round(codec, length, token_ids, counts,
                                    survivors, positions);
    if (status != SQS_OK)
        return status;
    if (codec->coding == SQS_ENTROPY)
        return sqs_message_encode_round(codec, memory, length, token_ids,
                                        counts, survivors, positions, packet,
                                        capacity, size);
    sqs_writer w = {packet, capacity, 0};
    sqs_put(&w, length - 1, LENGTH_WIDTH);
    for (uint32_t i = 0; i < length; i++) {
        uint32_t k = survivors[i];
        put_distribution(&w, codec, token_ids, counts, k);
        sqs_put(&w, positions[i], position_width(k));
        token_ids += k;
        counts += k;
    }
    return finish(&w, size);
}

size_t sqs_encode_tokens_bound(const sqs_codec *codec, uint32_t length)
{
    if (codec->coding == SQS_ENTROPY)
        return sqs_message_tokens_bound(length);
    uint64_t each = id_width(codec) + sqs_width(codec->resolution - 1);
    return (size_t)((LENGTH_WIDTH + length * each + 7) / 8);
}

sqs_status sqs_encode_tokens(const sqs_codec *codec, uint32_t length,
                             const uint32_t *tokens, const uint32_t *counts,
                             const uint32_t *resolutions, uint8_t *packet,
                             size_t capacity, size_t *size)
{
    if (length == 0 || length > SQS_MAX_ROUND)
        return SQS_BAD_ROUND;
    for (uint32_t i = 0; i < length; i++)
        if (tokens[i] >= codec->vocab_size || counts[i] == 0 ||
            counts[i] > resolutions[i] ||
            !is_resolution(codec, resolutions[i]))
            return SQS_BAD_ROUND;
    if (codec->coding == SQS_ENTROPY)
        return sqs_message_encode_tokens(codec, length, tokens, counts,
                                         resolutions, packet, capacity, size);
    sqs_writer w = {packet, capacity, 0};
    sqs_put(&w, length - 1, LENGTH_WIDTH);
    for (uint32_t i = 0; i < length; i++) {
        sqs_put(&w, tokens[i], id_width(codec));
        sqs_put(&w, counts[i] - 1, sqs_width(codec->resolution - 1));
    }
    return finish(&w, size);
}

/* Reading. */

static sqs_status get_rank(sqs_reader *r, const sqs_codec *codec, uint32_t k,
                           uint32_t *ids, uint32_t *counts, size_t room)
{
    sqs_big largest, rank;
    sqs_index_size(&largest, codec->vocab_size, codec->resolution, k);
    uint32_t width = rank_width(&largest); /* leaves size - 1 in largest */
    if (width > sqs_left(r))
        return SQS_TRUNCATED;
    if (k > room)
        return SQS_NO_SPACE;
    sqs_big_set(&rank, 0);
    while (width > 0) {
        uint32_t n = width % PIECE ? width % PIECE : PIECE;
        width -= n;
        sqs_big_append(&rank, sqs_get(r, n), n);
    }
    if (sqs_big_compare(&rank, &largest) > 0)
        return SQS_RANK;
    sqs_index_unrank(&rank, codec->vocab_size, codec->resolution, k, ids,
                     counts);
    return SQS_OK;
}

static sqs_status get_fields(sqs_reader *r, const sqs_codec *codec,
                             uint32_t k, uint32_t *ids, uint32_t *counts,
                             size_t room)
{
    uint32_t width = count_width(codec, k);
    uint64_t ids_width = (uint64_t)k * id_width(codec);
    if (ids_width + (uint64_t)(k - 1) * width > sqs_left(r))
        return SQS_TRUNCATED;
    if (k > room)
        return SQS_NO_SPACE;
    for (uint32_t i = 0; i < k; i++) {
        ids[i] = sqs_get(r, id_width(codec));
        if (ids[i] >= codec->vocab_size)
            return SQS_TOKEN_ID;
        if (i > 0 && ids[i] <= ids[i - 1])
            return SQS_TOKEN_ORDER;
    }
    uint32_t left = codec->resolution;
    for (uint32_t i = 0; i + 1 < k; i++) {
        counts[i] = sqs_get(r, width) + 1;
        if (counts[i] >= left)
            return SQS_COUNTS;
        left -= counts[i];
    }
    counts[k - 1] = left;
    return SQS_OK;
}

/* Reads a distribution into room for `room` survivors. */
static sqs_status get_distribution(sqs_reader *r, const sqs_codec *codec,
                                   uint32_t *load, uint32_t *ids,
                                   uint32_t *counts, size_t room,
                                   uint32_t *survivors)
{
    if (size_width(codec) > sqs_left(r))
        return SQS_TRUNCATED;
    uint32_t k = sqs_get(r, size_width(codec)) + 1;
    if (k > max_size(codec))
        return SQS_SUPPORT_SIZE;
    if (!within_round(codec, load, k))
        return SQS_ROUND_SUPPORT;
    *survivors = k;
    return codec->coding == SQS_ENUMERATIVE
               ? get_rank(r, codec, k, ids, counts, room)
               : get_fields(r, codec, k, ids, counts, room);
}

static sqs_status get_position(sqs_reader *r, uint32_t k, uint32_t *position)
{
    if (position_width(k) > sqs_left(r))
        return SQS_TRUNCATED;
    *position = sqs_get(r, position_width(k));
    return *position < k ? SQS_OK : SQS_TOKEN_POSITION;
}

static sqs_status get_padding(sqs_reader *r)
{
    if (sqs_left(r) >= 8)
        return SQS_TRAILING_BYTES;
    return sqs_get(r, (uint32_t)sqs_left(r)) == 0 ? SQS_OK : SQS_PADDING;
}

sqs_status sqs_decode(const sqs_codec *codec, const uint8_t *packet,
                      size_t size, uint32_t *token_ids, uint32_t *counts,
                      uint32_t *survivors)
{
    if (codec->coding == SQS_ENTROPY)
        return sqs_message_decode(codec, packet, size, token_ids, counts,
                                  survivors);
    sqs_reader r = {packet, (uint64_t)size * 8, 0};
    uint32_t load = 0;
    sqs_status status =
        get_distribution(&r, codec, &load, token_ids, counts,
                         sqs_max_survivors(codec), survivors);
    return status == SQS_OK ? get_padding(&r) : status;
}

sqs_status sqs_decode_round(const sqs_codec *codec, sqs_memory *memory,
                            const uint8_t *packet, size_t size,
                            uint32_t *token_ids, uint32_t *counts,
                            size_t capacity, uint32_t *survivors,
                            uint32_t *positions, uint32_t *length)
{
    if (codec->coding == SQS_ENTROPY)
        return sqs_message_decode_round(codec, memory, packet, size,
                                        token_ids, counts, capacity,
                                        survivors, positions, length);
    sqs_reader r = {packet, (uint64_t)size * 8, 0};
    if (LENGTH_WIDTH > sqs_left(&r))
        return SQS_TRUNCATED;
    *length = sqs_get(&r, LENGTH_WIDTH) + 1;
    uint32_t load = 0;
    size_t used = 0;
    for (uint32_t i = 0; i < *length; i++) {
        sqs_status status = get_distribution(
            &r, codec, &load, token_ids + used, counts + used,
            capacity - used, &survivors[i]);
        if (status == SQS_OK)
            status = get_position(&r, survivors[i], &positions[i]);
        if (status != SQS_OK)
            return status;
        used += survivors[i];
    }
    return get_padding(&r);
}

static sqs_status get_token(sqs_reader *r, const sqs_codec *codec,
                            uint32_t *token, uint32_t *count)
{
    uint32_t width = sqs_width(codec->resolution - 1);
    if (id_width(codec) > sqs_left(r))
        return SQS_TRUNCATED;
    *token = sqs_get(r, id_width(codec));
    if (*token >= codec->vocab_size)
        return SQS_TOKEN_ID;
    if (width > sqs_left(r))
        return SQS_TRUNCATED;
    *count = sqs_get(r, width) + 1;
    return *count <= codec->resolution ? SQS_OK : SQS_COUNTS;
}

sqs_status sqs_decode_tokens(const sqs_codec *codec, const uint8_t *packet,
                             size_t size, uint32_t *tokens, uint32_t *counts,
                             uint32_t *resolutions, uint32_t *length)
{
    if (codec->coding == SQS_ENTROPY)
        return sqs_message_decode_tokens(codec, packet, size, tokens, counts,
                                         resolutions, length);
    sqs_reader r = {packet, (uint64_t)size * 8, 0};
    if (LENGTH_WIDTH > sqs_left(&r))
        return SQS_TRUNCATED;
    *length = sqs_get(&r, LENGTH_WIDTH) + 1;
    for (uint32_t i = 0; i < *length; i++) {
        sqs_status status = get_token(&r, codec, &tokens[i], &counts[i]);
        if (status != SQS_OK)
            return status;
        resolutions[i] = codec->resolution;
    }
    return get_padding(&r);
}

const char *sqs_status_text(sqs_status status)
{
    switch (status) {
    case SQS_OK:
        return "no error";
    case SQS_TRUNCATED:
        return "the packet ends inside a field";
    case SQS_TRAILING_BYTES:
        return "bytes follow the packet's last field";
    case SQS_PADDING:
        return "the last byte is not what an encoder ends with";
    case SQS_SUPPORT_SIZE:
        return "the support is larger than the codec allows";
    case SQS_RANK:
        return "the rank names no distribution";
    case SQS_TOKEN_ID:
        return "a token id lies outside the vocabulary";
    case SQS_TOKEN_ORDER:
        return "the token ids do not ascend";
    case SQS_COUNTS:
        return "a count exceeds what the resolution leaves it";
    case SQS_TOKEN_POSITION:
        return "a drafted token lies outside its support";
    case SQS_ROUND_SUPPORT:
        return "a round's supports are too large together";
    case SQS_BAD_CODEC:
        return "the codec's vocabulary, resolution or coding is out of range";
    case SQS_BAD_DISTRIBUTION:
        return "not a distribution of this codec";
    case SQS_LARGE_SUPPORT:
        return "more survivors than the coding can hold";
    case SQS_BAD_ROUND:
        return "not a round that the coding can hold";
    case SQS_BAD_KEEP:
        return "the keep rule's parameter is out of range";
    case SQS_BAD_FIT:
        return "error or bits_per_tv is out of range for this codec";
    case SQS_BAD_TEMPERATURE:
        return "the temperature is negative or not finite";
    case SQS_NO_SPACE:
        return "the output buffer is too small";
    case SQS_NOT_FINITE:
        return "a value is NaN or infinite";
    case SQS_ALL_MASKED:
        return "every logit is -infinity";
    case SQS_NEGATIVE:
        return "a probability is negative";
    case SQS_SUM:
        return "the probabilities do not sum to 1";
    }
    return "unknown status";
}
