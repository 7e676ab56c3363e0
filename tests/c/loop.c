/*
 * loop.c - an edge and a cloud that speak in a stream of packets.
 *
 *   loop best|scalar|avx2|avx512|neon COUNT SEED
 *
 * Each of COUNT cases is a session of some rounds. The edge keeps what a
 * threshold says, draws tokens, lets the threshold learn from them, and sends
 * a packet; the cloud verifies it by random logits, and the edge goes back to
 * what the verdict leaves of its learning. Some packets get lost.
 *
 * Asserted is what sqs.h promises: tokens are drawn by their counts, the mean
 * mass dropped keeps to its bound, heads tell whether memories agree, and the
 * cloud draws nothing that the target masks. What else came out is noted, and
 * printed as a checksum. For equal COUNT and SEED it must be the same for all
 * instruction sets, compilers and architectures.
 *
 * The exit status is 77 if this machine or build lacks the instruction set.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "valid.h"

#define ROUNDS 6u
#define MOST_LENGTH 4u

/* Packets that were coded with another memory than the cloud's, and how many
 * of them had the head of the cloud's. */
static uint32_t strange, unnoticed;

#define CHECK_OK(status) CHECK((status) == SQS_OK)

static void note_double(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    note(bits);
}

/* Rows of logits, in a type's own bits and as numbers. */
typedef struct logits {
    sqs_rows rows;
    double *numbers;
    block blocks[2];
} logits;

static void put(const sqs_rows *rows, size_t at, float x)
{
    char *to = (char *)(uintptr_t)rows->values;
    uint32_t bits;
    double wide = (double)x;
    memcpy(&bits, &x, sizeof bits);
    uint16_t upper = (uint16_t)(bits >> 16), half = 0;
    if (x == -INFINITY)
        half = 0xfc00;
    else if (x != 0) /* a short mantissa, and an exponent that fits */
        half = (uint16_t)((bits >> 16 & 0x8000) |
                          (((bits & 0x7fffffff) - (112u << 23)) >> 13));
    switch (rows->dtype) {
    case SQS_F16:
        memcpy(to + 2 * at, &half, 2);
        break;
    case SQS_BF16:
        memcpy(to + 2 * at, &upper, 2);
        break;
    case SQS_F32:
        memcpy(to + 4 * at, &x, 4);
        break;
    case SQS_F64:
        memcpy(to + 8 * at, &wide, 8);
        break;
    }
}

/* Multiples of 1/8 from -16 to 16, some of which are masked. */
static void random_logits(logits *l, uint32_t vocab_size, uint32_t n)
{
    static const uint32_t sizes[] = {2, 4, 8, 2}; /* by sqs_dtype */
    uint32_t dtype = random_below(4), masked = random_below(8);
    size_t values = (size_t)n * vocab_size;
    l->rows = (sqs_rows){take(&l->blocks[0], values * sizes[dtype]), dtype, n,
                         vocab_size};
    l->numbers = take(&l->blocks[1], values * sizeof *l->numbers);
    uint32_t range = 1 + random_below(256);
    for (size_t i = 0; i < values; i++) {
        float x = ((float)random_below(range) - 128.0f) / 8.0f;
        if (random_below(8) < masked && i % vocab_size > 0)
            x = -INFINITY;
        put(&l->rows, i, x);
        l->numbers[i] = (double)x;
    }
}

/* The first of the largest logits of a row. */
static uint32_t best_of(const logits *l, uint32_t vocab_size, uint32_t row)
{
    const double *x = l->numbers + (size_t)row * vocab_size;
    uint32_t best = 0;
    for (uint32_t i = 1; i < vocab_size; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

/* The edge. */

typedef struct edge {
    sqs_codec codec;
    sqs_memory memory;
    bool fresh; /* whether the next packet is coded with an empty memory */
    sqs_keep keep;
    double alpha, eta;
    double states[MOST_LENGTH + 1]; /* the keep's value after so many tokens */
    double masses[MOST_LENGTH];     /* what each dropped */
    double total;                   /* what those in the text dropped */
    uint32_t updates;               /* how many those are */
    double start;                   /* the keep's first value */
    content drafted;
    block scratch;
} edge;

static void start_edge(edge *e, sqs_isa isa)
{
    static const uint32_t sizes[] = {2, 3, 255, 256, 257, 300, 1000, 5000};
    e->codec = (sqs_codec){.coding = SQS_ENTROPY, .isa = isa};
    e->codec.vocab_size = sizes[random_below(8)];
    e->codec.resolution = 1 + random_below(200);
    CHECK_OK(sqs_check_codec(&e->codec));
    e->memory = (sqs_memory){.size = 0};
    e->fresh = true;
    e->start = random_below(1000) / 1024.0;
    e->keep = (sqs_keep){SQS_THRESHOLD, e->start};
    e->alpha = random_below(512) / 1024.0;
    e->eta = (1 + random_below(1024)) / 1024.0;
    e->total = 0;
    e->updates = 0;
    make_room(&e->drafted,
              (size_t)MOST_LENGTH * sqs_max_survivors(&e->codec));
    e->drafted.round.length = 0;
}

/* One step of the threshold, each operation rounded on its own. */
static double learnt(const edge *e, double dropped_mass)
{
    volatile double excess = dropped_mass - e->alpha;
    volatile double step = e->eta * excess;
    volatile double value = e->keep.value - step;
    return value < 1 ? value : 1;
}

/* Drafts a token from row i; `at` is where its distribution goes. */
static uint32_t draft_token(edge *e, const logits *l, uint32_t i, size_t at)
{
    sqs_decoded *to = &e->drafted.round;
    sqs_rows row = l->rows;
    row.values = (const char *)row.values +
                 i * row.stride * (row.dtype == SQS_F64   ? 8
                                   : row.dtype == SQS_F32 ? 4
                                                          : 2);
    row.n = 1;
    sqs_quantized q = {to->token_ids + at, to->counts + at, to->survivors + i,
                       e->masses + i, 0};
    void *scratch = take(&e->scratch, sqs_quantize_scratch(&e->codec));
    CHECK_OK(sqs_quantize_logits(&e->codec, &row, 0.75, &e->keep, scratch,
                                 &q));
    uint32_t k = to->survivors[i], number = random_below(e->codec.resolution);
    uint32_t position = sqs_sample(q.counts, k, number), before = 0;
    for (uint32_t j = 0; j < position; j++)
        before += q.counts[j];
    CHECK(position < k && before <= number &&
          number < before + q.counts[position]);
    to->positions[i] = position;
    double expected = learnt(e, e->masses[i]);
    CHECK_OK(sqs_conformal_update(&e->keep, e->alpha, e->eta, e->masses[i]));
    CHECK(e->keep.value == expected && expected <= 1);
    e->states[i + 1] = e->keep.value;
    return k;
}

static void draft_round(edge *e, const logits *l, uint32_t length)
{
    size_t at = 0;
    e->states[0] = e->keep.value;
    for (uint32_t i = 0; i < length; i++)
        at += draft_token(e, l, i, at);
    e->drafted.round.length = length;
}

/* The packet: the head and the round. */
static packet send_round(edge *e, block *b)
{
    size_t bound = packet_bound(&e->codec, STREAM, &e->drafted), size;
    const sqs_round drafted = view(&e->drafted);
    packet p = {0, take(b, 1 + bound)};
    p.bytes[0] = e->fresh ? 0 : sqs_stream_head(&e->memory);
    if (e->fresh)
        e->memory = (sqs_memory){.size = 0};
    CHECK_OK(sqs_encode_round(&e->codec, &e->memory, &drafted, p.bytes + 1,
                              bound, &size));
    e->fresh = false;
    p.size = 1 + size;
    return p;
}

/* Keeps what was learnt from positions that got into the text. */
static void take_verdict(edge *e, const sqs_verdict *v)
{
    uint32_t length = e->drafted.round.length;
    uint32_t judged = v->accepted < length ? v->accepted + 1 : length;
    e->keep.value = e->states[judged];
    for (uint32_t i = 0; i < judged; i++)
        e->total += e->masses[i];
    e->updates += judged;
    double slack = (fabs(e->start) + 1 + e->eta * e->alpha) / e->eta;
    CHECK(e->total <= e->alpha * e->updates + slack + 1e-9);
    note_double(e->keep.value);
    note_double(e->total);
}

/* The cloud. */

typedef struct cloud {
    sqs_memory memory;
    bool begun;
    content got;
    block scratch;
} cloud;

/* Whether a packet says that it was coded with this memory, or with none. */
static bool fits(const cloud *c, const packet *p)
{
    return p->bytes[0] == 0 ||
           (c->begun && p->bytes[0] == sqs_stream_head(&c->memory));
}

static void receive(cloud *c, const sqs_codec *codec, const packet *p)
{
    CHECK(fits(c, p));
    if (p->bytes[0] == 0)
        c->memory = (sqs_memory){.size = 0};
    size_t most = sqs_decode_round_bound(codec, p->size - 1);
    size_t all = (size_t)MOST_LENGTH * sqs_max_survivors(codec);
    make_room(&c->got, all);
    CHECK_OK(sqs_decode_round(codec, &c->memory, p->bytes + 1, p->size - 1,
                              most < all ? most : all, &c->got.round));
    c->begun = true;
}

static double random_draw(void)
{
    if (random_below(8) == 0)
        return random_below(2) ? 0 : 1 - 0x1p-53;
    return (double)(random_bits() >> 11) * 0x1p-53;
}

static sqs_verdict judge(cloud *c, const sqs_codec *codec, const logits *l)
{
    static const double temperatures[] = {0,   1e-300, 0.25,
                                          1.0, 1.5,    1e300};
    double draws[MOST_LENGTH + 1];
    double temperature = temperatures[random_below(6)];
    const sqs_round got = view(&c->got);
    uint32_t length = got.length;
    for (uint32_t i = 0; i <= length; i++)
        draws[i] = random_draw();
    void *scratch = take(&c->scratch, sqs_verify_scratch(codec, length));
    sqs_verdict v = {0, 0, 0};
    CHECK_OK(sqs_verify_logits(codec, &got, &l->rows, temperature, draws,
                               scratch, &v));
    CHECK(v.done == length + 1 && v.accepted <= length);
    uint32_t n = codec->vocab_size;
    CHECK(v.token < n);
    CHECK(l->numbers[(size_t)v.accepted * n + v.token] > -INFINITY);
    CHECK(temperature > 0 || v.token == best_of(l, n, v.accepted));
    note(v.accepted);
    note(v.token);
    return v;
}

static bool same_memory(const sqs_memory *a, const sqs_memory *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static void run_round(edge *e, cloud *c)
{
    static logits draft, target;
    static block b;
    uint32_t length = 1 + random_below(MOST_LENGTH);
    random_logits(&draft, e->codec.vocab_size, length);
    random_logits(&target, e->codec.vocab_size, length + 1);
    draft_round(e, &draft, length);
    bool known = e->fresh || (c->begun && same_memory(&e->memory, &c->memory));
    packet p = send_round(e, &b);
    for (size_t i = 0; i < p.size; i++)
        note(p.bytes[i]);
    if (!known) {
        strange++;
        unnoticed += fits(c, &p);
        e->fresh = true;
    }
    bool lost = random_below(8) == 0;
    if (lost || !known) {
        e->keep.value = e->states[0];
        return;
    }
    receive(c, &e->codec, &p);
    CHECK(same_content(&e->drafted, &c->got));
    CHECK(same_memory(&e->memory, &c->memory));
    sqs_verdict v = judge(c, &e->codec, &target);
    take_verdict(e, &v);
}

static void run_case(sqs_isa isa)
{
    static edge e;
    static cloud c;
    start_edge(&e, isa);
    c.begun = false;
    for (uint32_t i = 0; i < ROUNDS; i++)
        run_round(&e, &c);
}

static const char *const names[] = {[SQS_ISA_BEST] = "best",
                                    [SQS_SCALAR] = "scalar",
                                    [SQS_AVX2] = "avx2",
                                    [SQS_AVX512] = "avx512",
                                    [SQS_NEON] = "neon"};

int main(int argc, char **argv)
{
    int wanted = SQS_NEON + 1;
    if (argc == 4)
        for (wanted = SQS_ISA_BEST; wanted <= SQS_NEON; wanted++)
            if (strcmp(names[wanted], argv[1]) == 0)
                break;
    if (wanted > SQS_NEON) {
        fprintf(stderr, "usage: loop best|scalar|avx2|avx512|neon COUNT "
                        "SEED\n");
        return 2;
    }
    sqs_isa isa = sqs_find_isa((sqs_isa)wanted);
    if (isa == SQS_ISA_BEST) {
        printf("no %s here\n", names[wanted]);
        return LACKING;
    }
    uint64_t count = strtoull(argv[2], NULL, 10);
    uint64_t seed = strtoull(argv[3], NULL, 10);
    for (uint64_t i = 0; i < count; i++) {
        seed_of_case = seed + i;
        random_start(seed_of_case);
        run_case(isa);
    }
    CHECK(unnoticed <= 2 + strange / 50); /* of 255 one is to be expected */
    printf("%s: %llu sessions from seed %llu, checksum %016llx\n", names[isa],
           (unsigned long long)count, (unsigned long long)seed,
           (unsigned long long)checksum);
    return 0;
}
