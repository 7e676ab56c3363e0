/*
 * example.c - the core as a C program uses it: logits to counts, counts to
 * bytes, bytes to counts; then every status that sqs.h lists, each from an
 * input that deserves it.
 *
 * Every buffer has exactly the size that sqs.h asks for, and lies on the heap,
 * so that AddressSanitizer sees one byte too many.
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sqs.h"

#define STATUSES (SQS_SUM + 1)

static bool met[STATUSES];

static void fail(int line, const char *what)
{
    fprintf(stderr, "example.c:%d: %s\n", line, what);
    exit(1);
}

static void expect_at(int line, sqs_status got, sqs_status wanted)
{
    if (got != wanted) {
        fprintf(stderr, "wanted: %s\n", sqs_status_text(wanted));
        fail(line, sqs_status_text(got));
    }
    met[wanted] = true;
}

static void check_at(int line, bool holds, const char *what)
{
    if (!holds)
        fail(line, what);
}

#define EXPECT(wanted, got) expect_at(__LINE__, got, wanted)
#define CHECK(condition) check_at(__LINE__, condition, #condition)

static void *take(size_t count, size_t size)
{
    void *memory = malloc(count * size);
    CHECK(memory != NULL || count == 0);
    return memory;
}

/* A distribution, with room for the largest of its codec. */
typedef struct distribution {
    uint32_t *ids;
    uint32_t *counts;
    uint32_t k;
    double dropped;
} distribution;

static distribution make_distribution(const sqs_codec *codec)
{
    size_t most = sqs_max_survivors(codec);
    return (distribution){.ids = take(most, sizeof(uint32_t)),
                          .counts = take(most, sizeof(uint32_t))};
}

static void free_distribution(distribution *d)
{
    free(d->ids);
    free(d->counts);
}

static bool same(const distribution *a, const distribution *b)
{
    return a->k == b->k &&
           memcmp(a->ids, b->ids, a->k * sizeof *a->ids) == 0 &&
           memcmp(a->counts, b->counts, a->k * sizeof *a->counts) == 0;
}

static void check_valid(const sqs_codec *codec, const distribution *d)
{
    uint32_t sum = 0;
    CHECK(d->k >= 1 && d->k <= sqs_max_survivors(codec));
    for (uint32_t i = 0; i < d->k; i++) {
        CHECK(d->ids[i] < codec->vocab_size);
        CHECK(i == 0 || d->ids[i] > d->ids[i - 1]);
        CHECK(d->counts[i] >= 1);
        sum += d->counts[i];
    }
    CHECK(sum == codec->resolution);
}

/* What the core is for. */

/* A small integer as binary16. */
static uint16_t half(int value)
{
    if (value == 0)
        return 0;
    int exponent;
    double mantissa = frexp(fabs((double)value), &exponent); /* [1/2, 1) */
    uint32_t bits = (uint32_t)(exponent + 14) << 10;
    bits += (uint32_t)(mantissa * 2048) - 1024;
    return (uint16_t)(bits | (value < 0 ? 0x8000u : 0));
}

/* Logits in [-8, 8) in all three types. */
typedef struct row {
    uint16_t *f16;
    float *f32;
    double *f64;
} row;

static row make_row(uint32_t size, uint32_t seed)
{
    row r = {take(size, sizeof(uint16_t)), take(size, sizeof(float)),
             take(size, sizeof(double))};
    for (uint32_t i = 0; i < size; i++) {
        seed = seed * 1664525 + 1013904223;
        int value = (int)(seed >> 28) - 8;
        r.f16[i] = half(value);
        r.f32[i] = (float)value;
        r.f64[i] = value;
    }
    return r;
}

static void free_row(row *r)
{
    free(r->f16);
    free(r->f32);
    free(r->f64);
}

static distribution quantize(const sqs_codec *codec, const void *logits,
                             sqs_dtype dtype, const sqs_keep *keep)
{
    distribution d = make_distribution(codec);
    void *scratch = take(1, sqs_quantize_scratch(codec));
    EXPECT(SQS_OK,
           sqs_quantize_logits(codec, logits, dtype, 0.7, keep, scratch,
                               d.ids, d.counts, &d.k, &d.dropped));
    free(scratch);
    check_valid(codec, &d);
    CHECK(d.dropped >= 0 && d.dropped < 1);
    return d;
}

/* The three types hold the same values, so they give the same counts. */
static distribution quantize_row(const sqs_codec *codec, const row *r,
                                 const sqs_keep *keep)
{
    distribution d = quantize(codec, r->f32, SQS_F32, keep);
    distribution from_f16 = quantize(codec, r->f16, SQS_F16, keep);
    distribution from_f64 = quantize(codec, r->f64, SQS_F64, keep);
    CHECK(same(&d, &from_f16) && same(&d, &from_f64));
    free_distribution(&from_f16);
    free_distribution(&from_f64);
    return d;
}

static void send_one(const sqs_codec *codec, const distribution *sent)
{
    uint32_t bits;
    EXPECT(SQS_OK, sqs_bits(codec, sent->ids, sent->counts, sent->k, &bits));
    size_t wanted = (bits + 7) / 8, size;
    CHECK(wanted <= sqs_encode_bound(codec, sent->k));
    uint8_t *packet = take(wanted, 1);
    EXPECT(SQS_OK, sqs_encode(codec, sent->ids, sent->counts, sent->k, packet,
                              wanted, &size));
    CHECK(size == wanted);

    distribution got = make_distribution(codec);
    EXPECT(SQS_OK,
           sqs_decode(codec, packet, size, got.ids, got.counts, &got.k));
    CHECK(same(sent, &got));

    uint8_t *tight = take(size - 1, 1);
    EXPECT(SQS_NO_SPACE, sqs_encode(codec, sent->ids, sent->counts, sent->k,
                                    tight, size - 1, &size));
    memcpy(tight, packet, wanted - 1);
    EXPECT(SQS_TRUNCATED, sqs_decode(codec, tight, wanted - 1, got.ids,
                                     got.counts, &got.k));
    free(tight);
    free(packet);
    free_distribution(&got);
}

/* Sends the same distribution `length` times, with a token from all over. */
static void send_round(const sqs_codec *codec, const distribution *sent,
                       uint32_t length)
{
    size_t total = (size_t)length * sent->k;
    uint32_t *ids = take(total, sizeof *ids);
    uint32_t *counts = take(total, sizeof *counts);
    uint32_t *survivors = take(length, sizeof *survivors);
    uint32_t *positions = take(length, sizeof *positions);
    for (uint32_t i = 0; i < length; i++) {
        memcpy(ids + i * sent->k, sent->ids, sent->k * sizeof *ids);
        memcpy(counts + i * sent->k, sent->counts, sent->k * sizeof *counts);
        survivors[i] = sent->k;
        positions[i] = i % sent->k;
    }
    size_t bound = sqs_encode_round_bound(codec, length, total), size;
    uint8_t *packet = take(bound, 1);
    EXPECT(SQS_OK, sqs_encode_round(codec, length, ids, counts, survivors,
                                    positions, packet, bound, &size));
    CHECK(size <= bound);
    uint8_t *exact = take(size, 1);
    EXPECT(SQS_OK, sqs_encode_round(codec, length, ids, counts, survivors,
                                    positions, exact, size, &size));
    CHECK(memcmp(packet, exact, size) == 0);

    size_t room = sqs_decode_round_bound(codec, size);
    CHECK(room >= total);
    uint32_t *got_ids = take(room, sizeof *got_ids);
    uint32_t *got_counts = take(room, sizeof *got_counts);
    uint32_t *got_survivors = take(SQS_MAX_ROUND, sizeof *got_survivors);
    uint32_t *got_positions = take(SQS_MAX_ROUND, sizeof *got_positions);
    uint32_t got_length;
    EXPECT(SQS_OK, sqs_decode_round(codec, exact, size, got_ids, got_counts,
                                    room, got_survivors, got_positions,
                                    &got_length));
    CHECK(got_length == length);
    CHECK(memcmp(got_ids, ids, total * sizeof *ids) == 0);
    CHECK(memcmp(got_counts, counts, total * sizeof *counts) == 0);
    CHECK(memcmp(got_survivors, survivors, length * sizeof *ids) == 0);
    CHECK(memcmp(got_positions, positions, length * sizeof *ids) == 0);

    EXPECT(SQS_NO_SPACE,
           sqs_encode_round(codec, length, ids, counts, survivors, positions,
                            packet, size - 1, &bound));
    EXPECT(SQS_NO_SPACE,
           sqs_decode_round(codec, exact, size, ids, counts, total - 1,
                            got_survivors, got_positions, &got_length));
    void *all[] = {ids,   counts,  survivors,  positions,     packet,
                   exact, got_ids, got_counts, got_survivors, got_positions};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

static void there_and_back(void)
{
    static const sqs_keep keeps[] = {
        {SQS_TOP_K, 1},         {SQS_TOP_K, 64},   {SQS_TOP_K, 1e9},
        {SQS_THRESHOLD, 0.001}, {SQS_TOP_P, 0.9},  {SQS_TOP_P, 1},
        {SQS_MIN_P, 0.05},      {SQS_THRESHOLD, 2}};
    static const sqs_codec codecs[] = {
        {SQS_MIN_VOCAB, 1, SQS_BITPACK}, {3, SQS_MAX_RESOLUTION, SQS_BITPACK},
        {1000, 100, SQS_BITPACK},        {1024, 65536, SQS_BITPACK},
        {SQS_MAX_VOCAB, 100, SQS_BITPACK}};
    for (size_t c = 0; c < sizeof codecs / sizeof codecs[0]; c++) {
        sqs_codec codec = codecs[c];
        row r = make_row(codec.vocab_size, 1 + (uint32_t)c);
        for (size_t i = 0; i < sizeof keeps / sizeof keeps[0]; i++) {
            distribution d = quantize_row(&codec, &r, &keeps[i]);
            CHECK(keeps[i].kind != SQS_TOP_K || d.k <= keeps[i].value);
            for (int coding = SQS_BITPACK; coding <= SQS_ENUMERATIVE;
                 coding++) {
                codec.coding = (sqs_coding)coding;
                EXPECT(SQS_OK, sqs_check_codec(&codec));
                send_one(&codec, &d);
                send_round(&codec, &d, 1);
                send_round(&codec, &d, 5);
            }
            free_distribution(&d);
        }
        free_row(&r);
    }
}

/* Bytes that break a rule. */

/* Packs a string of bits, spaces aside, and puts it on the heap. */
static uint8_t *pack(const char *bits, size_t *size)
{
    size_t n = 0;
    for (const char *c = bits; *c != '\0'; c++)
        n += *c != ' ';
    *size = (n + 7) / 8;
    uint8_t *packet = take(*size, 1);
    if (*size > 0)
        memset(packet, 0, *size);
    n = 0;
    for (const char *c = bits; *c != '\0'; c++) {
        if (*c == ' ')
            continue;
        packet[n / 8] |= (uint8_t)((*c - '0') << (7 - n % 8));
        n++;
    }
    return packet;
}

static sqs_status decode(const sqs_codec *codec, const char *bits)
{
    size_t size;
    uint8_t *packet = pack(bits, &size);
    distribution d = make_distribution(codec);
    sqs_status status =
        sqs_decode(codec, packet, size, d.ids, d.counts, &d.k);
    if (status == SQS_OK)
        check_valid(codec, &d);
    free_distribution(&d);
    free(packet);
    return status;
}

static sqs_status decode_round(const sqs_codec *codec, const char *bits)
{
    size_t size;
    uint8_t *packet = pack(bits, &size);
    size_t room = sqs_decode_round_bound(codec, size);
    uint32_t *ids = take(room, sizeof *ids);
    uint32_t *counts = take(room, sizeof *counts);
    uint32_t *survivors = take(SQS_MAX_ROUND, sizeof *survivors);
    uint32_t *positions = take(SQS_MAX_ROUND, sizeof *positions);
    uint32_t length;
    sqs_status status = sqs_decode_round(codec, packet, size, ids, counts,
                                         room, survivors, positions, &length);
    free(positions);
    free(survivors);
    free(counts);
    free(ids);
    free(packet);
    return status;
}

static void broken_bitpack(void)
{
    /* k - 1 in 2 bits, ids in 3, counts - 1 in the width of 4 - k. */
    sqs_codec codec = {5, 4, SQS_BITPACK};
    EXPECT(SQS_OK, decode(&codec, "01 000 100 10 000000"));
    EXPECT(SQS_TRUNCATED, decode(&codec, ""));
    EXPECT(SQS_TRUNCATED, decode(&codec, "01 000 100"));
    EXPECT(SQS_TRAILING_BYTES, decode(&codec, "00 100 000  00000000"));
    EXPECT(SQS_PADDING, decode(&codec, "01 000 100 10 000001"));
    EXPECT(SQS_PADDING, decode(&codec, "01 000 100 10 100000"));
    EXPECT(SQS_TOKEN_ID, decode(&codec, "01 000 101 10"));
    EXPECT(SQS_TOKEN_ORDER, decode(&codec, "01 011 011 10"));
    EXPECT(SQS_TOKEN_ORDER, decode(&codec, "01 011 010 10"));
    EXPECT(SQS_COUNTS, decode(&codec, "01 000 100 11"));
    EXPECT(SQS_COUNTS, decode(&codec, "10 000 001 100 1 1"));

    sqs_codec three = {3, 3, SQS_BITPACK}; /* 11 would be k = 4 */
    EXPECT(SQS_SUPPORT_SIZE, decode(&three, "11 000000"));

    /* A round adds its length - 1 in 8 bits and, for k = 3, 2 of position. */
    EXPECT(SQS_OK, decode_round(&codec, "00000000 10 000 001 100 0 0 10"));
    EXPECT(SQS_TOKEN_POSITION,
           decode_round(&codec, "00000000 10 000 001 100 0 0 11"));
    EXPECT(SQS_TRUNCATED, decode_round(&codec, ""));
    EXPECT(SQS_TRUNCATED, decode_round(&codec, "00000001 00 100"));
    EXPECT(SQS_TRUNCATED, /* at the last position */
           decode_round(&codec, "00000110 00100 00100 00100 00100 00100 00100"
                                " 01 000 100 10"));
    EXPECT(SQS_TRAILING_BYTES,
           decode_round(&codec, "00000000 00 100 000 00000000"));
    EXPECT(SQS_PADDING, decode_round(&codec, "00000000 00 100 010"));
}

#define DENSE "1111111111 0000000000"
#define FOUR_DENSE DENSE DENSE DENSE DENSE

static void broken_enumerative(void)
{
    /* k - 1 in 2 bits; for k = 2 a rank below C(4, 2) C(3, 1) = 18 in 5. */
    sqs_codec codec = {4, 4, SQS_ENUMERATIVE};
    EXPECT(SQS_OK, decode(&codec, "01 10001"));
    EXPECT(SQS_RANK, decode(&codec, "01 10010"));
    EXPECT(SQS_RANK, decode(&codec, "01 11111"));
    EXPECT(SQS_TRUNCATED, decode(&codec, ""));
    EXPECT(SQS_TRAILING_BYTES, decode(&codec, "01 10001 0  00000000"));
    EXPECT(SQS_PADDING, decode(&codec, "01 10001 1"));
    EXPECT(SQS_OK, decode_round(&codec, "00000000 01 10001 1"));
    EXPECT(SQS_TRAILING_BYTES,
           decode_round(&codec, "00000000 01 10001 1 00000000"));

    sqs_codec three = {3, 3, SQS_ENUMERATIVE};
    EXPECT(SQS_SUPPORT_SIZE, decode(&three, "11 000000"));
    /* For k = 3 there is one distribution, and 2 bits of position. */
    EXPECT(SQS_OK, decode_round(&three, "00000000 10 10"));
    EXPECT(SQS_TOKEN_POSITION, decode_round(&three, "00000000 10 11"));
    /* Supports of 1 024 out of 1 024 tokens, whose rank takes no bits: eight of
     * them use SQS_MAX_ENUMERATIVE_SQUARES up. */
    sqs_codec dense = {1024, 1024, SQS_ENUMERATIVE};
    EXPECT(SQS_OK, decode_round(&dense, "00000111" FOUR_DENSE FOUR_DENSE));
    EXPECT(SQS_ROUND_SUPPORT,
           decode_round(&dense, "00001000" FOUR_DENSE FOUR_DENSE DENSE));
}

/* Arguments that cannot be used. */

static void bad_codecs(void)
{
    static const sqs_codec bad[] = {
        {0, 100, SQS_BITPACK},
        {SQS_MIN_VOCAB - 1, 100, SQS_BITPACK},
        {SQS_MAX_VOCAB + 1, 100, SQS_BITPACK},
        {100, 0, SQS_BITPACK},
        {100, SQS_MAX_RESOLUTION + 1, SQS_BITPACK},
        {100, 100, (sqs_coding)(SQS_ENUMERATIVE + 1)}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        EXPECT(SQS_BAD_CODEC, sqs_check_codec(&bad[i]));
}

/* What sqs_bits, sqs_encode and sqs_encode_round say of a distribution; the
 * arrays hold exactly k values. */
static void refuse(const sqs_codec *codec, const uint32_t *ids,
                   const uint32_t *counts, uint32_t k, sqs_status wanted)
{
    uint32_t *own_ids = take(k, sizeof *ids);
    uint32_t *own_counts = take(k, sizeof *counts);
    if (k > 0) {
        memcpy(own_ids, ids, k * sizeof *ids);
        memcpy(own_counts, counts, k * sizeof *counts);
    }
    size_t bound = sqs_encode_round_bound(codec, 1, k), size;
    uint8_t *packet = take(bound, 1);
    uint32_t bits, position = 0;
    EXPECT(wanted, sqs_bits(codec, own_ids, own_counts, k, &bits));
    EXPECT(wanted, sqs_encode(codec, own_ids, own_counts, k, packet,
                              sqs_encode_bound(codec, k), &size));
    EXPECT(wanted, sqs_encode_round(codec, 1, own_ids, own_counts, &k,
                                    &position, packet, bound, &size));
    free(packet);
    free(own_counts);
    free(own_ids);
}

static void bad_distributions(sqs_coding coding)
{
    sqs_codec codec = {5, 4, coding};
    static const struct {
        uint32_t ids[5], counts[5], k;
    } bad[] = {
        {{0}, {0}, 0},                         /* empty */
        {{0, 1, 2, 3, 4}, {1, 1, 1, 1, 1}, 5}, /* more than 4 */
        {{5}, {4}, 1},                         /* outside the vocabulary */
        {{3, 1}, {2, 2}, 2},                   /* descending */
        {{1, 1}, {2, 2}, 2},                   /* twice the same */
        {{1, 2}, {4, 0}, 2},                   /* a count of zero */
        {{1, 2}, {2, 1}, 2},                   /* sums to 3 */
        {{1, 2}, {3, 2}, 2},                   /* sums to 5 */
        {{1, 2}, {UINT32_MAX, 5}, 2}};         /* sums to 4 modulo 2^32 */
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refuse(&codec, bad[i].ids, bad[i].counts, bad[i].k,
               SQS_BAD_DISTRIBUTION);
}

static void large_support(void)
{
    uint32_t most = SQS_MAX_ENUMERATIVE_SUPPORT;
    sqs_codec codec = {2 * most, most + 1, SQS_ENUMERATIVE};
    distribution d = make_distribution(&codec);
    d.k = most + 1;
    for (uint32_t i = 0; i < d.k; i++) {
        d.ids[i] = 2 * i > most ? most + i - 1 : i;
        d.counts[i] = 1;
    }
    refuse(&codec, d.ids, d.counts, d.k, SQS_LARGE_SUPPORT);
    codec.coding = SQS_BITPACK;
    send_one(&codec, &d);

    codec.coding = SQS_ENUMERATIVE; /* the largest that it takes */
    d.k = most;
    d.counts[0] = 2;
    send_one(&codec, &d);
    free_distribution(&d);
}

static void bad_rounds(sqs_coding coding)
{
    sqs_codec codec = {5, 4, coding};
    uint32_t *ones = take(SQS_MAX_ROUND + 1, sizeof *ones);
    uint32_t *fours = take(SQS_MAX_ROUND + 1, sizeof *fours);
    uint32_t *positions = take(SQS_MAX_ROUND + 1, sizeof *positions);
    for (uint32_t i = 0; i <= SQS_MAX_ROUND; i++) {
        ones[i] = 1;
        fours[i] = 4;
        positions[i] = 0;
    }
    size_t bound = sqs_encode_round_bound(&codec, SQS_MAX_ROUND + 1,
                                          SQS_MAX_ROUND + 1);
    uint8_t *packet = take(bound, 1);
    size_t size;
    /* Token 1, all of the counts, survivors of 1: `ones` serves twice. */
    EXPECT(SQS_BAD_ROUND, sqs_encode_round(&codec, 0, ones, fours, ones,
                                           positions, packet, bound, &size));
    EXPECT(SQS_BAD_ROUND,
           sqs_encode_round(&codec, SQS_MAX_ROUND + 1, ones, fours, ones,
                            positions, packet, bound, &size));
    EXPECT(SQS_OK,
           sqs_encode_round(&codec, SQS_MAX_ROUND, ones, fours, ones,
                            positions, packet, bound, &size));
    positions[1] = 1;
    EXPECT(SQS_BAD_ROUND, sqs_encode_round(&codec, 2, ones, fours, ones,
                                           positions, packet, bound, &size));
    free(packet);
    free(positions);
    free(fours);
    free(ones);
}

/* Rows that are not distributions. */

#define ROW 4

static sqs_status of_logits(const float *values, double temperature,
                            sqs_keep keep)
{
    sqs_codec codec = {ROW, 100, SQS_BITPACK};
    distribution d = make_distribution(&codec);
    void *scratch = take(1, sqs_quantize_scratch(&codec));
    sqs_status status =
        sqs_quantize_logits(&codec, values, SQS_F32, temperature, &keep,
                            scratch, d.ids, d.counts, &d.k, &d.dropped);
    if (status == SQS_OK)
        check_valid(&codec, &d);
    free(scratch);
    free_distribution(&d);
    return status;
}

static sqs_status of_probs(const double *values, sqs_keep keep)
{
    sqs_codec codec = {ROW, 100, SQS_BITPACK};
    distribution d = make_distribution(&codec);
    void *scratch = take(1, sqs_quantize_scratch(&codec));
    sqs_status status =
        sqs_quantize_probs(&codec, values, SQS_F64, &keep, scratch, d.ids,
                           d.counts, &d.k, &d.dropped);
    if (status == SQS_OK)
        check_valid(&codec, &d);
    free(scratch);
    free_distribution(&d);
    return status;
}

static void bad_parameters(void)
{
    static const float logits[ROW] = {0, 1, 2, 3};
    static const double probs[ROW] = {0.125, 0.125, 0.25, 0.5};
    const sqs_keep bad[] = {
        {SQS_TOP_K, 0.5},          {SQS_TOP_K, NAN},
        {SQS_THRESHOLD, NAN},      {SQS_THRESHOLD, INFINITY},
        {SQS_TOP_P, 0},            {SQS_TOP_P, 1.5},
        {SQS_TOP_P, NAN},          {SQS_MIN_P, -0.5},
        {SQS_MIN_P, 1.5},          {SQS_MIN_P, NAN},
        {(sqs_keep_kind)(SQS_MIN_P + 1), 1}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        EXPECT(SQS_BAD_KEEP, of_logits(logits, 1, bad[i]));
        EXPECT(SQS_BAD_KEEP, of_probs(probs, bad[i]));
    }
    sqs_keep all = {SQS_THRESHOLD, -1};
    EXPECT(SQS_OK, of_logits(logits, 0, all));
    EXPECT(SQS_OK, of_logits(logits, 1e-300, all));
    EXPECT(SQS_OK, of_logits(logits, 1e300, all));
    EXPECT(SQS_BAD_TEMPERATURE, of_logits(logits, -1, all));
    EXPECT(SQS_BAD_TEMPERATURE, of_logits(logits, INFINITY, all));
    EXPECT(SQS_BAD_TEMPERATURE, of_logits(logits, NAN, all));
}

static void bad_logits(double temperature)
{
    sqs_keep all = {SQS_TOP_K, ROW};
    const float masked[ROW] = {-INFINITY, 1, -INFINITY, 3};
    const float nan[ROW] = {0, NAN, 2, 3};
    const float infinite[ROW] = {0, 1, 2, INFINITY};
    const float none[ROW] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    EXPECT(SQS_OK, of_logits(masked, temperature, all));
    EXPECT(SQS_NOT_FINITE, of_logits(nan, temperature, all));
    EXPECT(SQS_NOT_FINITE, of_logits(infinite, temperature, all));
    EXPECT(SQS_ALL_MASKED, of_logits(none, temperature, all));
}

static void bad_probs(void)
{
    sqs_keep all = {SQS_TOP_K, ROW};
    const struct {
        sqs_status wanted;
        double values[ROW];
    } rows[] = {{SQS_OK, {0, 0, 0, 1}},
                {SQS_OK, {0.1, 0.2, 0.3, 0.4004}},
                {SQS_NOT_FINITE, {0, NAN, 0.5, 0.5}},
                {SQS_NOT_FINITE, {0, INFINITY, 0.5, 0.5}},
                {SQS_NOT_FINITE, {0, -INFINITY, 0.5, 0.5}},
                {SQS_NEGATIVE, {-0.5, 0.5, 0.5, 0.5}},
                {SQS_SUM, {0, 0, 0, 0}},
                {SQS_SUM, {0.1, 0.2, 0.3, 0.402}},
                {SQS_SUM, {0.1, 0.2, 0.3, 0.398}}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        EXPECT(rows[i].wanted, of_probs(rows[i].values, all));
}

static void check_statuses(void)
{
    for (int i = 0; i < STATUSES; i++) {
        const char *text = sqs_status_text((sqs_status)i);
        if (!met[i])
            fail(__LINE__, text);
        for (int j = 0; j <= STATUSES; j++)
            CHECK(j == i ||
                  strcmp(text, sqs_status_text((sqs_status)j)) != 0);
    }
}

int main(void)
{
    there_and_back();
    broken_bitpack();
    broken_enumerative();
    bad_codecs();
    bad_distributions(SQS_BITPACK);
    bad_distributions(SQS_ENUMERATIVE);
    large_support();
    bad_rounds(SQS_BITPACK);
    bad_rounds(SQS_ENUMERATIVE);
    bad_parameters();
    bad_logits(0);
    bad_logits(0.7);
    bad_probs();
    check_statuses();
    printf("every status met: %d\n", STATUSES);
    return 0;
}
