/*
 * instructions.c - the core's hot paths, for callgrind to count.
 *
 *   instructions FILE
 *
 * FILE holds ROWS rows of VOCAB logits, binary16. A path runs once over all of
 * them, so that symbols are bound, and once more to be counted; its counts are
 * dumped under its name, which is also printed, with the number of calls.
 * instructions.py builds this, runs it under valgrind and reads the dumps.
 */
#include "sqs.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <valgrind/callgrind.h>

#define KEEP 64u
#define LENGTH (ROWS - 1u) /* of the round: verify takes a row more */
#define CAPACITY (1u << 16)
#define MOST SQS_MAX_RESOLUTION /* survivors */

/* Real drafts have some ten survivors at the first, and nearly all KEEP at the
 * second. */
typedef struct grain {
    uint32_t resolution;
    double temperature;
} grain;

static const grain COARSE = {100, 0.7};
static const grain FINE = {4096, 1.0};

typedef struct distributions {
    uint32_t ids[ROWS * KEEP];
    uint32_t counts[ROWS * KEEP];
    uint32_t survivors[ROWS];
} distributions;

/* Rows, what comes of them, and room for more. */
typedef struct bench {
    uint16_t halves[ROWS * VOCAB];
    float floats[ROWS * VOCAB];
    float target[ROWS * VOCAB]; /* probabilities */
    double draws[ROWS];
    distributions coarse, fine, out;
    uint32_t positions[ROWS];
    uint32_t decoded_ids[MOST], decoded_counts[MOST];
    uint8_t packets[CAPACITY];
    size_t sizes[ROWS];
    void *scratch;
    size_t scratch_size;
} bench;

static bench b;

static void fail(const char *why)
{
    fprintf(stderr, "instructions: %s\n", why);
    exit(1);
}

static void expect(sqs_status status)
{
    if (status != SQS_OK)
        fail(sqs_status_text(status));
}

static void *scratch(size_t size)
{
    if (size > b.scratch_size) {
        free(b.scratch);
        b.scratch = malloc(size);
        b.scratch_size = size;
    }
    if (b.scratch == NULL)
        fail("out of memory");
    return b.scratch;
}

/* The paths, each of which runs over everything once. */

typedef struct path {
    const char *name;
    void (*run)(const struct path *path);
    uint32_t calls;
    sqs_isa isa;
    sqs_dtype dtype;
    sqs_keep keep;
    bool mass;
    sqs_coding coding;
    const grain *grain;
    distributions *from;
} path;

static sqs_codec codec_of(const path *p)
{
    sqs_codec codec = {VOCAB, p->grain->resolution, p->coding, NULL};
    expect(sqs_check_codec(&codec));
    return codec;
}

static sqs_rows rows_of(const path *p)
{
    const void *values = p->dtype == SQS_F16 ? (void *)b.halves : b.floats;
    return (sqs_rows){values, p->dtype, p->isa, ROWS, VOCAB, VOCAB};
}

static void quantize_to(const path *p, distributions *out)
{
    const sqs_codec codec = codec_of(p);
    const sqs_rows rows = rows_of(p);
    double masses[ROWS];
    sqs_sparse_room to = {out->ids, out->counts, out->survivors, 0};
    expect(sqs_quantize_logits(&codec, &rows, p->grain->temperature, &p->keep,
                               scratch(sqs_quantize_scratch(&codec)), &to,
                               p->mass ? masses : NULL));
}

static void quantize(const path *p)
{
    quantize_to(p, &b.out);
}

static void bits(const path *p)
{
    const sqs_codec codec = codec_of(p);
    uint32_t start = 0;
    for (uint32_t i = 0; i < ROWS; i++) {
        uint32_t one;
        expect(sqs_bits(&codec, p->from->ids + start, p->from->counts + start,
                        p->from->survivors[i], &one));
        start += p->from->survivors[i];
    }
}

/* Leaves the packets for `decode`, which must follow. */
static void encode(const path *p)
{
    const sqs_codec codec = codec_of(p);
    uint32_t start = 0;
    size_t bytes = 0;
    for (uint32_t i = 0; i < ROWS; i++) {
        expect(sqs_encode(&codec, p->from->ids + start,
                          p->from->counts + start, p->from->survivors[i],
                          b.packets + bytes, CAPACITY - bytes, &b.sizes[i]));
        start += p->from->survivors[i];
        bytes += b.sizes[i];
    }
}

static void decode(const path *p)
{
    const sqs_codec codec = codec_of(p);
    size_t at = 0;
    for (uint32_t i = 0; i < ROWS; i++) {
        uint32_t survivors;
        expect(sqs_decode(&codec, b.packets + at, b.sizes[i], MOST,
                          b.decoded_ids, b.decoded_counts, &survivors));
        at += b.sizes[i];
    }
}

/* The first rows' distributions, with what `prepare` drafted of them. */
static sqs_sparse_rows round_of(const path *p)
{
    const distributions *from = p->from;
    return (sqs_sparse_rows){LENGTH, from->ids, from->counts,
                             from->survivors};
}

/* Leaves the packet for `decode_round`, which must follow. */
static void encode_round(const path *p)
{
    const sqs_codec codec = codec_of(p);
    const sqs_sparse_rows round = round_of(p);
    expect(sqs_encode_round(&codec, &round, b.positions, b.packets, CAPACITY,
                            b.sizes));
}

static void decode_round(const path *p)
{
    const sqs_codec codec = codec_of(p);
    uint32_t survivors[SQS_MAX_ROUND], positions[SQS_MAX_ROUND];
    sqs_sparse_room to = {b.decoded_ids, b.decoded_counts, survivors, 0};
    expect(sqs_decode_round(&codec, b.packets, b.sizes[0], MOST, &to,
                            positions));
}

static void verify(const path *p)
{
    const sqs_sparse_rows round = round_of(p);
    const sqs_rows target = {b.target, SQS_F32, p->isa, ROWS, VOCAB, VOCAB};
    sqs_verdict verdict;
    expect(sqs_verify(&round, b.positions, &target, b.draws,
                      scratch(sqs_verify_scratch(&target)), &verdict));
}

#define TOP_K {64, 0}
#define THRESHOLD {UINT32_MAX, 1e-3}

#define ROW_PATHS(isa_name, isa)                                              \
    {"quantize top-k " isa_name, quantize, ROWS, isa, SQS_F32, TOP_K, false,  \
     SQS_ENTROPY, &COARSE, NULL},                                             \
    {"quantize top-k f16 " isa_name, quantize, ROWS, isa, SQS_F16, TOP_K,     \
     false, SQS_ENTROPY, &COARSE, NULL},                                      \
    {"quantize top-k with mass " isa_name, quantize, ROWS, isa, SQS_F32,      \
     TOP_K, true, SQS_ENTROPY, &COARSE, NULL},                                \
    {"quantize threshold with mass " isa_name, quantize, ROWS, isa, SQS_F32,  \
     THRESHOLD, true, SQS_ENTROPY, &COARSE, NULL},                            \
    {"verify " isa_name, verify, 1, isa, SQS_F32, TOP_K, false, SQS_ENTROPY,  \
     &COARSE, &b.coarse}

/* decode reads what the encode before it wrote. */
#define CODING_PATHS(coding_name, coding, grain_name, grain, from)            \
    {"bits " coding_name grain_name, bits, ROWS, SQS_ISA_BEST, SQS_F32,       \
     TOP_K, false, coding, grain, from},                                      \
    {"encode " coding_name grain_name, encode, ROWS, SQS_ISA_BEST, SQS_F32,   \
     TOP_K, false, coding, grain, from},                                      \
    {"decode " coding_name grain_name, decode, ROWS, SQS_ISA_BEST, SQS_F32,   \
     TOP_K, false, coding, grain, from}

static const path PATHS[] = {
    ROW_PATHS("scalar", SQS_SCALAR),
    ROW_PATHS("avx2", SQS_AVX2),
    CODING_PATHS("entropy", SQS_ENTROPY, " coarse", &COARSE, &b.coarse),
    CODING_PATHS("entropy", SQS_ENTROPY, " fine", &FINE, &b.fine),
    CODING_PATHS("enumerative", SQS_ENUMERATIVE, " coarse", &COARSE, &b.coarse),
    CODING_PATHS("enumerative", SQS_ENUMERATIVE, " fine", &FINE, &b.fine),
    CODING_PATHS("bitpack", SQS_BITPACK, " coarse", &COARSE, &b.coarse),
    {"encode_round entropy", encode_round, 1, SQS_ISA_BEST, SQS_F32, TOP_K,
     false, SQS_ENTROPY, &COARSE, &b.coarse},
    {"decode_round entropy", decode_round, 1, SQS_ISA_BEST, SQS_F32, TOP_K,
     false, SQS_ENTROPY, &COARSE, &b.coarse},
};

/* What the paths work on. */

static float half_to_float(uint16_t half)
{
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    const double size = exponent ? ldexp(1024 + fraction, exponent - 25)
                                 : ldexp(fraction, -24);
    return (float)(half >> 15 ? -size : size);
}

static void read_rows(const char *name)
{
    FILE *file = fopen(name, "rb");
    if (file == NULL || fread(b.halves, sizeof b.halves, 1, file) != 1)
        fail("cannot read the rows");
    fclose(file);
    for (size_t i = 0; i < (size_t)ROWS * VOCAB; i++)
        b.floats[i] = half_to_float(b.halves[i]);
}

/* The target's row: the draft's at temperature 1, so that it differs from what
 * was quantized at a lower one. */
static void make_target(float *target, const float *logits)
{
    double total = 0;
    for (uint32_t i = 0; i < VOCAB; i++)
        total += exp(logits[i]);
    for (uint32_t i = 0; i < VOCAB; i++)
        target[i] = (float)(exp(logits[i]) / total);
}

static void prepare(void)
{
    const path coarse = {"", quantize, ROWS, SQS_ISA_BEST, SQS_F32, TOP_K,
                         false, SQS_ENTROPY, &COARSE, NULL};
    path fine = coarse;
    fine.grain = &FINE;
    quantize_to(&coarse, &b.coarse);
    quantize_to(&fine, &b.fine);
    for (uint32_t i = 0; i < ROWS; i++) {
        make_target(b.target + (size_t)i * VOCAB,
                    b.floats + (size_t)i * VOCAB);
        b.positions[i] = b.coarse.survivors[i] / 2;
        b.draws[i] = 0.25;
    }
}

static void count(const path *p)
{
    p->run(p);
    CALLGRIND_ZERO_STATS;
    p->run(p);
    CALLGRIND_DUMP_STATS_AT(p->name);
    printf("%s\t%u\n", p->name, p->calls);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        fail("expected the name of a file of rows");
    read_rows(argv[1]);
    prepare();
    for (size_t i = 0; i < sizeof PATHS / sizeof *PATHS; i++)
        if (sqs_find_isa(PATHS[i].isa) != SQS_ISA_BEST)
            count(&PATHS[i]);
    free(b.scratch);
    return 0;
}
