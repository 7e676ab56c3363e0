/*
 * vectors.c - the golden vectors of tests/vectors, on machines without Python.
 *
 *   vectors FILE
 *
 * FILE has a case to a line, as tests/cprograms.py writes it from the JSON:
 * numbers, spaces between them. A coding, a status or another value of sqs.h
 * is its number, a packet is hexadecimal after a dot, and a list follows its
 * length. A CODEC is VOCAB_SIZE RESOLUTION CODING PRIOR; a prior is its file,
 * written as a packet is, and empty for none. A case is one of
 *
 *   logits     SEED SLOPE VOCAB_SIZE RESOLUTION
 *              MOST LEAST TEMPERATURE DROPPED_MASS
 *              SURVIVORS IDS COUNTS
 *   unbiased   SEED SLOPE VOCAB_SIZE RESOLUTION TEMPERATURE
 *              NUMBER's upper and lower 32 bits, SURVIVORS IDS COUNTS
 *   packet     CODEC SURVIVORS IDS COUNTS BITS PACKET
 *   round      CODEC DRAFTS PACKET
 *   sequence   CODEC LENGTH, for each SURVIVORS IDS COUNTS, and then PACKET
 *   malformed  CODEC KIND STATUS PACKET
 *   prior      STATUS PRIOR
 *   verify     VOCAB_SIZE DRAFTS ROWS DRAWS ACCEPTED TOKEN
 *
 * where DRAFTS are a LENGTH, for each distribution SURVIVORS IDS COUNTS, and a
 * token of each; KIND is attack.h's; and ROWS and DRAWS are one more than there
 * are drafts.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "priors.h"

#define MOST_DIGITS (1u << 20)

static FILE *file;
static uint32_t n_cases;

static void fail(const char *what)
{
    printf("FINDING: case %u: %s\n", n_cases, what);
    exit(1);
}

static void check(bool holds, const char *what)
{
    if (!holds)
        fail(what);
}

/* The parts of a case. */

static double read_number(void)
{
    char word[64];
    char *end = word;
    double number = 0;
    if (fscanf(file, "%63s", word) == 1)
        number = strtod(word, &end);
    check(end != word && *end == '\0', "no number where one should be");
    return number;
}

static uint32_t read_integer(void)
{
    double number = read_number();
    check(number >= 0 && number <= UINT32_MAX, "not an integer");
    return (uint32_t)number;
}

static void read_all(uint32_t *values, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        values[i] = read_integer();
}

/* The packet lasts until the next one in the same room. */
static packet read_bytes(block *room)
{
    static char digits[MOST_DIGITS + 1];
    check(fscanf(file, " .%[0-9a-f]", digits) != EOF, "no packet");
    packet p = {strlen(digits) / 2, NULL};
    p.bytes = take(room, p.size);
    for (size_t i = 0; i < p.size; i++) {
        char byte[] = {digits[2 * i], digits[2 * i + 1], '\0'};
        p.bytes[i] = (uint8_t)strtoul(byte, NULL, 16);
    }
    digits[0] = '\0'; /* an empty packet leaves them alone */
    return p;
}

static packet read_packet(void)
{
    static block room;
    return read_bytes(&room);
}

/* Reads a prior, which lasts until the next one; null for none. */
static const sqs_prior *read_prior(void)
{
    static holder h;
    h.file = read_bytes(&h.room);
    if (h.file.size == 0)
        return NULL;
    check(load_prior(&h) == SQS_OK, "a prior is refused");
    return h.prior;
}

static sqs_codec read_codec(void)
{
    sqs_codec codec = {.vocab_size = read_integer()};
    codec.resolution = read_integer();
    codec.coding = (sqs_coding)read_integer();
    codec.prior = read_prior();
    check(sqs_check_codec(&codec) == SQS_OK, "not a codec");
    return codec;
}

/* What is done with them. */

typedef struct rule {
    sqs_keep keep;
    double temperature;
} rule;

/* Returns the dropped mass. */
static double quantize(const sqs_codec *codec, const sqs_rows *row,
                       const rule *by, content *c)
{
    sqs_sparse_room *r = &c->round;
    double dropped;
    sqs_sparse_room to = {r->token_ids, r->counts, r->survivors, 0};
    void *scratch = malloc(sqs_quantize_scratch(codec));
    check(scratch != NULL, "out of memory");
    sqs_status status = sqs_quantize_logits(codec, row, by->temperature,
                                            &by->keep, scratch, &to, &dropped);
    free(scratch);
    check(status == SQS_OK && to.done == 1, "a row is refused");
    r->done = 1;
    c->positions[0] = 0;
    return dropped;
}

/* The formula that every file of tests/vectors states. */
static sqs_rows formula(uint32_t n, uint32_t seed, uint32_t slope)
{
    static block room;
    float *logits = take(&room, n * sizeof *logits);
    for (uint32_t i = 0, octave = 0; i < n; i++) {
        uint64_t r = ((uint64_t)i * 7919 + (uint64_t)seed * 104729) % 4093;
        octave += i >> octave != 0;
        logits[i] = (float)(r * r / 1024) / 1024 - (float)(slope * octave);
    }
    return (sqs_rows){logits, SQS_F32, SQS_ISA_BEST, 1, n, n};
}

static void check_packet(const sqs_codec *codec, kind k, const content *c)
{
    static content got;
    static block room;
    packet golden = read_packet();
    size_t bound = packet_bound(codec, k, c), size;
    uint8_t *bytes = take(&room, bound);
    sqs_status status = write_packet(codec, k, c, bytes, bound, &size);
    check(status == SQS_OK, sqs_status_text(status));
    check(size == golden.size && memcmp(bytes, golden.bytes, size) == 0,
          "it encodes to other bytes");
    const char *wrong = attack(codec, k, &golden, &got, &status);
    check(wrong == NULL, wrong);
    check(status == SQS_OK && same_content(c, &got),
          "it decodes to something else");
}

/* Reads SURVIVORS IDS COUNTS as a round of one. */
static void read_distribution(content *c)
{
    uint32_t k = read_integer();
    make_room(c, 1, k);
    c->round.done = 1;
    c->round.survivors[0] = k;
    c->positions[0] = 0;
    read_all(c->round.token_ids, k);
    read_all(c->round.counts, k);
}

/* What logits are quantized to, by every instruction set. */
static void check_logits(void)
{
    static content golden, made;
    uint32_t seed = read_integer(), slope = read_integer();
    sqs_codec codec = {.coding = SQS_ENTROPY};
    codec.vocab_size = read_integer();
    codec.resolution = read_integer();
    rule by = {.temperature = 0};
    by.keep.most = read_integer();
    by.keep.least = read_number();
    by.temperature = read_number();
    double dropped = read_number();
    read_distribution(&golden);
    sqs_rows row = formula(codec.vocab_size, seed, slope);
    make_room(&made, 1, sqs_max_survivors(&codec));
    for (int isa = SQS_SCALAR; isa <= SQS_NEON; isa++) {
        row.isa = (sqs_isa)isa;
        if (sqs_find_isa((sqs_isa)isa) == SQS_ISA_BEST)
            continue;
        check(quantize(&codec, &row, &by, &made) == dropped,
              "another dropped mass");
        check(same_content(&golden, &made), "another distribution");
    }
}

static void quantize_unbiased(const sqs_codec *codec, const sqs_rows *row,
                              double temperature, uint64_t number, content *c)
{
    sqs_sparse_room *r = &c->round;
    sqs_sparse_room to = {r->token_ids, r->counts, r->survivors, 0};
    void *scratch = malloc(sqs_quantize_scratch(codec));
    check(scratch != NULL, "out of memory");
    sqs_status status =
        sqs_quantize_unbiased(codec, row, temperature, &number, scratch, &to);
    free(scratch);
    check(status == SQS_OK && to.done == 1, "a row is refused");
    r->done = 1;
    c->positions[0] = 0;
}

static void check_unbiased(void)
{
    static content golden, made;
    uint32_t seed = read_integer(), slope = read_integer();
    sqs_codec codec = {.coding = SQS_ENTROPY};
    codec.vocab_size = read_integer();
    codec.resolution = read_integer();
    double temperature = read_number();
    uint64_t number = (uint64_t)read_integer() << 32;
    number |= read_integer();
    read_distribution(&golden);
    sqs_rows row = formula(codec.vocab_size, seed, slope);
    make_room(&made, 1, sqs_max_survivors(&codec));
    for (int isa = SQS_SCALAR; isa <= SQS_NEON; isa++) {
        row.isa = (sqs_isa)isa;
        if (sqs_find_isa((sqs_isa)isa) == SQS_ISA_BEST)
            continue;
        quantize_unbiased(&codec, &row, temperature, number, &made);
        check(same_content(&golden, &made), "another distribution");
    }
}

/* sqs_bits is exact or, in the entropy coding, off by one at most; what it is
 * compared with has two digits after the point. */
static void check_bits(const sqs_codec *codec, const content *c)
{
    double golden = read_number(), off;
    uint32_t bits = 0;
    sqs_status status = sqs_bits(codec, c->round.token_ids, c->round.counts,
                                 c->round.survivors[0], &bits);
    check(status == SQS_OK, sqs_status_text(status));
    off = bits > golden ? bits - golden : golden - bits;
    check(codec->coding == SQS_ENTROPY ? off <= 1.01 : off <= 0,
          "another number of bits");
}

static void check_distribution(void)
{
    static content golden;
    sqs_codec codec = read_codec();
    read_distribution(&golden);
    check_bits(&codec, &golden);
    check_packet(&codec, DISTRIBUTION, &golden);
}

/* Reads the tokens of a round and finds their positions. */
static void read_positions(content *c)
{
    const sqs_sparse_room *r = &c->round;
    const uint32_t *ids = r->token_ids;
    for (uint32_t i = 0; i < r->done; i++) {
        uint32_t token = read_integer(), at = 0, n = r->survivors[i];
        while (at < n && ids[at] != token)
            at++;
        check(at < n, "the token was not kept");
        c->positions[i] = at;
        ids += n;
    }
}

static void read_distributions(uint32_t vocab_size, content *c)
{
    sqs_sparse_room *r = &c->round;
    uint32_t length = read_integer();
    size_t used = 0;
    check(length <= SQS_MAX_SEQUENCE, "not a sequence");
    make_room(c, length, (size_t)length * vocab_size);
    for (r->done = 0; r->done < length; r->done++) {
        uint32_t k = r->survivors[r->done] = read_integer();
        check(k <= vocab_size, "not a distribution");
        read_all(r->token_ids + used, k);
        read_all(r->counts + used, k);
        used += k;
    }
}

static void read_drafts(uint32_t vocab_size, content *c)
{
    read_distributions(vocab_size, c);
    read_positions(c);
}

static void check_round(void)
{
    static content golden;
    sqs_codec codec = read_codec();
    read_drafts(codec.vocab_size, &golden);
    check_packet(&codec, ROUND, &golden);
}

static void check_sequence(void)
{
    static content golden;
    sqs_codec codec = read_codec();
    read_distributions(codec.vocab_size, &golden);
    check_packet(&codec, SEQUENCE, &golden);
}

static void check_malformed(void)
{
    static content got;
    sqs_codec codec = read_codec();
    kind k = (kind)read_integer();
    sqs_status wanted = (sqs_status)read_integer(), status;
    packet p = read_packet();
    const char *wrong = attack(&codec, k, &p, &got, &status);
    check(wrong == NULL, wrong);
    check(status == wanted, sqs_status_text(status));
}

static void check_prior(void)
{
    static block room;
    sqs_status wanted = (sqs_status)read_integer(), status;
    packet given = read_bytes(&room);
    const char *wrong = attack_prior(&given, &status);
    check(wrong == NULL, wrong);
    check(status == wanted, sqs_status_text(status));
}

/* Reads rows of probabilities. */
static double *read_values(block *b, size_t n)
{
    double *values = take(b, n * sizeof *values);
    for (size_t i = 0; i < n; i++)
        values[i] = read_number();
    return values;
}

/* The verdict follows from rows and draws, by every instruction set. */
static void check_verify(void)
{
    static content drafted;
    static block rows, numbers, room;
    uint32_t width = read_integer();
    read_drafts(width, &drafted);
    const sqs_sparse_rows r = view(&drafted);
    uint32_t n = r.length + 1;
    sqs_rows target = {read_values(&rows, (size_t)n * width),
                       SQS_F64,
                       SQS_ISA_BEST,
                       n,
                       width,
                       width};
    const double *draws = read_values(&numbers, n);
    uint32_t accepted = read_integer(), token = read_integer();
    for (int isa = SQS_SCALAR; isa <= SQS_NEON; isa++) {
        target.isa = (sqs_isa)isa;
        if (sqs_find_isa((sqs_isa)isa) == SQS_ISA_BEST)
            continue;
        sqs_verdict v;
        void *scratch = take(&room, sqs_verify_scratch(&target));
        sqs_status status =
            sqs_verify(&r, drafted.positions, &target, draws, scratch, &v);
        check(status == SQS_OK, sqs_status_text(status));
        check(v.accepted == accepted && v.token == token, "another verdict");
    }
}

typedef struct case_kind {
    const char *name;
    void (*check)(void);
} case_kind;

static const case_kind kinds[] = {
    {"logits", check_logits},       {"unbiased", check_unbiased},
    {"packet", check_distribution}, {"round", check_round},
    {"sequence", check_sequence},   {"malformed", check_malformed},
    {"prior", check_prior},         {"verify", check_verify}};

#define CASE_KINDS (sizeof kinds / sizeof kinds[0])

int main(int argc, char **argv)
{
    char name[16];
    file = argc == 2 ? fopen(argv[1], "r") : NULL;
    if (file == NULL) {
        fprintf(stderr, "usage: vectors FILE\n");
        return 2;
    }
    while (fscanf(file, "%15s", name) == 1) {
        size_t i = 0;
        n_cases++;
        while (i < CASE_KINDS && strcmp(kinds[i].name, name) != 0)
            i++;
        check(i < CASE_KINDS, "of no known kind");
        kinds[i].check();
    }
    fclose(file);
    printf("%u cases right\n", n_cases);
    return 0;
}
