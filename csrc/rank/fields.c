/*
 * fields.c - packets that consist of bit fields:
 *
 *   packet       := distribution  padding
 *   round        := length drafted^length  padding
 *   drafted      := distribution position
 *   distribution := size  payload
 *   payload      := id^k count^(k-1)        bitpack
 *                 | rank                    enumerative
 */
#include "rank/fields.h"

#include "bits.h"
#include "codec.h"
#include "rank/index.h"

#define LENGTH_WIDTH 8u
_Static_assert(SQS_MAX_ROUND == 1u << LENGTH_WIDTH,
               "every value of the length field is a legal length");

/* The largest sum of support sizes of an enumerative round. A sum of L numbers
 * is at most sqrt(L * sum of their squares): sqrt(2^8 * 2^23), rounded up. */
#define MOST_RANKED 46341u
_Static_assert(SQS_MAX_ROUND == 1u << 8 &&
                   SQS_MAX_ENUMERATIVE_SQUARES == 1u << 23,
               "MOST_RANKED follows from these");

/* Ranks are written and read in pieces of at most this many bits. */
#define PIECE 16u

/* Field widths. */

static uint32_t size_width(const sqs_codec *codec)
{
    return sqs_width(sqs_max_packet_survivors(codec) - 1);
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

/* Writes the largest rank of a distribution with k tokens; returns its width.
 */
static uint32_t rank_width(const sqs_codec *codec, uint32_t k,
                           sqs_big *largest)
{
    sqs_big one;
    sqs_big_set(&one, 1);
    sqs_index_size(largest, codec->vocab_size, codec->resolution, k);
    sqs_big_subtract(largest, &one);
    return sqs_big_length(largest);
}

/* Sizes. */

uint32_t sqs_fields_bits(const sqs_codec *codec, uint32_t survivors)
{
    if (codec->coding == SQS_ENUMERATIVE) {
        sqs_big largest;
        return size_width(codec) + rank_width(codec, survivors, &largest);
    }
    return size_width(codec) + survivors * id_width(codec) +
           (survivors - 1) * count_width(codec, survivors);
}

/* This is a bound for bitpack packets. Enumerative ones are never larger. */
size_t sqs_fields_bound(const sqs_codec *codec, uint64_t length,
                        uint64_t survivors)
{
    uint64_t each = id_width(codec) + sqs_width(codec->resolution);
    uint64_t once = size_width(codec) + size_width(codec);
    uint64_t bits = LENGTH_WIDTH + length * once + survivors * each;
    return (size_t)((bits + 7) / 8);
}

uint32_t sqs_fields_most(const sqs_codec *codec, size_t size)
{
    uint32_t most = SQS_MAX_ROUND * sqs_max_packet_survivors(codec);
    if (codec->coding == SQS_ENUMERATIVE)
        return most < MOST_RANKED ? most : MOST_RANKED;
    /* Each id takes at least a bit. */
    return size < most / 8 ? 8 * (uint32_t)size : most;
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
        sqs_big largest, rank;
        uint32_t width = rank_width(codec, k, &largest);
        sqs_index_rank(&rank, ids, counts, k, codec->resolution);
        put_rank(w, &rank, width);
        return;
    }
    for (uint32_t i = 0; i < k; i++)
        sqs_put(w, ids[i], id_width(codec));
    for (uint32_t i = 0; i + 1 < k; i++)
        sqs_put(w, counts[i] - 1, count_width(codec, k));
}

static void put_drafted(sqs_writer *w, const sqs_codec *codec,
                        const uint32_t *ids, const uint32_t *counts,
                        uint32_t k, uint32_t position)
{
    put_distribution(w, codec, ids, counts, k);
    sqs_put(w, position, position_width(k));
}

static sqs_status finish(const sqs_writer *w, size_t *size)
{
    if (sqs_writer_size(w) > w->capacity)
        return SQS_NO_SPACE;
    *size = (size_t)sqs_writer_size(w);
    return SQS_OK;
}

sqs_status sqs_fields_encode(const sqs_codec *codec, const uint32_t *token_ids,
                             const uint32_t *counts, uint32_t survivors,
                             uint8_t *packet, size_t capacity, size_t *size)
{
    sqs_writer w = {packet, capacity, 0};
    put_distribution(&w, codec, token_ids, counts, survivors);
    return finish(&w, size);
}

sqs_status sqs_fields_encode_round(const sqs_codec *codec,
                                   const sqs_sparse_rows *round,
                                   const uint32_t *positions, uint8_t *packet,
                                   size_t capacity, size_t *size)
{
    const uint32_t *ids = round->token_ids, *counts = round->counts;
    sqs_writer w = {packet, capacity, 0};
    sqs_put(&w, round->length - 1, LENGTH_WIDTH);
    for (uint32_t i = 0; i < round->length; i++) {
        uint32_t k = round->survivors[i];
        put_drafted(&w, codec, ids, counts, k, positions[i]);
        ids += k;
        counts += k;
    }
    return finish(&w, size);
}

/* Reading. */

/* Where the next distribution is written, and how large it may be. */
typedef struct target {
    const sqs_codec *codec;
    uint32_t *ids, *counts;
    uint32_t most; /* tokens that the receiver still accepts */
    uint32_t load; /* for sqs_within_round */
} target;

static sqs_status get_rank(sqs_reader *r, const target *to, uint32_t k)
{
    if (k > to->most)
        return SQS_OVER_LIMIT;
    sqs_big largest, rank;
    uint32_t width = rank_width(to->codec, k, &largest);
    if (width > sqs_left(r))
        return SQS_TRUNCATED;
    sqs_big_set(&rank, 0);
    while (width > 0) {
        uint32_t n = width % PIECE ? width % PIECE : PIECE;
        width -= n;
        sqs_big_append(&rank, sqs_get(r, n), n);
    }
    if (sqs_big_compare(&rank, &largest) > 0)
        return SQS_RANK;
    sqs_index_unrank(&rank, to->codec->vocab_size, to->codec->resolution, k,
                     to->ids, to->counts);
    return SQS_OK;
}

static sqs_status get_ids(sqs_reader *r, const sqs_codec *codec, uint32_t k,
                          uint32_t *ids)
{
    uint32_t width = id_width(codec);
    for (uint32_t i = 0; i < k; i++) {
        ids[i] = sqs_get(r, width);
        if (ids[i] >= codec->vocab_size)
            return SQS_TOKEN_ID;
        if (i > 0 && ids[i] <= ids[i - 1])
            return SQS_TOKEN_ORDER;
    }
    return SQS_OK;
}

static sqs_status get_counts(sqs_reader *r, const sqs_codec *codec, uint32_t k,
                             uint32_t *counts)
{
    uint32_t width = count_width(codec, k), left = codec->resolution;
    for (uint32_t i = 0; i + 1 < k; i++) {
        counts[i] = sqs_get(r, width) + 1;
        if (counts[i] >= left)
            return SQS_COUNTS;
        left -= counts[i];
    }
    counts[k - 1] = left;
    return SQS_OK;
}

static sqs_status get_fields(sqs_reader *r, const target *to, uint32_t k)
{
    uint64_t ids_width = (uint64_t)k * id_width(to->codec);
    uint64_t counts_width = (uint64_t)(k - 1) * count_width(to->codec, k);
    /* Check this before the limit: the caller may have lowered that to
     * sqs_fields_most, and a packet that claims more is truncated. */
    if (ids_width + counts_width > sqs_left(r))
        return SQS_TRUNCATED;
    if (k > to->most)
        return SQS_OVER_LIMIT;
    sqs_status status = get_ids(r, to->codec, k, to->ids);
    return status == SQS_OK ? get_counts(r, to->codec, k, to->counts) : status;
}

static sqs_status get_distribution(sqs_reader *r, target *to,
                                   uint32_t *survivors)
{
    const sqs_codec *codec = to->codec;
    if (size_width(codec) > sqs_left(r))
        return SQS_TRUNCATED;
    uint32_t k = sqs_get(r, size_width(codec)) + 1;
    if (k > sqs_max_packet_survivors(codec))
        return SQS_SUPPORT_SIZE;
    if (!sqs_within_round(codec, &to->load, k))
        return SQS_ROUND_SUPPORT;
    sqs_status status = codec->coding == SQS_ENUMERATIVE
                            ? get_rank(r, to, k)
                            : get_fields(r, to, k);
    if (status != SQS_OK)
        return status;
    to->ids += k;
    to->counts += k;
    to->most -= k;
    *survivors = k;
    return SQS_OK;
}

static sqs_status get_length(sqs_reader *r, uint32_t *length)
{
    if (LENGTH_WIDTH > sqs_left(r))
        return SQS_TRUNCATED;
    *length = sqs_get(r, LENGTH_WIDTH) + 1;
    return SQS_OK;
}

static sqs_status get_drafted(sqs_reader *r, target *to, uint32_t *survivors,
                              uint32_t *position)
{
    sqs_status status = get_distribution(r, to, survivors);
    if (status != SQS_OK)
        return status;
    uint32_t width = position_width(*survivors);
    if (width > sqs_left(r))
        return SQS_TRUNCATED;
    *position = sqs_get(r, width);
    return *position < *survivors ? SQS_OK : SQS_TOKEN_POSITION;
}

static sqs_status get_padding(sqs_reader *r)
{
    if (sqs_left(r) >= 8)
        return SQS_TRAILING_BYTES;
    return sqs_get(r, (uint32_t)sqs_left(r)) == 0 ? SQS_OK : SQS_PADDING;
}

sqs_status sqs_fields_decode(const sqs_codec *codec, const uint8_t *packet,
                             size_t size, uint32_t most, uint32_t *token_ids,
                             uint32_t *counts, uint32_t *survivors)
{
    sqs_reader r = {packet, (uint64_t)size * 8, 0};
    target to = {codec, token_ids, counts, most, 0};
    sqs_status status = get_distribution(&r, &to, survivors);
    return status == SQS_OK ? get_padding(&r) : status;
}

sqs_status sqs_fields_decode_round(const sqs_codec *codec,
                                   const uint8_t *packet, size_t size,
                                   uint32_t most, sqs_sparse_room *round,
                                   uint32_t *positions)
{
    sqs_reader r = {packet, (uint64_t)size * 8, 0};
    target to = {codec, round->token_ids, round->counts, most, 0};
    sqs_status status = get_length(&r, &round->done);
    for (uint32_t i = 0; status == SQS_OK && i < round->done; i++)
        status = get_drafted(&r, &to, &round->survivors[i], &positions[i]);
    return status == SQS_OK ? get_padding(&r) : status;
}
