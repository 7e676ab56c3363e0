/*
 * example.c - the core as a C program uses it: logits to counts, counts to
 * bytes, bytes to counts, one at a time, as a round, in a stream, or as a
 * mixed round, with a prior or without, tokens drawn from counts, a threshold
 * that learns, and a round to the tokens that are accepted; then every status
 * that sqs.h lists, each from an input that deserves it.
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

/* A small integer as bfloat16, which is the upper half of a float. */
static uint16_t upper_half(int value)
{
    float x = (float)value;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)(bits >> 16);
}

/* Logits in [-8, 8) in all types. */
typedef struct row {
    uint16_t *f16;
    float *f32;
    double *f64;
    uint16_t *bf16;
} row;

static row make_row(uint32_t size, uint32_t seed)
{
    row r = {take(size, sizeof(uint16_t)), take(size, sizeof(float)),
             take(size, sizeof(double)), take(size, sizeof(uint16_t))};
    for (uint32_t i = 0; i < size; i++) {
        seed = seed * 1664525 + 1013904223;
        int value = (int)(seed >> 28) - 8;
        r.f16[i] = half(value);
        r.f32[i] = (float)value;
        r.f64[i] = value;
        r.bf16[i] = upper_half(value);
    }
    return r;
}

static void free_row(row *r)
{
    free(r->f16);
    free(r->f32);
    free(r->f64);
    free(r->bf16);
}

static sqs_rows one_row(const void *values, uint32_t dtype)
{
    return (sqs_rows){values, dtype, 1, 0};
}

/* What a rule leaves of a row has room in so many values. */
static uint32_t room_for(const sqs_codec *codec, const sqs_keep *keep)
{
    uint32_t most = sqs_max_survivors(codec);
    bool fewer = keep->kind == SQS_TOP_K && keep->value < most;
    return fewer ? (uint32_t)keep->value : most;
}

static distribution quantize(const sqs_codec *codec, const void *logits,
                             sqs_dtype dtype, const sqs_keep *keep, bool mass)
{
    uint32_t room = room_for(codec, keep);
    distribution d = {.ids = take(room, sizeof *d.ids),
                      .counts = take(room, sizeof *d.counts)};
    sqs_rows rows = one_row(logits, dtype);
    sqs_quantized to = {d.ids, d.counts, &d.k, mass ? &d.dropped : NULL, 0};
    void *scratch = take(1, sqs_quantize_scratch(codec));
    EXPECT(SQS_OK, sqs_quantize_logits(codec, &rows, 0.7, keep, scratch, &to));
    free(scratch);
    CHECK(to.done == 1);
    check_valid(codec, &d);
    CHECK(d.dropped >= 0 && d.dropped < 1);
    return d;
}

/* All types hold the same values, so they give the same counts, whether or not
 * the dropped mass is asked for. */
static distribution quantize_row(const sqs_codec *codec, const row *r,
                                 const sqs_keep *keep)
{
    distribution d = quantize(codec, r->f32, SQS_F32, keep, true);
    distribution others[] = {quantize(codec, r->f16, SQS_F16, keep, true),
                             quantize(codec, r->f64, SQS_F64, keep, true),
                             quantize(codec, r->bf16, SQS_BF16, keep, true),
                             quantize(codec, r->f32, SQS_F32, keep, false)};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        CHECK(same(&d, &others[i]));
        free_distribution(&others[i]);
    }
    return d;
}

/* The bits are exact or, in the entropy coding, off by one at most, and its
 * packets end with up to eight more. */
static void check_bits(const sqs_codec *codec, const distribution *d,
                       size_t size)
{
    uint32_t bits;
    EXPECT(SQS_OK, sqs_bits(codec, d->ids, d->counts, d->k, &bits));
    if (codec->coding == SQS_ENTROPY)
        CHECK(bits <= 8 * size + 1 && 8 * size <= bits + 9);
    else
        CHECK(size == (bits + 7) / 8);
}

static sqs_status encode(const sqs_codec *codec, const distribution *d,
                         uint8_t *packet, size_t capacity, size_t *size)
{
    return sqs_encode(codec, d->ids, d->counts, d->k, packet, capacity, size);
}

/* Reads a packet of a receiver that takes `most` survivors. */
static sqs_status decode(const sqs_codec *codec, const uint8_t *packet,
                         size_t size, size_t most, distribution *d)
{
    return sqs_decode(codec, packet, size, most, d->ids, d->counts, &d->k);
}

static void send_one(const sqs_codec *codec, const distribution *sent)
{
    size_t bound = sqs_encode_bound(codec, sent->k), size, unused;
    uint8_t *ample = take(bound, 1);
    EXPECT(SQS_OK, encode(codec, sent, ample, bound, &size));
    CHECK(size <= bound);
    check_bits(codec, sent, size);
    uint8_t *packet = take(size, 1);
    EXPECT(SQS_OK, encode(codec, sent, packet, size, &size));
    CHECK(memcmp(packet, ample, size) == 0);

    distribution got = make_distribution(codec);
    EXPECT(SQS_OK, decode(codec, packet, size, SIZE_MAX, &got));
    CHECK(same(sent, &got));
    EXPECT(SQS_OK, decode(codec, packet, size, sent->k, &got));
    CHECK(same(sent, &got));
    EXPECT(SQS_NO_SPACE, decode(codec, packet, size, sent->k - 1, &got));

    uint8_t *tight = take(size - 1, 1);
    EXPECT(SQS_NO_SPACE, encode(codec, sent, tight, size - 1, &unused));
    memcpy(tight, packet, size - 1);
    sqs_status cut = decode(codec, tight, size - 1, SIZE_MAX, &got);
    if (codec->coding == SQS_ENTROPY) /* may end well, but elsewhere */
        CHECK(cut != SQS_OK || !same(sent, &got));
    else
        EXPECT(SQS_TRUNCATED, cut);
    free(tight);
    free(packet);
    free(ample);
    free_distribution(&got);
}

typedef struct drafts {
    sqs_round round;
    size_t total; /* survivors, or room for them */
} drafts;

static drafts take_round(uint32_t length, size_t total)
{
    sqs_round round = {length, take(total, sizeof(uint32_t)),
                       take(total, sizeof(uint32_t)),
                       take(length, sizeof(uint32_t)),
                       take(length, sizeof(uint32_t))};
    return (drafts){round, total};
}

static void free_round(drafts *r)
{
    free(r->round.token_ids);
    free(r->round.counts);
    free(r->round.survivors);
    free(r->round.positions);
}

/* The same distribution `length` times, with a token from all over. */
static drafts make_round(const distribution *d, uint32_t length)
{
    drafts r = take_round(length, (size_t)length * d->k);
    for (uint32_t i = 0; i < length; i++) {
        size_t size = d->k * sizeof *d->ids;
        memcpy(r.round.token_ids + i * d->k, d->ids, size);
        memcpy(r.round.counts + i * d->k, d->counts, size);
        r.round.survivors[i] = d->k;
        r.round.positions[i] = i % d->k;
    }
    return r;
}

static sqs_status encode_round(const sqs_codec *codec, sqs_memory *memory,
                               const drafts *r, uint8_t *packet,
                               size_t capacity, size_t *size)
{
    return sqs_encode_round(codec, memory, &r->round, packet, capacity, size);
}

static sqs_status decode_round(const sqs_codec *codec, sqs_memory *memory,
                               const uint8_t *packet, size_t size, drafts *r)
{
    return sqs_decode_round(codec, memory, packet, size, r->total, &r->round);
}

static void check_same_round(const drafts *sent, const drafts *got)
{
    const sqs_round *a = &sent->round, *b = &got->round;
    CHECK(b->length == a->length);
    size_t items = a->length * sizeof(uint32_t);
    size_t values = sent->total * sizeof(uint32_t);
    CHECK(memcmp(b->survivors, a->survivors, items) == 0);
    CHECK(memcmp(b->positions, a->positions, items) == 0);
    CHECK(memcmp(b->token_ids, a->token_ids, values) == 0);
    CHECK(memcmp(b->counts, a->counts, values) == 0);
}

static bool same_memory(const sqs_memory *a, const sqs_memory *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* Writes a round into exactly as many bytes as it takes. Where it fails, the
 * memory stays as it was. */
static uint8_t *write_round(const sqs_codec *codec, sqs_memory *memory,
                            const drafts *sent, size_t *size)
{
    sqs_memory copy = *memory;
    size_t bound = sqs_encode_round_bound(codec, sent->round.length,
                                          sent->total);
    uint8_t *ample = take(bound, 1);
    EXPECT(SQS_OK, encode_round(codec, &copy, sent, ample, bound, size));
    CHECK(*size <= bound);
    copy = *memory;
    EXPECT(SQS_NO_SPACE,
           encode_round(codec, &copy, sent, ample, *size - 1, &bound));
    CHECK(same_memory(memory, &copy));
    uint8_t *packet = take(*size, 1);
    EXPECT(SQS_OK, encode_round(codec, memory, sent, packet, *size, size));
    free(ample);
    return packet;
}

static void read_round(const sqs_codec *codec, sqs_memory *memory,
                       const uint8_t *packet, size_t size, const drafts *sent)
{
    sqs_memory copy = *memory;
    size_t room = sqs_decode_round_bound(codec, size);
    CHECK(room >= sent->total);
    drafts got = take_round(SQS_MAX_ROUND, room);
    got.total = sent->total - 1;
    EXPECT(SQS_NO_SPACE, decode_round(codec, memory, packet, size, &got));
    CHECK(same_memory(memory, &copy));
    got.total = room;
    EXPECT(SQS_OK, decode_round(codec, memory, packet, size, &got));
    check_same_round(sent, &got);
    free_round(&got);
}

/* Sends a round from memory to memory and returns how many bytes it took. */
static size_t send_round(const sqs_codec *codec, sqs_memory *ours,
                         sqs_memory *theirs, const drafts *sent)
{
    size_t size;
    uint8_t *packet = write_round(codec, ours, sent, &size);
    read_round(codec, theirs, packet, size, sent);
    CHECK(same_memory(ours, theirs));
    free(packet);
    return size;
}

/* A round that stands alone is one between empty memories. */
static size_t send_alone(const sqs_codec *codec, const drafts *sent)
{
    size_t bound = sqs_encode_round_bound(codec, sent->round.length,
                                          sent->total), size;
    uint8_t *packet = take(bound, 1);
    EXPECT(SQS_OK, encode_round(codec, NULL, sent, packet, bound, &size));
    sqs_memory empty = {.size = 0};
    read_round(codec, &empty, packet, size, sent);
    drafts got = take_round(SQS_MAX_ROUND,
                            sqs_decode_round_bound(codec, size));
    EXPECT(SQS_OK, decode_round(codec, NULL, packet, size, &got));
    check_same_round(sent, &got);
    free_round(&got);
    free(packet);
    return size;
}

/* The same round twice. The second is no dearer, as the memory knows it. */
static void send_stream(const sqs_codec *codec, const drafts *sent)
{
    sqs_memory ours = {.size = 0}, theirs = {.size = 0}, empty = {.size = 0};
    size_t alone = send_alone(codec, sent);
    CHECK(send_round(codec, &ours, &theirs, sent) == alone);
    CHECK(send_round(codec, &ours, &theirs, sent) <= alone);
    CHECK(ours.size <= SQS_MEMORY_TOKENS);
    if (codec->coding != SQS_ENTROPY)
        CHECK(same_memory(&ours, &empty));
}

/* A round without its first distributions. */
static drafts leave_out(const drafts *whole, uint32_t left_out)
{
    drafts r = take_round(whole->round.length, whole->total);
    uint32_t first = 0, used = 0;
    for (uint32_t i = 0; i < r.round.length; i++) {
        uint32_t k = whole->round.survivors[i], n = k;
        uint32_t from = first;
        r.round.survivors[i] = k;
        r.round.positions[i] = whole->round.positions[i];
        if (i < left_out) {
            from += whole->round.positions[i];
            r.round.survivors[i] = r.round.positions[i] = 0;
            n = 1;
        }
        size_t size = n * sizeof(uint32_t);
        memcpy(r.round.token_ids + used, whole->round.token_ids + from, size);
        memcpy(r.round.counts + used, whole->round.counts + from, size);
        first += k;
        used += n;
    }
    r.total = used;
    return r;
}

static sqs_status encode_mixed(const sqs_codec *codec, const drafts *r,
                               uint8_t *packet, size_t capacity, size_t *size)
{
    return sqs_encode_mixed(codec, &r->round, packet, capacity, size);
}

static sqs_status decode_mixed(const sqs_codec *codec, const uint8_t *packet,
                               size_t size, size_t most, drafts *r)
{
    return sqs_decode_mixed(codec, packet, size, most, &r->round);
}

static void read_mixed(const sqs_codec *codec, const uint8_t *packet,
                       size_t size, const drafts *sent, size_t survivors)
{
    drafts got = take_round(SQS_MAX_ROUND, survivors + SQS_MAX_ROUND);
    if (survivors > 0)
        EXPECT(SQS_NO_SPACE,
               decode_mixed(codec, packet, size, survivors - 1, &got));
    EXPECT(SQS_OK, decode_mixed(codec, packet, size, survivors, &got));
    check_same_round(sent, &got);
    free_round(&got);
}

/* Sends a round without some of its distributions. */
static void send_mixed(const sqs_codec *codec, const drafts *whole,
                       uint32_t left_out)
{
    drafts sent = leave_out(whole, left_out);
    size_t bound = sqs_encode_round_bound(codec, sent.round.length,
                                          sent.total);
    size_t size, unused;
    uint8_t *ample = take(bound, 1);
    EXPECT(SQS_OK, encode_mixed(codec, &sent, ample, bound, &size));
    CHECK(size <= bound);
    uint8_t *packet = take(size, 1);
    EXPECT(SQS_OK, encode_mixed(codec, &sent, packet, size, &size));
    EXPECT(SQS_NO_SPACE,
           encode_mixed(codec, &sent, ample, size - 1, &unused));
    read_mixed(codec, packet, size, &sent, sent.total - left_out);
    free(packet);
    free(ample);
    free_round(&sent);
}

static void send_all(const sqs_codec *codec, const distribution *d)
{
    EXPECT(SQS_OK, sqs_check_codec(codec));
    send_one(codec, d);
    for (uint32_t length = 1; length <= 5; length += 4) {
        drafts r = make_round(d, length);
        send_stream(codec, &r);
        for (uint32_t left_out = 0; left_out <= length; left_out++)
            send_mixed(codec, &r, left_out);
        free_round(&r);
    }
}

static const sqs_keep keeps[] = {
    {SQS_TOP_K, 1},         {SQS_TOP_K, 64},   {SQS_TOP_K, 1e9},
    {SQS_THRESHOLD, 0.001}, {SQS_TOP_P, 0.9},  {SQS_TOP_P, 1},
    {SQS_MIN_P, 0.05},      {SQS_THRESHOLD, 2}};

#define KEEPS (sizeof keeps / sizeof keeps[0])

static void there_and_back(void)
{
    static const struct {
        uint32_t vocab_size, resolution;
    } sizes[] = {{SQS_MIN_VOCAB, 1},
                 {3, SQS_MAX_RESOLUTION},
                 {1000, 100},
                 {1024, 65536},
                 {SQS_MAX_VOCAB, 100}};
    for (size_t c = 0; c < sizeof sizes / sizeof sizes[0]; c++) {
        sqs_codec codec = {sizes[c].vocab_size, sizes[c].resolution,
                           SQS_BITPACK, SQS_ISA_BEST, NULL};
        row r = make_row(codec.vocab_size, 1 + (uint32_t)c);
        for (size_t i = 0; i < KEEPS; i++) {
            distribution d = quantize_row(&codec, &r, &keeps[i]);
            for (int coding = SQS_BITPACK; coding <= SQS_ENTROPY; coding++) {
                codec.coding = (sqs_coding)coding;
                send_all(&codec, &d);
            }
            free_distribution(&d);
        }
        free_row(&r);
    }
}

/* Drawing and learning. */

static void draw_all(void)
{
    static const uint32_t counts[] = {2, 1, 3}, wanted[] = {0, 0, 1, 2, 2, 2};
    for (uint32_t i = 0; i < 6; i++)
        CHECK(sqs_sample(counts, 3, i) == wanted[i]);
}

static void learn(void)
{
    sqs_keep keep = {SQS_THRESHOLD, 0.5};
    EXPECT(SQS_OK, sqs_conformal_update(&keep, 0.25, 0.5, 0.75));
    CHECK(keep.value == 0.25);
    EXPECT(SQS_OK, sqs_conformal_update(&keep, 0.25, 0.5, 1));
    CHECK(keep.value == -0.125);
    keep.value = 0.9375; /* as if that had been the value before */
    EXPECT(SQS_OK, sqs_conformal_update(&keep, 0.25, 0.5, 0));
    CHECK(keep.value == 1);
}

static void bad_learning(void)
{
    static const struct {
        sqs_keep keep;
        double alpha, eta, dropped_mass;
    } bad[] = {{{SQS_TOP_K, 1}, 0.5, 0.5, 0.5},
               {{SQS_MIN_P, 1}, 0.5, 0.5, 0.5},
               {{SQS_THRESHOLD, 1.5}, 0.5, 0.5, 0.5},
               {{SQS_THRESHOLD, NAN}, 0.5, 0.5, 0.5},
               {{SQS_THRESHOLD, -INFINITY}, 0.5, 0.5, 0.5},
               {{SQS_THRESHOLD, 1}, -0.5, 0.5, 0.5},
               {{SQS_THRESHOLD, 1}, 1.5, 0.5, 0.5},
               {{SQS_THRESHOLD, 1}, NAN, 0.5, 0.5},
               {{SQS_THRESHOLD, 1}, 0.5, 0, 0.5},
               {{SQS_THRESHOLD, 1}, 0.5, 1.5, 0.5},
               {{SQS_THRESHOLD, 1}, 0.5, NAN, 0.5},
               {{SQS_THRESHOLD, 1}, 0.5, 0.5, -0.5},
               {{SQS_THRESHOLD, 1}, 0.5, 0.5, 1.5},
               {{SQS_THRESHOLD, 1}, 0.5, 0.5, NAN}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sqs_keep keep = bad[i].keep;
        EXPECT(SQS_BAD_KEEP, sqs_conformal_update(&keep, bad[i].alpha,
                                                  bad[i].eta,
                                                  bad[i].dropped_mass));
        CHECK(memcmp(&keep.value, &bad[i].keep.value, sizeof keep.value) == 0);
    }
}

/* Of crc32(seen, last, ids, weights). What isn't a memory has a head, too, but
 * nothing beyond it is read. */
static void heads(void)
{
    sqs_memory *memory = take(1, sizeof *memory);
    memset(memory, 0, sizeof *memory);
    CHECK(sqs_stream_head(memory) == 209);
    *memory = (sqs_memory){2, 2, 0, {1, 70000}, {1024, 2016}};
    CHECK(sqs_stream_head(memory) == 92);
    memory->size = UINT32_MAX;
    CHECK(sqs_stream_head(memory) > 0);
    free(memory);
}

/* Priors. */

#define CLASSES 2u
#define PRIOR_IDS 1000u
#define CHANCES 14u /* where chances begin in a file, and so on */
#define WEIGHTS (CHANCES + (CLASSES + 1) * CLASSES)
#define PRIOR_KINDS (WEIGHTS + CLASSES * 256)
#define PRIOR_CHECK (PRIOR_KINDS + PRIOR_IDS)
#define PRIOR_SIZE (PRIOR_CHECK + 4)

/* Writes what is to be the last four bytes of a file. */
static void seal(uint8_t *file)
{
    uint32_t crc = UINT32_MAX;
    for (uint32_t i = 0; i < PRIOR_CHECK; i++) {
        crc ^= file[i];
        for (uint32_t bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    for (uint32_t i = 0; i < 4; i++)
        file[PRIOR_CHECK + i] = (uint8_t)(~crc >> 8 * i);
}

/* Four ids are of a kind. Those of kind 0 weigh 256 times as much as others in
 * class 0, and those of kind 100 in class 1. */
static uint8_t *make_file(void)
{
    uint8_t *file = take(PRIOR_SIZE, 1);
    memset(file, 0, PRIOR_SIZE);
    memcpy(file, "sqsprior\1", 9);
    file[9] = CLASSES;
    file[10] = PRIOR_IDS & 0xff;
    file[11] = PRIOR_IDS >> 8;
    memset(file + CHANCES, 1, WEIGHTS - CHANCES);
    file[CHANCES + CLASSES] = file[WEIGHTS - 1] = 9;
    memset(file + WEIGHTS, 80, PRIOR_KINDS - WEIGHTS);
    file[WEIGHTS] = file[WEIGHTS + 256 + 100] = 80 + 64;
    for (uint32_t id = 0; id < PRIOR_IDS; id++)
        file[PRIOR_KINDS + id] = (uint8_t)(id / 4);
    seal(file);
    return file;
}

static sqs_status load(const uint8_t *file, size_t size)
{
    size_t needed = sqs_prior_memory(file, size);
    void *memory = take(needed, 1);
    sqs_prior prior;
    sqs_status status = sqs_load_prior(file, size, memory, &prior);
    CHECK(needed > 0 || status == SQS_BAD_PRIOR);
    free(memory);
    return status;
}

/* Two tokens that are frequent in a class take fewer bits than without the
 * prior, and leave the class in the memory. */
static void check_class(const sqs_codec *codec, const uint32_t *ids,
                        uint32_t in_class)
{
    sqs_codec plain = *codec;
    plain.prior = NULL;
    uint32_t own_ids[] = {ids[0], ids[1]}, counts[] = {60, 40}, with, without;
    distribution d = {own_ids, counts, 2, 0};
    EXPECT(SQS_OK, sqs_bits(codec, ids, counts, 2, &with));
    EXPECT(SQS_OK, sqs_bits(&plain, ids, counts, 2, &without));
    CHECK(with < without);
    drafts sent = make_round(&d, 1);
    sqs_memory memory = {.size = 0};
    uint8_t packet[64];
    size_t size;
    EXPECT(SQS_OK, encode_round(codec, &memory, &sent, packet, sizeof packet,
                                &size));
    CHECK(memory.last == 1 + in_class);
    free_round(&sent);
}

/* A prior is for one coding and for one vocabulary. */
static void check_codecs(sqs_codec codec)
{
    EXPECT(SQS_OK, sqs_check_codec(&codec));
    codec.coding = SQS_ENUMERATIVE;
    EXPECT(SQS_BAD_CODEC, sqs_check_codec(&codec));
    codec.coding = SQS_BITPACK;
    EXPECT(SQS_BAD_CODEC, sqs_check_codec(&codec));
    codec.coding = SQS_ENTROPY;
    codec.vocab_size++;
    EXPECT(SQS_BAD_CODEC, sqs_check_codec(&codec));
}

/* The last class of a memory is one that the codec's prior has. */
static void check_last(const sqs_codec *codec)
{
    uint32_t id = 4, count = 100;
    distribution d = {&id, &count, 1, 0};
    drafts sent = make_round(&d, 1);
    sqs_codec plain = *codec;
    plain.prior = NULL;
    for (uint32_t last = 0; last < CLASSES + 2; last++) {
        sqs_memory ours = {.last = last}, theirs = {.last = last};
        uint8_t packet[64];
        size_t size;
        EXPECT(last <= CLASSES ? SQS_OK : SQS_BAD_MEMORY,
               encode_round(codec, &ours, &sent, packet, sizeof packet,
                            &size));
        EXPECT(last == 0 ? SQS_OK : SQS_BAD_MEMORY,
               encode_round(&plain, &theirs, &sent, packet, sizeof packet,
                            &size));
    }
    free_round(&sent);
}

/* A file's memory may go when the prior is made; its own can't. */
static void send_with_prior(void)
{
    uint8_t *file = make_file();
    void *memory = take(sqs_prior_memory(file, PRIOR_SIZE), 1);
    sqs_prior prior;
    EXPECT(SQS_OK, sqs_load_prior(file, PRIOR_SIZE, memory, &prior));
    free(file);
    CHECK(prior.vocab_size == PRIOR_IDS && prior.classes == CLASSES);
    sqs_codec codec = {PRIOR_IDS, 100, SQS_ENTROPY, SQS_ISA_BEST, &prior};
    row r = make_row(PRIOR_IDS, 1);
    for (size_t i = 0; i < KEEPS; i++) {
        distribution d = quantize_row(&codec, &r, &keeps[i]);
        send_all(&codec, &d);
        free_distribution(&d);
    }
    free_row(&r);
    check_class(&codec, (const uint32_t[]){1, 3}, 0);
    check_class(&codec, (const uint32_t[]){401, 402}, 1);
    check_codecs(codec);
    check_last(&codec);
    free(memory);
}

/* Every byte counts, and so does every rule if the check is made right. */
static void bad_priors(void)
{
    static const struct {
        size_t at;
        uint8_t value;
    } bad[] = {{0, 'S'},        {8, 0},          {8, 2},
               {9, 0},          {9, 1},          {9, 33},
               {10, 0},         {11, 0},         {13, 1},
               {CHANCES, 0},    {WEIGHTS - 1, 0}, {WEIGHTS, 255},
               {WEIGHTS + 256, 255}};
    uint8_t *file = make_file();
    EXPECT(SQS_OK, load(file, PRIOR_SIZE));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint8_t before = file[bad[i].at];
        file[bad[i].at] = bad[i].value;
        seal(file);
        EXPECT(SQS_BAD_PRIOR, load(file, PRIOR_SIZE));
        file[bad[i].at] = before;
    }
    seal(file);
    for (size_t i = 0; i < PRIOR_SIZE; i++) {
        file[i] ^= 0x10;
        EXPECT(SQS_BAD_PRIOR, load(file, PRIOR_SIZE));
        file[i] ^= 0x10;
    }
    for (size_t size = 0; size < PRIOR_SIZE; size++) {
        uint8_t *cut = take(size, 1);
        if (size > 0)
            memcpy(cut, file, size);
        EXPECT(SQS_BAD_PRIOR, load(cut, size));
        free(cut);
    }
    uint8_t *longer = take(PRIOR_SIZE + 1, 1);
    memcpy(longer, file, PRIOR_SIZE);
    longer[PRIOR_SIZE] = 0;
    EXPECT(SQS_BAD_PRIOR, load(longer, PRIOR_SIZE + 1));
    free(longer);
    free(file);
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

static sqs_status unpack(const sqs_codec *codec, const char *bits)
{
    size_t size;
    uint8_t *packet = pack(bits, &size);
    distribution d = make_distribution(codec);
    sqs_status status = decode(codec, packet, size, SIZE_MAX, &d);
    if (status == SQS_OK)
        check_valid(codec, &d);
    free_distribution(&d);
    free(packet);
    return status;
}

static sqs_status unpack_round(const sqs_codec *codec, const char *bits)
{
    size_t size;
    uint8_t *packet = pack(bits, &size);
    drafts r = take_round(SQS_MAX_ROUND, sqs_decode_round_bound(codec, size));
    sqs_status status = decode_round(codec, NULL, packet, size, &r);
    free_round(&r);
    free(packet);
    return status;
}

static sqs_status unpack_mixed(const sqs_codec *codec, const char *bits)
{
    size_t size;
    uint8_t *packet = pack(bits, &size);
    size_t most = sqs_decode_round_bound(codec, size);
    drafts r = take_round(SQS_MAX_ROUND, most + SQS_MAX_ROUND);
    sqs_status status = decode_mixed(codec, packet, size, most, &r);
    free_round(&r);
    free(packet);
    return status;
}

static void broken_bitpack(void)
{
    /* k - 1 in 2 bits, ids in 3, counts - 1 in the width of 4 - k. */
    sqs_codec codec = {5, 4, SQS_BITPACK, SQS_ISA_BEST, NULL};
    EXPECT(SQS_OK, unpack(&codec, "01 000 100 10 000000"));
    EXPECT(SQS_TRUNCATED, unpack(&codec, ""));
    EXPECT(SQS_TRUNCATED, unpack(&codec, "01 000 100"));
    EXPECT(SQS_TRAILING_BYTES, unpack(&codec, "00 100 000  00000000"));
    EXPECT(SQS_PADDING, unpack(&codec, "01 000 100 10 000001"));
    EXPECT(SQS_PADDING, unpack(&codec, "01 000 100 10 100000"));
    EXPECT(SQS_TOKEN_ID, unpack(&codec, "01 000 101 10"));
    EXPECT(SQS_TOKEN_ORDER, unpack(&codec, "01 011 011 10"));
    EXPECT(SQS_TOKEN_ORDER, unpack(&codec, "01 011 010 10"));
    EXPECT(SQS_COUNTS, unpack(&codec, "01 000 100 11"));
    EXPECT(SQS_COUNTS, unpack(&codec, "10 000 001 100 1 1"));

    /* 11 would be k = 4. */
    sqs_codec three = {3, 3, SQS_BITPACK, SQS_ISA_BEST, NULL};
    EXPECT(SQS_SUPPORT_SIZE, unpack(&three, "11 000000"));

    /* A round adds its length - 1 in 8 bits and, for k = 3, 2 of position. */
    EXPECT(SQS_OK, unpack_round(&codec, "00000000 10 000 001 100 0 0 10"));
    EXPECT(SQS_TOKEN_POSITION,
           unpack_round(&codec, "00000000 10 000 001 100 0 0 11"));
    EXPECT(SQS_TRUNCATED, unpack_round(&codec, ""));
    EXPECT(SQS_TRUNCATED, unpack_round(&codec, "00000001 00 100"));
    EXPECT(SQS_TRUNCATED, /* at the last position */
           unpack_round(&codec, "00000110 00100 00100 00100 00100 00100 00100"
                                " 01 000 100 10"));
    EXPECT(SQS_TRAILING_BYTES,
           unpack_round(&codec, "00000000 00 100 000 00000000"));
    EXPECT(SQS_PADDING, unpack_round(&codec, "00000000 00 100 010"));
}

/* What is sent takes 1 bit, a token alone 3 and its count 2. Of a distribution
 * of one token both codings make k - 1 in 2 bits and the id in 3. */
static void broken_mixed(sqs_coding coding)
{
    sqs_codec codec = {5, 3, coding, SQS_ISA_BEST, NULL};
    bool ranked = coding == SQS_ENUMERATIVE;
    EXPECT(SQS_OK, unpack_mixed(&codec, "00000001 0 100 10 1 00 100 0000"));
    EXPECT(SQS_TRUNCATED, unpack_mixed(&codec, ""));
    EXPECT(SQS_TRUNCATED, unpack_mixed(&codec, "00000000"));
    EXPECT(SQS_TRUNCATED, unpack_mixed(&codec, "00000001 0 100 10"));
    EXPECT(SQS_TRUNCATED, /* at the last count */
           unpack_mixed(&codec, "00000010 010010 010010 0100"));
    EXPECT(SQS_TRUNCATED, /* at the last id */
           unpack_mixed(&codec, "00000001 010010 1 0"));
    EXPECT(SQS_TOKEN_ID, unpack_mixed(&codec, "00000000 0 101 00"));
    EXPECT(SQS_COUNTS, unpack_mixed(&codec, "00000000 0 100 11"));
    EXPECT(SQS_TOKEN_POSITION,
           unpack_mixed(&codec, ranked ? "00000000 1 10 0000 11"
                                       : "00000000 1 10 000 001 010 11"));
    EXPECT(SQS_TRAILING_BYTES,
           unpack_mixed(&codec, "00000000 0 100 10 00 00000000"));
    EXPECT(SQS_PADDING, unpack_mixed(&codec, "00000000 0 100 10 01"));
}

#define DENSE "1111111111 0000000000"
#define FOUR_DENSE DENSE DENSE DENSE DENSE

static void broken_enumerative(void)
{
    /* k - 1 in 2 bits; for k = 2 a rank below C(4, 2) C(3, 1) = 18 in 5. */
    sqs_codec codec = {4, 4, SQS_ENUMERATIVE, SQS_ISA_BEST, NULL};
    EXPECT(SQS_OK, unpack(&codec, "01 10001"));
    EXPECT(SQS_RANK, unpack(&codec, "01 10010"));
    EXPECT(SQS_RANK, unpack(&codec, "01 11111"));
    EXPECT(SQS_TRUNCATED, unpack(&codec, ""));
    EXPECT(SQS_TRAILING_BYTES, unpack(&codec, "01 10001 0  00000000"));
    EXPECT(SQS_PADDING, unpack(&codec, "01 10001 1"));
    EXPECT(SQS_OK, unpack_round(&codec, "00000000 01 10001 1"));
    EXPECT(SQS_TRAILING_BYTES,
           unpack_round(&codec, "00000000 01 10001 1 00000000"));

    sqs_codec three = {3, 3, SQS_ENUMERATIVE, SQS_ISA_BEST, NULL};
    EXPECT(SQS_SUPPORT_SIZE, unpack(&three, "11 000000"));
    /* For k = 3 there is one distribution, and 2 bits of position. */
    EXPECT(SQS_OK, unpack_round(&three, "00000000 10 10"));
    EXPECT(SQS_TOKEN_POSITION, unpack_round(&three, "00000000 10 11"));
    /* Supports of 1 024 out of 1 024 tokens, whose rank takes no bits: eight
     * of them use SQS_MAX_ENUMERATIVE_SQUARES up. */
    sqs_codec dense = {1024, 1024, SQS_ENUMERATIVE, SQS_ISA_BEST, NULL};
    EXPECT(SQS_OK, unpack_round(&dense, "00000111" FOUR_DENSE FOUR_DENSE));
    EXPECT(SQS_ROUND_SUPPORT,
           unpack_round(&dense, "00001000" FOUR_DENSE FOUR_DENSE DENSE));
}

/* A message of the range coder can be nothing but too short, too long or not
 * the one number that ends it. */
static void broken_entropy(void)
{
    sqs_codec codec = {8, 8, SQS_ENTROPY, SQS_ISA_BEST, NULL};
    uint32_t ids[] = {1, 4}, counts[] = {6, 2};
    distribution sent = {ids, counts, 2, 0}, got = make_distribution(&codec);
    size_t size;
    uint8_t packet[16];
    EXPECT(SQS_OK, encode(&codec, &sent, packet, sizeof packet - 1, &size));
    packet[size] = 0;
    EXPECT(SQS_TRAILING_BYTES, decode(&codec, packet, size + 1, 8, &got));
    EXPECT(SQS_TRUNCATED, decode(&codec, packet, 0, 8, &got));
    uint32_t padded = 0;
    for (uint32_t last = 0; last < 256; last++) {
        packet[size - 1] = (uint8_t)last;
        sqs_status status = decode(&codec, packet, size, 8, &got);
        CHECK(status <= SQS_PADDING);
        padded += status == SQS_PADDING;
    }
    CHECK(padded > 0);
    free_distribution(&got);
}

/* Bytes of ones are supports of all tokens, as large as can be; 16 of them use
 * SQS_MAX_ENTROPY_SURVIVORS up. */
static void broken_entropy_rounds(void)
{
    sqs_codec codec = {SQS_MAX_RESOLUTION, SQS_MAX_RESOLUTION, SQS_ENTROPY,
                       SQS_ISA_BEST, NULL};
    uint8_t packet[100];
    memset(packet, 0xff, sizeof packet);
    drafts r = take_round(SQS_MAX_ROUND,
                         sqs_decode_round_bound(&codec, sizeof packet));
    sqs_memory memory = {.size = 0}, empty = {.size = 0};
    EXPECT(SQS_ROUND_SUPPORT,
           decode_round(&codec, &memory, packet, sizeof packet, &r));
    r.total--; /* now the receiver takes less than the format does */
    EXPECT(SQS_NO_SPACE,
           decode_round(&codec, &memory, packet, sizeof packet, &r));
    EXPECT(SQS_TRUNCATED, decode_round(&codec, &memory, packet, 20, &r));
    EXPECT(SQS_TRUNCATED, decode_round(&codec, &memory, packet, 0, &r));
    CHECK(same_memory(&memory, &empty));
    free_round(&r);
    r = take_round(SQS_MAX_ROUND, SQS_MAX_ENTROPY_SURVIVORS + SQS_MAX_ROUND);
    EXPECT(SQS_ROUND_SUPPORT,
           decode_mixed(&codec, packet, sizeof packet, SIZE_MAX, &r));
    EXPECT(SQS_TRUNCATED, decode_mixed(&codec, packet, 20, SIZE_MAX, &r));
    EXPECT(SQS_TRUNCATED, decode_mixed(&codec, packet, 0, SIZE_MAX, &r));
    free_round(&r);
}

/* Arguments that cannot be used. */

/* A machine has the scalar code and, of the others, those of one kind. */
static void instruction_sets(void)
{
    uint32_t found = 0;
    for (int i = SQS_SCALAR; i <= SQS_NEON + 1; i++) {
        sqs_codec codec = {100, 100, SQS_BITPACK, (sqs_isa)i, NULL};
        bool has = sqs_find_isa(codec.isa) == codec.isa;
        CHECK(has || sqs_find_isa(codec.isa) == SQS_ISA_BEST);
        EXPECT(has ? SQS_OK : SQS_BAD_CODEC, sqs_check_codec(&codec));
        found |= (uint32_t)has << i;
    }
    sqs_isa best = sqs_find_isa(SQS_ISA_BEST);
    CHECK(best != SQS_ISA_BEST && sqs_find_isa(best) == best);
    CHECK(found >> SQS_SCALAR & 1);
    const uint32_t x86 = 1u << SQS_AVX2 | 1u << SQS_AVX512;
    CHECK((found & x86) == 0 || (found & 1u << SQS_NEON) == 0);
    CHECK(found < 2u << SQS_NEON);
}

static void bad_codecs(void)
{
    static const struct {
        uint32_t vocab_size, resolution;
        int coding, isa;
    } bad[] = {{0, 100, SQS_BITPACK, 0},
               {SQS_MIN_VOCAB - 1, 100, SQS_BITPACK, 0},
               {SQS_MAX_VOCAB + 1, 100, SQS_BITPACK, 0},
               {100, 0, SQS_BITPACK, 0},
               {100, 0, SQS_ENTROPY, 0},
               {100, SQS_MAX_RESOLUTION + 1, SQS_BITPACK, 0},
               {100, SQS_MAX_RESOLUTION + 1, SQS_ENTROPY, 0},
               {100, 100, SQS_ENTROPY + 1, 0},
               {100, 100, SQS_BITPACK, SQS_NEON + 1}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sqs_codec codec = {bad[i].vocab_size, bad[i].resolution,
                           (sqs_coding)bad[i].coding, (sqs_isa)bad[i].isa,
                           NULL};
        EXPECT(SQS_BAD_CODEC, sqs_check_codec(&codec));
    }
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
    sqs_memory memory = {.size = 0}, empty = {.size = 0};
    EXPECT(wanted, sqs_bits(codec, own_ids, own_counts, k, &bits));
    EXPECT(wanted, sqs_encode(codec, own_ids, own_counts, k, packet,
                              sqs_encode_bound(codec, k), &size));
    sqs_round round = {1, own_ids, own_counts, &k, &position};
    EXPECT(wanted,
           sqs_encode_round(codec, &memory, &round, packet, bound, &size));
    CHECK(same_memory(&memory, &empty));
    free(packet);
    free(own_counts);
    free(own_ids);
}

static void bad_distributions(sqs_coding coding)
{
    sqs_codec codec = {5, 4, coding, SQS_ISA_BEST, NULL};
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
    sqs_codec codec = {2 * most, most + 1, SQS_ENUMERATIVE, SQS_ISA_BEST,
                       NULL};
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

/* One distribution more than SQS_MAX_ENTROPY_SURVIVORS allows. */
static void large_round(void)
{
    uint32_t most = SQS_MAX_RESOLUTION;
    sqs_codec codec = {most, most, SQS_ENTROPY, SQS_ISA_BEST, NULL};
    distribution d = make_distribution(&codec);
    d.k = most;
    for (uint32_t i = 0; i < most; i++) {
        d.ids[i] = i;
        d.counts[i] = 1;
    }
    drafts r = make_round(&d, SQS_MAX_ENTROPY_SURVIVORS / most + 1);
    size_t bound = sqs_encode_round_bound(&codec, r.round.length, r.total);
    size_t size;
    uint8_t *packet = take(bound, 1);
    EXPECT(SQS_BAD_ROUND,
           encode_round(&codec, NULL, &r, packet, bound, &size));
    r.round.length--;
    EXPECT(SQS_OK, encode_round(&codec, NULL, &r, packet, bound, &size));
    free(packet);
    free_round(&r);
    free_distribution(&d);
}

static void bad_mixed(sqs_coding coding)
{
    sqs_codec codec = {5, 4, coding, SQS_ISA_BEST, NULL};
    static const struct {
        uint32_t length, id, count, position;
        sqs_status wanted;
    } all[] = {{1, 4, 4, 0, SQS_OK},
               {SQS_MAX_ROUND, 4, 4, 0, SQS_OK},
               {0, 4, 4, 0, SQS_BAD_ROUND},
               {SQS_MAX_ROUND + 1, 4, 4, 0, SQS_BAD_ROUND},
               {1, 5, 4, 0, SQS_BAD_DISTRIBUTION},
               {1, 4, 0, 0, SQS_BAD_DISTRIBUTION},
               {1, 4, 5, 0, SQS_BAD_DISTRIBUTION},
               {1, 4, 4, 1, SQS_BAD_ROUND}};
    drafts r = take_round(SQS_MAX_ROUND + 1, SQS_MAX_ROUND + 1);
    size_t bound = sqs_encode_round_bound(&codec, r.round.length, r.total);
    size_t size;
    uint8_t *packet = take(bound, 1);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        r.round.length = all[i].length;
        for (uint32_t j = 0; j < SQS_MAX_ROUND + 1; j++) {
            r.round.survivors[j] = 0;
            r.round.token_ids[j] = all[i].id;
            r.round.counts[j] = all[i].count;
            r.round.positions[j] = all[i].position;
        }
        EXPECT(all[i].wanted, encode_mixed(&codec, &r, packet, bound, &size));
    }
    EXPECT(SQS_BAD_DISTRIBUTION, /* as other rounds have all of theirs */
           encode_round(&codec, NULL, &r, packet, bound, &size));
    free(packet);
    free_round(&r);
}

/* Rounds of token 1 alone, which has all counts. */
static void bad_rounds(sqs_coding coding)
{
    sqs_codec codec = {5, 4, coding, SQS_ISA_BEST, NULL};
    drafts r = take_round(SQS_MAX_ROUND + 1, SQS_MAX_ROUND + 1);
    for (uint32_t i = 0; i <= SQS_MAX_ROUND; i++) {
        r.round.token_ids[i] = r.round.survivors[i] = 1;
        r.round.counts[i] = 4;
        r.round.positions[i] = 0;
    }
    size_t bound = sqs_encode_round_bound(&codec, r.round.length, r.total);
    size_t size;
    uint8_t *packet = take(bound, 1);
    EXPECT(SQS_BAD_ROUND,
           encode_round(&codec, NULL, &r, packet, bound, &size));
    r.round.length = 0;
    EXPECT(SQS_BAD_ROUND,
           encode_round(&codec, NULL, &r, packet, bound, &size));
    r.round.length = SQS_MAX_ROUND;
    EXPECT(SQS_OK, encode_round(&codec, NULL, &r, packet, bound, &size));
    r.round.positions[1] = 1;
    EXPECT(SQS_BAD_ROUND,
           encode_round(&codec, NULL, &r, packet, bound, &size));
    free(packet);
    free_round(&r);
}

/* What both ends say of a memory: the same, and they leave it as it is unless
 * it is right. Codings that don't use one don't look. */
static void use_memory(const sqs_memory *memory, sqs_status wanted)
{
    uint32_t id = 4, count = 4;
    distribution d = {&id, &count, 1, 0};
    drafts sent = make_round(&d, 1), got = take_round(SQS_MAX_ROUND, 1);
    for (int i = SQS_BITPACK; i <= SQS_ENTROPY; i++) {
        sqs_codec codec = {5, 4, (sqs_coding)i, SQS_ISA_BEST, NULL};
        sqs_memory ours = *memory, theirs = *memory;
        bool used = codec.coding == SQS_ENTROPY;
        uint8_t packet[64];
        size_t size = 1;
        EXPECT(used ? wanted : SQS_OK,
               encode_round(&codec, &ours, &sent, packet, sizeof packet,
                            &size));
        sqs_status status =
            decode_round(&codec, &theirs, packet, size, &got);
        EXPECT(used ? wanted : SQS_OK, status);
        CHECK(same_memory(&ours, &theirs));
        CHECK(same_memory(&ours, memory) == (!used || wanted != SQS_OK));
    }
    free_round(&got);
    free_round(&sent);
}

static void bad_memories(void)
{
    static const sqs_memory valid = {2, 255, 0, {1, 4}, {32, 32768}};
    use_memory(&valid, SQS_OK);
    static const struct {
        uint32_t size, seen, ids[2], weights[2];
    } bad[] = {{SQS_MEMORY_TOKENS + 1, 1, {0, 1}, {32, 32}},
               {UINT32_MAX, 1, {0, 1}, {32, 32}},
               {2, 256, {0, 1}, {32, 32}},
               {2, UINT32_MAX, {0, 1}, {32, 32}},
               {2, 1, {1, 1}, {32, 32}},
               {2, 1, {2, 1}, {32, 32}},
               {2, 1, {0, 5}, {32, 32}},
               {2, 1, {0, UINT32_MAX}, {32, 32}},
               {2, 1, {0, 1}, {32, 31}},
               {2, 1, {0, 1}, {32769, 32}},
               {2, 1, {0, 1}, {UINT32_MAX, UINT32_MAX}}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sqs_memory memory = {.size = bad[i].size, .seen = bad[i].seen};
        memcpy(memory.ids, bad[i].ids, sizeof bad[i].ids);
        memcpy(memory.weights, bad[i].weights, sizeof bad[i].weights);
        use_memory(&memory, SQS_BAD_MEMORY);
    }
}

/* Rows that are not distributions. */

#define ROW 4

/* Both ways of a row: what one refuses, the other does too, and for the same
 * reason. */
static sqs_status of_row(const sqs_rows *rows, double temperature,
                         sqs_keep keep)
{
    sqs_codec codec = {ROW, 100, SQS_BITPACK, SQS_ISA_BEST, NULL};
    distribution d = make_distribution(&codec);
    sqs_quantized to = {d.ids, d.counts, &d.k, &d.dropped, 0};
    void *scratch = take(1, sqs_quantize_scratch(&codec));
    sqs_status status =
        sqs_quantize_logits(&codec, rows, temperature, &keep, scratch, &to);
    CHECK(to.done == (status == SQS_OK));
    if (status == SQS_OK)
        check_valid(&codec, &d);
    free(scratch);
    size_t capacity = sqs_encode_logits_bound(&codec, &keep), size;
    sqs_packets packets = {take(capacity, 1), capacity, &size, 0};
    scratch = take(1, sqs_encode_logits_scratch(&codec));
    EXPECT(status, sqs_encode_logits(&codec, rows, temperature, &keep, scratch,
                                     &packets));
    CHECK(packets.done == (status == SQS_OK));
    free(scratch);
    free(packets.bytes);
    free_distribution(&d);
    return status;
}

static sqs_status of_logits(const float *values, double temperature,
                            sqs_keep keep)
{
    sqs_rows rows = one_row(values, SQS_F32);
    return of_row(&rows, temperature, keep);
}

static sqs_status of_probs(const double *values, uint32_t dtype,
                           sqs_keep keep)
{
    sqs_codec codec = {ROW, 100, SQS_BITPACK, SQS_ISA_BEST, NULL};
    distribution d = make_distribution(&codec);
    sqs_rows rows = one_row(values, dtype);
    sqs_quantized to = {d.ids, d.counts, &d.k, &d.dropped, 0};
    void *scratch = take(1, sqs_quantize_scratch(&codec));
    sqs_status status = sqs_quantize_probs(&codec, &rows, &keep, scratch, &to);
    CHECK(to.done == (status == SQS_OK));
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
        EXPECT(SQS_BAD_KEEP, of_probs(probs, SQS_F64, bad[i]));
    }
    sqs_keep all = {SQS_THRESHOLD, -1};
    EXPECT(SQS_OK, of_logits(logits, 0, all));
    EXPECT(SQS_OK, of_logits(logits, 1e-300, all));
    EXPECT(SQS_OK, of_logits(logits, 1e300, all));
    EXPECT(SQS_BAD_TEMPERATURE, of_logits(logits, -1, all));
    EXPECT(SQS_BAD_TEMPERATURE, of_logits(logits, INFINITY, all));
    EXPECT(SQS_BAD_TEMPERATURE, of_logits(logits, NAN, all));
}

static void bad_types(void)
{
    static const float logits[ROW] = {0, 1, 2, 3};
    static const double probs[ROW] = {0.125, 0.125, 0.25, 0.5};
    sqs_keep all = {SQS_TOP_K, ROW};
    for (int i = SQS_BF16 + 1; i < 256; i++) {
        sqs_rows rows = one_row(logits, (sqs_dtype)i);
        EXPECT(SQS_BAD_DTYPE, of_row(&rows, 0.7, all));
        EXPECT(SQS_BAD_DTYPE, of_probs(probs, (sqs_dtype)i, all));
    }
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
        EXPECT(rows[i].wanted, of_probs(rows[i].values, SQS_F64, all));
}

/* Rows one after another, with something between them. */

#define ROWS 3
#define STRIDE (ROW + 2)

static const float three_rows[ROWS * STRIDE] = {
    0, 1, 2, 3, NAN, NAN, /* NAN lies between the rows */
    3, 3, -INFINITY, 0, NAN, NAN, 5, -5, 5, 4, NAN, NAN};

static sqs_rows rows_of(const float *values)
{
    return (sqs_rows){values, SQS_F32, ROWS, STRIDE};
}

/* The packets of three_rows one by one, each quantized and encoded. */
static size_t write_singly(const sqs_codec *codec, const sqs_keep *keep,
                           uint8_t *packets, size_t capacity, size_t *sizes)
{
    size_t used = 0;
    for (uint32_t i = 0; i < ROWS; i++) {
        distribution d = quantize(codec, three_rows + i * STRIDE, SQS_F32,
                                  keep, false);
        EXPECT(SQS_OK, encode(codec, &d, packets + used, capacity - used,
                              &sizes[i]));
        used += sizes[i];
        free_distribution(&d);
    }
    return used;
}

static sqs_status encode_rows(const sqs_codec *codec, const sqs_rows *rows,
                              const sqs_keep *keep, sqs_packets *to)
{
    void *scratch = take(1, sqs_encode_logits_scratch(codec));
    sqs_status status =
        sqs_encode_logits(codec, rows, 0.7, keep, scratch, to);
    free(scratch);
    return status;
}

/* The number of the row to blame, if its second value is NaN. */
static void one_bad_row(const sqs_codec *codec, const sqs_keep *keep,
                        uint32_t bad)
{
    float values[ROWS * STRIDE];
    memcpy(values, three_rows, sizeof values);
    values[bad * STRIDE + 1] = NAN;
    sqs_rows rows = rows_of(values);
    uint32_t ids[ROWS * ROW], counts[ROWS * ROW], survivors[ROWS];
    sqs_quantized to = {ids, counts, survivors, NULL, 0};
    void *scratch = take(1, sqs_quantize_scratch(codec));
    EXPECT(SQS_NOT_FINITE,
           sqs_quantize_logits(codec, &rows, 0.7, keep, scratch, &to));
    CHECK(to.done == bad);
    size_t sizes[ROWS];
    uint8_t bytes[ROWS * 32];
    sqs_packets packets = {bytes, sizeof bytes, sizes, 0};
    EXPECT(SQS_NOT_FINITE, encode_rows(codec, &rows, keep, &packets));
    CHECK(packets.done == bad);
    free(scratch);
}

static void several_rows(sqs_coding coding)
{
    sqs_codec codec = {ROW, 100, coding, SQS_ISA_BEST, NULL};
    sqs_keep keep = {SQS_TOP_K, 3};
    sqs_rows rows = rows_of(three_rows);
    size_t bound = ROWS * sqs_encode_logits_bound(&codec, &keep);
    size_t singly[ROWS], sizes[ROWS];
    uint8_t *wanted = take(bound, 1);
    size_t used = write_singly(&codec, &keep, wanted, bound, singly);
    sqs_packets packets = {take(bound, 1), bound, sizes, 0};
    EXPECT(SQS_OK, encode_rows(&codec, &rows, &keep, &packets));
    CHECK(packets.done == ROWS && used <= bound);
    CHECK(memcmp(sizes, singly, sizeof sizes) == 0);
    CHECK(memcmp(packets.bytes, wanted, used) == 0);
    for (size_t room = 0; room < used; room++) {
        sqs_packets tight = {take(room, 1), room, sizes, 0};
        EXPECT(SQS_NO_SPACE, encode_rows(&codec, &rows, &keep, &tight));
        uint32_t fit = room >= singly[0];
        fit += room >= singly[0] + singly[1];
        CHECK(tight.done == fit);
        free(tight.bytes);
    }
    for (uint32_t bad = 0; bad < ROWS; bad++)
        one_bad_row(&codec, &keep, bad);
    free(packets.bytes);
    free(wanted);
}

/* A flat row has more survivors than an enumerative packet can hold. */
static void large_support_of_logits(void)
{
    uint32_t n = SQS_MAX_ENUMERATIVE_SUPPORT + 1;
    sqs_codec codec = {n, n, SQS_ENUMERATIVE, SQS_ISA_BEST, NULL};
    sqs_keep keep = {SQS_TOP_K, n};
    float *flat = take(n, sizeof *flat);
    for (uint32_t i = 0; i < n; i++)
        flat[i] = 0;
    sqs_rows rows = one_row(flat, SQS_F32);
    size_t bound = sqs_encode_logits_bound(&codec, &keep), size;
    sqs_packets packets = {take(bound, 1), bound, &size, 0};
    EXPECT(SQS_LARGE_SUPPORT, encode_rows(&codec, &rows, &keep, &packets));
    CHECK(packets.done == 0);
    keep.value = n - 1;
    EXPECT(SQS_OK, encode_rows(&codec, &rows, &keep, &packets));
    CHECK(packets.done == 1);
    free(packets.bytes);
    free(flat);
}

/* What the cloud does with a round. */

/* Two drafted tokens: 0, which is as likely to the target, and 2, for which
 * p / q is 1/2. The residual of the second row is 1/8 for token 0 and 1/4 for
 * token 3; after both, token 2 is certain. */
static const double targets[ROWS * STRIDE] = {
    0.5,   0.25, 0.25,  0,    NAN, NAN, /* NAN lies between the rows */
    0.125, 0.25, 0.375, 0.25, NAN, NAN, 0, 0, 1, 0, NAN, NAN};

typedef struct verdict {
    sqs_status status;
    sqs_verdict of;
} verdict;

/* By logits if there is a temperature. */
static verdict judge_rows(const sqs_rows *target, const double *temperature,
                          const double *draws)
{
    static uint32_t ids[] = {0, 1, 1, 2}, counts[] = {2, 2, 1, 3};
    static uint32_t survivors[] = {2, 2}, positions[] = {0, 1};
    const sqs_round round = {ROWS - 1, ids, counts, survivors, positions};
    sqs_codec codec = {ROW, 4, SQS_BITPACK, SQS_ISA_BEST, NULL};
    void *scratch = take(1, sqs_verify_scratch(&codec, round.length));
    verdict v;
    v.status = temperature
                   ? sqs_verify_logits(&codec, &round, target, *temperature,
                                       draws, scratch, &v.of)
                   : sqs_verify(&codec, &round, target, draws, scratch, &v.of);
    free(scratch);
    return v;
}

static verdict judge(const double *rows, sqs_dtype dtype, const double *draws)
{
    size_t last = (ROWS - 1) * STRIDE + ROW;
    double *f64 = take(last, sizeof *f64);
    float *f32 = take(last, sizeof *f32);
    for (size_t i = 0; i < last; i++) {
        f64[i] = rows[i];
        f32[i] = (float)rows[i];
    }
    sqs_rows target = {dtype == SQS_F32 ? (const void *)f32 : f64, dtype,
                       ROWS, STRIDE};
    verdict v = judge_rows(&target, NULL, draws);
    free(f32);
    free(f64);
    return v;
}

static void accept_and_draw(sqs_dtype dtype)
{
    const double almost = 1 - 0x1p-53;
    const struct {
        double draws[ROWS];
        uint32_t accepted, token;
    } all[] = {{{0, 0, 0}, 2, 2},
               {{almost, 0, almost}, 2, 2},
               {{almost, 0.5 - 0x1p-54, almost}, 2, 2},
               {{almost, 0.5, 0}, 1, 0},
               {{0, 0.5, 0.333}, 1, 0},
               {{0, 0.5, 0.334}, 1, 3},
               {{0, almost, almost}, 1, 3}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        verdict v = judge(targets, dtype, all[i].draws);
        EXPECT(SQS_OK, v.status);
        CHECK(v.of.done == ROWS);
        CHECK(v.of.accepted == all[i].accepted && v.of.token == all[i].token);
    }
}

static void bad_targets(void)
{
    const struct {
        double value;
        sqs_status wanted;
    } bad[] = {{NAN, SQS_NOT_FINITE},
               {INFINITY, SQS_NOT_FINITE},
               {-INFINITY, SQS_NOT_FINITE},
               {-0.25, SQS_NEGATIVE},
               {1.25, SQS_SUM}};
    static const double draws[ROWS] = {0, 0, 0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        for (uint32_t j = 0; j < 2 * ROWS; j++) {
            double values[ROWS * STRIDE];
            memcpy(values, targets, sizeof values);
            values[j / 2 * STRIDE + 3] = bad[i].value;
            verdict v = judge(values, j % 2 ? SQS_F32 : SQS_F64, draws);
            EXPECT(bad[i].wanted, v.status);
            CHECK(v.of.done == j / 2);
        }
}

/* The cloud takes probabilities of 32 and 64 bits alone. */
static void bad_target_types(void)
{
    static const double draws[ROWS] = {0, 0, 0};
    for (int i = 0; i < 256; i++) {
        sqs_rows target = {targets, (sqs_dtype)i, ROWS, STRIDE};
        if (i == SQS_F32 || i == SQS_F64)
            continue;
        verdict v = judge_rows(&target, NULL, draws);
        EXPECT(SQS_BAD_DTYPE, v.status);
        CHECK(v.of.done == 0);
    }
}

/* At a temperature of log2(e) logits are powers of two. These make the first
 * row of `targets` and then {1, 2, 1, 4} / 8: p / q is 1/6 for token 2, and the
 * residual 1/8 for token 0 and 1/2 for token 3. */
#define LOG2_E 1.4426950408889634

static const float target_logits[ROWS * STRIDE] = {
    1, 0, 0, -INFINITY, NAN, NAN, 0, 1, 0, 2, NAN, NAN,
    -INFINITY, -INFINITY, 7, -INFINITY};

static const sqs_rows target_rows = {target_logits, SQS_F32, ROWS, STRIDE};

static void accept_and_draw_by_logits(void)
{
    const double almost = 1 - 0x1p-53;
    const struct {
        double temperature, draws[ROWS];
        uint32_t accepted, token;
    } all[] = {{LOG2_E, {0, 0, 0}, 2, 2},
               {LOG2_E, {almost, 0.166, almost}, 2, 2},
               {LOG2_E, {almost, 0.167, 0}, 1, 0},
               {LOG2_E, {0, 0.167, 0.199}, 1, 0},
               {LOG2_E, {0, 0.167, 0.201}, 1, 3},
               {LOG2_E, {0, almost, almost}, 1, 3},
               {1e300, {0, 0.9, almost}, 1, 3}, /* all alike: 1/4 to 3/4 */
               {1e300, {0, 0.3, almost}, 2, 2},
               {0, {almost, 0, almost}, 1, 3}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        verdict v = judge_rows(&target_rows, &all[i].temperature,
                               all[i].draws);
        EXPECT(SQS_OK, v.status);
        CHECK(v.of.done == ROWS);
        CHECK(v.of.accepted == all[i].accepted && v.of.token == all[i].token);
    }
}

static void bad_target_logits(double temperature)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    static const double draws[ROWS] = {0, 0, 0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        for (uint32_t j = 0; j < ROWS; j++) {
            float values[ROWS * STRIDE];
            memcpy(values, target_logits, sizeof values);
            for (uint32_t k = 0; k < ROW; k++)
                values[j * STRIDE + k] = bad[i];
            sqs_rows target = {values, SQS_F32, ROWS, STRIDE};
            verdict v = judge_rows(&target, &temperature, draws);
            EXPECT(i < 2 ? SQS_NOT_FINITE : SQS_ALL_MASKED, v.status);
            CHECK(v.of.done == j);
        }
    const double temperatures[] = {-1, INFINITY, NAN};
    for (size_t i = 0; i < 3; i++) {
        verdict v = judge_rows(&target_rows, &temperatures[i], draws);
        EXPECT(SQS_BAD_TEMPERATURE, v.status);
        CHECK(v.of.done == 0);
    }
}

/* Fields that name something hold any number, and may come from anywhere. */
static void strange_numbers(void)
{
    static const uint32_t numbers[] = {77, 256, 257, 1u << 31, UINT32_MAX};
    static const float logits[ROW] = {0, 1, 2, 3};
    static const double probs[ROW] = {0.125, 0.125, 0.25, 0.5};
    static const double draws[ROWS] = {0, 0, 0}, one = 1;
    sqs_keep all = {SQS_TOP_K, ROW};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        uint32_t number = numbers[i];
        sqs_codec codec = {ROW, 4, number, SQS_ISA_BEST, NULL};
        EXPECT(SQS_BAD_CODEC, sqs_check_codec(&codec));
        codec.coding = SQS_BITPACK;
        codec.isa = number;
        EXPECT(SQS_BAD_CODEC, sqs_check_codec(&codec));
        sqs_keep keep = {number, 1};
        EXPECT(SQS_BAD_KEEP, of_logits(logits, 1, keep));
        EXPECT(SQS_BAD_KEEP, of_probs(probs, SQS_F64, keep));
        EXPECT(SQS_BAD_KEEP, sqs_conformal_update(&keep, 0.5, 0.5, 0.5));
        sqs_rows rows = {logits, number, 1, ROW};
        EXPECT(SQS_BAD_DTYPE, of_row(&rows, 0.7, all));
        EXPECT(SQS_BAD_DTYPE, of_probs(probs, number, all));
        EXPECT(SQS_BAD_DTYPE, judge_rows(&rows, NULL, draws).status);
        EXPECT(SQS_BAD_DTYPE, judge_rows(&rows, &one, draws).status);
    }
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
    draw_all();
    learn();
    bad_learning();
    heads();
    send_with_prior();
    bad_priors();
    broken_bitpack();
    broken_enumerative();
    broken_mixed(SQS_BITPACK);
    broken_mixed(SQS_ENUMERATIVE);
    broken_entropy();
    broken_entropy_rounds();
    instruction_sets();
    bad_codecs();
    for (int i = SQS_BITPACK; i <= SQS_ENTROPY; i++) {
        bad_distributions((sqs_coding)i);
        bad_mixed((sqs_coding)i);
        bad_rounds((sqs_coding)i);
        several_rows((sqs_coding)i);
    }
    bad_memories();
    large_support();
    large_round();
    bad_parameters();
    bad_types();
    bad_logits(0);
    bad_logits(0.7);
    bad_probs();
    large_support_of_logits();
    accept_and_draw(SQS_F32);
    accept_and_draw(SQS_F64);
    bad_targets();
    bad_target_types();
    accept_and_draw_by_logits();
    bad_target_logits(0);
    bad_target_logits(0.7);
    strange_numbers();
    check_statuses();
    printf("every status met: %d\n", STATUSES);
    return 0;
}
