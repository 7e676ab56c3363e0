/*
 * identity.c - the same results by every instruction set, on every machine.
 *
 *   identity best|scalar|avx2|avx512|neon COUNT SEED [CONTROL]
 *
 * Makes COUNT random cases, has the core turn rows into counts and packets,
 * draft tokens, learn from them, verify rounds and race by one instruction set,
 * and prints a checksum of all results and statuses. For equal COUNT and SEED it
 * must be the same for all instruction sets, compilers and architectures.
 * Inputs are made of random integers, and of floats by single operations, which
 * IEEE 754 defines.
 *
 * What can be told from one run is asserted: tokens are drawn by their counts,
 * and no value that isn't finite goes unnoticed, wherever it is. What packets
 * decode to is the business of hostile.c.
 *
 * Case i follows from SEED + i alone, so that two runs that differ can be
 * compared at smaller COUNTs, and the case be run by itself. As compilers may
 * choose the order within an expression, none has two random numbers.
 *
 * CONTROL is hexadecimal: bits to set in the register that controls floating
 * point, MXCSR or FPCR or FPSCR, so that subnormals are flushed or results
 * rounded otherwise. Results may be others then; what is asserted must hold.
 *
 * The exit status is 77 if this machine or build lacks the instruction set.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __x86_64__
#include <xmmintrin.h>
#endif

#include "check.h"
#include "priors.h"
#include "valid.h"

/* Memory that lasts to the end of a case. Each piece has a heap block of its
 * own, so that AddressSanitizer sees any step beyond. */

#define MOST_PIECES 64u

static void *pieces[MOST_PIECES];
static uint32_t n_pieces;

static void *allocate(size_t count, size_t size)
{
    void *memory = malloc(count * size);
    CHECK(n_pieces < MOST_PIECES && (memory != NULL || count == 0));
    pieces[n_pieces++] = memory;
    return memory;
}

static void release_all(void)
{
    while (n_pieces > 0)
        free(pieces[--n_pieces]);
}

/* Below n, small more often than large. */
static uint32_t random_small(uint32_t n, uint32_t most_shift)
{
    uint32_t drawn = random_below(n);
    return drawn >> random_below(most_shift + 1);
}

/* Floats of all types, by their bits. */

typedef struct format {
    uint32_t size, exponent, mantissa; /* bytes; bits */
} format;

static const format formats[] = {[SQS_F16] = {2, 5, 10},
                                 [SQS_F32] = {4, 8, 23},
                                 [SQS_F64] = {8, 11, 52},
                                 [SQS_BF16] = {2, 8, 7}};

static uint64_t field_of_infinity(format f)
{
    return ((uint64_t)1 << f.exponent) - 1;
}

static uint64_t make_float(format f, bool negative, uint64_t field,
                           uint64_t mantissa)
{
    return (uint64_t)negative << (f.exponent + f.mantissa) |
           field << f.mantissa | mantissa;
}

/* The lowest bits of a random number. */
static uint64_t random_mantissa(format f)
{
    return random_bits() >> (64 - f.mantissa);
}

static void put(const sqs_rows *rows, uint64_t at, uint64_t bits)
{
    uint32_t size = formats[rows->dtype].size;
    char *to = (char *)(uintptr_t)rows->values + at * size;
    uint16_t half = (uint16_t)bits;
    uint32_t word = (uint32_t)bits;
    if (size == sizeof half)
        memcpy(to, &half, size);
    else if (size == sizeof word)
        memcpy(to, &word, size);
    else
        memcpy(to, &bits, size);
}

/* The nearest float to x, from 0 to 1; of those less than about 2^-126, which
 * have fewer bits than others, one next to it. */
static uint64_t nearest_float(format f, double x)
{
    int bias = (1 << (f.exponent - 1)) - 1;
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int field = (int)(bits >> 52) - 1023 + bias;
    if (f.size == sizeof x)
        return bits;
    uint64_t mantissa = (bits & (((uint64_t)1 << 52) - 1)) | (uint64_t)1 << 52;
    uint32_t dropped = 52 - f.mantissa;
    if (field <= 0)
        dropped += (uint32_t)(1 - field);
    if (dropped > 62)
        return 0;
    mantissa += (uint64_t)1 << (dropped - 1);
    uint64_t hidden = field > 0 ? (uint64_t)(field - 1) << f.mantissa : 0;
    return hidden + (mantissa >> dropped);
}

/* Rows of random values, read by this instruction set. */
static sqs_isa isa;

static sqs_rows allocate_rows(uint32_t vocab_size, uint32_t n, sqs_dtype dtype)
{
    size_t stride = vocab_size + random_below(4);
    size_t values = (n - 1) * stride + vocab_size;
    sqs_rows rows = {allocate(values, formats[dtype].size),
                     dtype,
                     isa,
                     n,
                     vocab_size,
                     stride};
    format f = formats[dtype];
    uint64_t infinity = make_float(f, false, field_of_infinity(f), 0);
    for (size_t i = 0; i < values; i++) /* NaN lies between rows */
        put(&rows, i, infinity + 1);
    return rows;
}

/* How the logits of a row look. */
typedef struct look {
    uint64_t lowest, highest; /* exponent fields */
    uint32_t grain;           /* bits of mantissa */
    enum { ANY, NEGATIVE, POSITIVE } sign;
    uint32_t distinct; /* that many values, or all if 0 */
    uint32_t masked;   /* out of 16 */
} look;

#define MOST_DISTINCT 6u

static look random_look(format f)
{
    uint64_t most = field_of_infinity(f) - 1, one = most / 2;
    look l = {one - 6, one + 4, f.mantissa, ANY, 0, 0};
    switch (random_below(8)) {
    case 0: /* from zeros and subnormals to what overflows when subtracted */
        l.lowest = 0;
        l.highest = most;
        break;
    case 1:
        l.lowest = 0;
        l.highest = random_below(3);
        break;
    case 2:
        l.lowest = most - 1;
        l.highest = most;
        break;
    default:
        break;
    }
    if (random_below(2))
        l.grain = random_below(f.mantissa + 1);
    l.sign = random_below(4) > 1 ? ANY : NEGATIVE + random_below(2);
    if (random_below(4) == 0)
        l.distinct = 1 + random_below(MOST_DISTINCT);
    if (random_below(2))
        l.masked = random_below(17);
    return l;
}

static uint64_t random_logit(format f, const look *l)
{
    uint32_t range = (uint32_t)(l->highest - l->lowest + 1);
    uint64_t field = l->lowest + random_below(range);
    uint32_t rest = f.mantissa - l->grain;
    uint64_t mantissa = random_mantissa(f) >> rest << rest;
    bool negative = l->sign == ANY ? random_below(2) : l->sign == NEGATIVE;
    return make_float(f, negative, field, mantissa);
}

static void fill_logits(const sqs_rows *rows, uint32_t row, uint32_t n)
{
    format f = formats[rows->dtype];
    look l = random_look(f);
    uint64_t pool[MOST_DISTINCT], first = row * rows->stride;
    uint64_t masked = make_float(f, true, field_of_infinity(f), 0);
    for (uint32_t i = 0; i < MOST_DISTINCT; i++)
        pool[i] = random_logit(f, &l);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t logit = l.distinct > 0 ? pool[random_below(l.distinct)]
                                        : random_logit(f, &l);
        put(rows, first + i, random_below(16) < l.masked ? masked : logit);
    }
    look peak = {l.highest, l.highest, f.mantissa, POSITIVE, 0, 0};
    for (uint32_t i = random_below(12); i > 0; i--) {
        uint64_t at = first + random_below(n);
        put(rows, at, random_logit(f, &peak));
    }
}

/* Few units or large weights, some of them 0. */
static void random_weights(uint32_t *weights, uint32_t n)
{
    uint32_t units = random_below(2) ? 1u << random_below(13) : 0;
    uint32_t steep = random_below(32), low = random_below(8);
    for (uint32_t i = 0; i < n; i++)
        weights[i] = units > 0 ? 0 : random_small(1u << 24, steep);
    if (units == 0)
        weights[random_below(n)] |= 1;
    for (; units > 0; units--)
        weights[random_small(n, low)]++;
}

static void put_weights(const sqs_rows *rows, uint32_t row,
                        const uint32_t *weights, uint32_t n)
{
    uint64_t total = 0, first = row * rows->stride;
    for (uint32_t i = 0; i < n; i++)
        total += weights[i];
    for (uint32_t i = 0; i < n; i++)
        put(rows, first + i,
            nearest_float(formats[rows->dtype],
                          (double)weights[i] / (double)total));
}

static void fill_probs(const sqs_rows *rows, uint32_t row, uint32_t n)
{
    uint32_t *weights = allocate(n, sizeof *weights);
    random_weights(weights, n);
    put_weights(rows, row, weights, n);
}

/* Puts a value somewhere that is seldom right. */
static void spoil(const sqs_rows *rows, uint32_t row, uint32_t n)
{
    format f = formats[rows->dtype];
    uint64_t infinity = field_of_infinity(f), mantissa = random_mantissa(f);
    uint64_t field = infinity, at = row * rows->stride + random_below(n);
    if (random_below(2))
        field = random_below((uint32_t)infinity);
    if (random_below(2))
        mantissa = 0;
    put(rows, at, make_float(f, random_below(2), field, mantissa));
}

static void fill_rows(const sqs_rows *rows, uint32_t n, bool probs)
{
    for (uint32_t i = 0; i < rows->n; i++) {
        if (probs)
            fill_probs(rows, i, n);
        else
            fill_logits(rows, i, n);
        if (random_below(16) == 0)
            spoil(rows, i, n);
    }
}

/* What is asked of the core. */

#define MOST_ROWS 3u

typedef struct request {
    sqs_codec codec;
    sqs_keep keep;
    double temperature;
} request;

/* At and around the sizes of vectors, groups, blocks and bins. */
static uint32_t random_vocab_size(void)
{
    static const uint32_t edges[] = {3,    16,   32,   128,  256,
                                     1024, 2048, 4096, 6144, 8192};
    const uint32_t n = sizeof edges / sizeof edges[0];
    if (random_below(128) == 0)
        return 49152;
    if (random_below(2))
        return 2 + random_small(5000, 11);
    uint32_t edge = edges[random_below(n)];
    return edge - 1 + random_below(3);
}

static uint32_t random_resolution(sqs_coding coding)
{
    static const uint32_t some[] = {1, 2, 3, 16, 100, 100, 1000, 65536};
    uint32_t any = random_below(2)
                       ? some[random_below(sizeof some / sizeof some[0])]
                       : 1 + random_small(SQS_MAX_RESOLUTION, 15);
    /* The time of an enumerative rank is cubic in its survivors. */
    return coding == SQS_ENUMERATIVE && any > 200 && random_below(32)
               ? 1 + any % 200
               : any;
}

/* In (0, 1], small more often than large. */
static double random_share(void)
{
    double share = (1 + random_below(1u << 24)) * 0x1p-24;
    return random_below(2) ? share : share / (1u << random_below(20));
}

static sqs_keep random_keep(uint32_t vocab_size)
{
    double share = random_share();
    bool extreme = random_below(8) == 0, negative = random_below(2);
    uint32_t most = 1 + random_small(vocab_size + 2, 13),
             rule = random_below(3);
    return (sqs_keep){extreme || rule == 0 ? UINT32_MAX : most,
                      rule == 1 ? 0
                      : extreme ? negative ? -1 : 2
                                : share};
}

static request random_request(void)
{
    static const double temperatures[] = {0,   1e-300, 0.01, 0.3, 0.7,  0.7,
                                          1.0, 1.0,    1.5,  100, 1e40, 1e300};
    static holder prior; /* lasts until the next request */
    sqs_coding coding = (sqs_coding)random_below(3);
    request r = {.codec = {.coding = coding}};
    r.codec.vocab_size = random_vocab_size();
    r.codec.resolution = random_resolution(coding);
    r.keep = random_keep(r.codec.vocab_size);
    r.temperature = temperatures[random_below(12)];
    if (coding == SQS_ENTROPY && random_below(2)) {
        uint32_t classes = 1 + random_small(SQS_MAX_PRIOR_CLASSES, 5);
        uint32_t noise = random_below(1000);
        r.codec.prior = make_prior(r.codec.vocab_size, classes, noise, &prior);
        CHECK(r.codec.prior != NULL);
    }
    return r;
}

/* What the core answers. */

typedef struct answer {
    sqs_status status;
    uint32_t done;
    uint32_t *ids, *counts;
    uint32_t survivors[MOST_ROWS];
    double masses[MOST_ROWS];
} answer;

static uint32_t room_for(const request *r)
{
    uint32_t most = sqs_max_survivors(&r->codec);
    return r->keep.most < most ? r->keep.most : most;
}

static answer quantize(const request *r, const sqs_rows *rows, bool probs,
                       bool mass)
{
    size_t room = (size_t)room_for(r) * rows->n;
    answer a = {.ids = allocate(room, sizeof *a.ids),
                .counts = allocate(room, sizeof *a.counts)};
    sqs_sparse_room to = {a.ids, a.counts, a.survivors, 0};
    double *masses = mass ? a.masses : NULL;
    void *scratch = allocate(1, sqs_quantize_scratch(&r->codec));
    a.status = probs ? sqs_quantize_probs(&r->codec, rows, &r->keep, scratch,
                                          &to, masses)
                     : sqs_quantize_logits(&r->codec, rows, r->temperature,
                                           &r->keep, scratch, &to, masses);
    a.done = to.done;
    CHECK(a.done <= rows->n && (a.done == rows->n) == (a.status == SQS_OK));
    return a;
}

static uint32_t total_of(const answer *a)
{
    uint32_t total = 0;
    for (uint32_t i = 0; i < a->done; i++)
        total += a->survivors[i];
    return total;
}

static void note_answer(const answer *a)
{
    note(a->status);
    note(a->done);
    note_all(a->survivors, a->done);
    note_all(a->ids, total_of(a));
    note_all(a->counts, total_of(a));
    for (uint32_t i = 0; i < a->done; i++) {
        uint64_t bits;
        memcpy(&bits, &a->masses[i], sizeof bits);
        note(bits);
    }
}

/* Rounds rows without bias. */
static void quantize_unbiased(const request *r, const sqs_rows *rows)
{
    size_t room = (size_t)sqs_max_survivors(&r->codec) * rows->n, at = 0;
    answer a = {.ids = allocate(room, sizeof *a.ids),
                .counts = allocate(room, sizeof *a.counts)};
    sqs_sparse_room to = {a.ids, a.counts, a.survivors, 0};
    void *scratch = allocate(1, sqs_quantize_scratch(&r->codec));
    uint64_t numbers[MOST_ROWS];
    for (uint32_t i = 0; i < rows->n; i++)
        numbers[i] = random_bits() | (random_below(8) ? 0 : UINT64_MAX);
    a.status = sqs_quantize_unbiased(&r->codec, rows, r->temperature, numbers,
                                     scratch, &to);
    a.done = to.done;
    CHECK((a.done == rows->n) == (a.status == SQS_OK));
    note_answer(&a);
    for (uint32_t i = 0; i < a.done; i++) {
        uint32_t left = r->codec.resolution, next = 0;
        for (uint32_t j = 0; j < a.survivors[i]; j++, at++) {
            CHECK(a.ids[at] >= next && a.ids[at] < r->codec.vocab_size);
            CHECK(a.counts[at] > 0 && a.counts[at] <= left);
            next = a.ids[at] + 1;
            left -= a.counts[at];
        }
        CHECK(left == 0);
    }
}

static bool equal(const uint32_t *a, const uint32_t *b, size_t n)
{
    return n == 0 || memcmp(a, b, n * sizeof *a) == 0;
}

static void note_bytes(const uint8_t *bytes, size_t size)
{
    note(size);
    for (size_t i = 0; i < size; i++)
        note(bytes[i]);
}

/* Quantizes rows, the dropped mass asked for or not. */
static answer quantize_both(const request *r, const sqs_rows *rows, bool probs)
{
    answer a = quantize(r, rows, probs, true);
    answer b = quantize(r, rows, probs, false);
    CHECK(a.status == b.status && a.done == b.done);
    CHECK(equal(a.survivors, b.survivors, a.done));
    CHECK(equal(a.ids, b.ids, total_of(&a)));
    CHECK(equal(a.counts, b.counts, total_of(&a)));
    note_answer(&a);
    return a;
}

/* Encodes what rows were quantized to, up to the first that has no packet. */
static void encode_rows(const request *r, const answer *a)
{
    sqs_status status = a->status;
    size_t bound = sqs_encode_bound(&r->codec, room_for(r)), at = 0, used = 0;
    uint8_t *bytes = allocate(MOST_ROWS, bound);
    for (uint32_t i = 0; i < a->done; at += a->survivors[i++]) {
        size_t size;
        sqs_status one =
            sqs_encode(&r->codec, a->ids + at, a->counts + at, a->survivors[i],
                       bytes + used, bound, &size);
        if (one != SQS_OK) {
            status = one;
            break;
        }
        used += size;
    }
    note(status);
    note_bytes(bytes, used);
}

/* Draws a token from each distribution. */
static void draft(const request *r, const answer *a, uint32_t *positions)
{
    const uint32_t *counts = a->counts;
    for (uint32_t i = 0; i < a->done; counts += a->survivors[i++]) {
        uint32_t number = random_below(r->codec.resolution), before = 0;
        uint32_t at = sqs_sample(counts, a->survivors[i], number);
        CHECK(at < a->survivors[i]);
        for (uint32_t j = 0; j < at; j++)
            before += counts[j];
        CHECK(before <= number && number < before + counts[at]);
        positions[i] = at;
    }
}

/* Lets a threshold learn from what was dropped. */
static void learn(const answer *a)
{
    sqs_keep keep = {1, random_share()};
    double alpha = random_share();
    double eta = random_share();
    for (uint32_t i = 0; i < a->done; i++) {
        uint64_t bits;
        note(sqs_conformal_update(&keep, alpha, eta, a->masses[i]));
        memcpy(&bits, &keep.least, sizeof bits);
        note(bits);
    }
}

/* Encodes a round of what rows were quantized to. */
static void encode_round(const request *r, const answer *a,
                         const uint32_t *positions)
{
    sqs_sparse_rows round = {a->done, a->ids, a->counts, a->survivors};
    size_t bound = sqs_encode_round_bound(&r->codec, a->done, total_of(a));
    packet p = {0, allocate(bound, 1)};
    sqs_status status = sqs_encode_round(&r->codec, &round, positions, p.bytes,
                                         bound, &p.size);
    note(status);
    if (status == SQS_OK)
        note_bytes(p.bytes, p.size);
}

/* A target that is like a draft, but for one unit. */
static void follow_draft(const sqs_rows *target, uint32_t row, uint32_t n,
                         const uint32_t *ids, const uint32_t *counts,
                         uint32_t survivors)
{
    uint32_t *weights = allocate(n, sizeof *weights);
    memset(weights, 0, n * sizeof *weights);
    for (uint32_t i = 0; i < survivors; i++)
        weights[ids[i]] = counts[i];
    if (random_below(2)) {
        weights[ids[random_below(survivors)]]--;
        weights[random_below(n)]++;
    }
    put_weights(target, row, weights, n);
}

static double random_draw(void)
{
    if (random_below(8) == 0)
        return random_below(2) ? 0 : 1 - 0x1p-53;
    return (double)(random_bits() >> 11) * 0x1p-53;
}

/* Verifies a round by rows of probabilities or logits. */
static void judge(const request *r, const answer *a, const uint32_t *positions,
                  const sqs_rows *target, bool probs)
{
    uint32_t length = a->done;
    double draws[MOST_ROWS + 1];
    for (uint32_t i = 0; i <= length; i++)
        draws[i] = random_draw();
    void *scratch = allocate(1, sqs_verify_scratch(target));
    sqs_sparse_rows drafted = {a->done, a->ids, a->counts, a->survivors};
    sqs_verdict v = {0, 0, 0};
    sqs_status status =
        probs ? sqs_verify(&drafted, positions, target, draws, scratch, &v)
              : sqs_verify_logits(&drafted, positions, target, r->temperature,
                                  draws, scratch, &v);
    CHECK(v.accepted <= length && v.token < r->codec.vocab_size);
    CHECK(v.done <= length + 1 && (v.done > length) == (status == SQS_OK));
    note(status);
    note(v.done);
    note(status == SQS_OK ? v.accepted : 0);
    note(status == SQS_OK ? v.token : 0);
}

/* By probabilities, some of which are like the draft's. */
static void verify(const request *r, const answer *a,
                   const uint32_t *positions)
{
    uint32_t n = r->codec.vocab_size, length = a->done;
    sqs_rows target =
        allocate_rows(n, length + 1, random_below(2) ? SQS_F32 : SQS_F64);
    fill_rows(&target, n, true);
    for (uint32_t i = 0, at = 0; i < length; at += a->survivors[i++])
        if (random_below(2))
            follow_draft(&target, i, n, a->ids + at, a->counts + at,
                         a->survivors[i]);
    judge(r, a, positions, &target, true);
}

static void verify_logits(const request *r, const answer *a,
                          const uint32_t *positions)
{
    uint32_t n = r->codec.vocab_size;
    sqs_rows target =
        allocate_rows(n, a->done + 1, (sqs_dtype)random_below(SQS_BF16 + 1));
    fill_rows(&target, n, false);
    judge(r, a, positions, &target, false);
}

/* Races rows, at times where it is too hot for single precision. */
static void race(const request *r, const sqs_rows *rows)
{
    double hotter = random_below(8) ? 1 : 0x1p110;
    uint32_t key[4], found[MOST_ROWS];
    for (uint32_t i = 0; i < 4; i++)
        key[i] = (uint32_t)random_bits();
    uint64_t position = random_bits();
    uint32_t most = 1 + random_below(SQS_MAX_GUESSES);
    size_t room = (size_t)rows->n * most;
    sqs_guesses to = {allocate(room, sizeof(uint32_t)),
                      allocate(room, sizeof(double)), found, 0};
    sqs_status status =
        sqs_gumbel(rows, r->temperature * hotter, key, position, most,
                   allocate(1, sqs_gumbel_scratch(rows)), &to);
    note(status);
    note(to.done);
    CHECK((to.done == rows->n) == (status == SQS_OK));
    for (uint32_t i = 0; i < to.done; i++) {
        const double *scores = to.scores + (size_t)i * most;
        CHECK(found[i] >= 1 && found[i] <= most);
        note_all(to.token_ids + (size_t)i * most, found[i]);
        for (uint32_t j = 0; j < found[i]; j++) {
            uint64_t bits;
            memcpy(&bits, &scores[j], sizeof bits);
            note(bits);
            CHECK(to.token_ids[i * most + j] < r->codec.vocab_size);
            CHECK(j == 0 || scores[j] >= scores[j - 1]);
        }
    }
}

static void run_case(void)
{
    request r = random_request();
    uint32_t n = r.codec.vocab_size, positions[MOST_ROWS];
    CHECK(sqs_check_codec(&r.codec) == SQS_OK);
    uint32_t count = n > 10000 ? 1 : 1 + random_below(MOST_ROWS);
    sqs_rows rows =
        allocate_rows(n, count, (sqs_dtype)random_below(SQS_BF16 + 1));
    fill_rows(&rows, n, false);
    answer a = quantize_both(&r, &rows, false);
    encode_rows(&r, &a);
    quantize_unbiased(&r, &rows);

    rows = allocate_rows(n, count, (sqs_dtype)random_below(SQS_BF16 + 1));
    fill_rows(&rows, n, true);
    a = quantize_both(&r, &rows, true);
    draft(&r, &a, positions);
    learn(&a);
    if (a.done > 0)
        encode_round(&r, &a, positions);
    verify(&r, &a, positions);
    verify_logits(&r, &a, positions);
    rows = allocate_rows(n, count, (sqs_dtype)random_below(SQS_BF16 + 1));
    fill_rows(&rows, n, false);
    race(&r, &rows);
    release_all();
}

/* Values that aren't finite, at every place. */

static void expect_not_finite(const sqs_rows *rows)
{
    sqs_codec codec = {rows->width, 100, SQS_BITPACK, NULL};
    sqs_keep one = {1, 0};
    uint32_t id, count, survivors;
    sqs_sparse_room to = {&id, &count, &survivors, 0};
    void *scratch = allocate(1, sqs_quantize_scratch(&codec));
    CHECK(sqs_quantize_logits(&codec, rows, 1, &one, scratch, &to, NULL) ==
          SQS_NOT_FINITE);
    CHECK(sqs_quantize_probs(&codec, rows, &one, scratch, &to, NULL) ==
          SQS_NOT_FINITE);
    const uint64_t number = 0;
    CHECK(sqs_quantize_unbiased(&codec, rows, 1, &number, scratch, &to) ==
          SQS_NOT_FINITE);
    const sqs_sparse_rows empty = {0, &id, &count, &survivors};
    double draw = 0;
    sqs_verdict v;
    CHECK(sqs_verify_logits(&empty, &id, rows, 1, &draw, scratch, &v) ==
          SQS_NOT_FINITE);
    const uint32_t key[4] = {0};
    sqs_guesses best = {&id, &draw, &survivors, 0};
    scratch = allocate(1, sqs_gumbel_scratch(rows));
    CHECK(sqs_gumbel(rows, 1, key, 0, 1, scratch, &best) == SQS_NOT_FINITE);
    if (rows->dtype != SQS_F32 && rows->dtype != SQS_F64)
        return;
    CHECK(sqs_verify(&empty, &id, rows, &draw, scratch, &v) == SQS_NOT_FINITE);
}

static void spoil_everywhere(sqs_dtype dtype, uint32_t n)
{
    format f = formats[dtype];
    uint64_t infinity = make_float(f, false, field_of_infinity(f), 0);
    const uint64_t bad[] = {infinity, infinity + 1, /* signaling */
                            make_float(f, true, field_of_infinity(f),
                                       (uint64_t)1 << (f.mantissa - 1))};
    for (uint32_t i = 0; i < n; i++)
        for (size_t j = 0; j < sizeof bad / sizeof bad[0]; j++) {
            sqs_rows rows = allocate_rows(n, 1, dtype);
            for (uint32_t k = 0; k < n; k++)
                put(&rows, k, k == i ? bad[j] : 0);
            expect_not_finite(&rows);
            release_all();
        }
}

static const char *const names[] = {[SQS_ISA_BEST] = "best",
                                    [SQS_SCALAR] = "scalar",
                                    [SQS_AVX2] = "avx2",
                                    [SQS_AVX512] = "avx512",
                                    [SQS_NEON] = "neon"};

static int find_name(const char *name)
{
    for (int i = SQS_ISA_BEST; i <= SQS_NEON; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

static void set_control(unsigned long bits)
{
#if defined __x86_64__
    _mm_setcsr(_mm_getcsr() | (unsigned)bits);
#elif defined __aarch64__
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    __asm__ volatile("msr fpcr, %0" : : "r"(control | bits));
#elif defined __arm__
    uint32_t control;
    __asm__ volatile("vmrs %0, fpscr" : "=r"(control));
    __asm__ volatile("vmsr fpscr, %0" : : "r"(control | bits));
#else
    CHECK(bits == 0);
#endif
}

int main(int argc, char **argv)
{
    int wanted = argc == 4 || argc == 5 ? find_name(argv[1]) : -1;
    if (wanted < 0) {
        fprintf(stderr, "usage: identity best|scalar|avx2|avx512|neon COUNT "
                        "SEED [CONTROL]\n");
        return 2;
    }
    isa = (sqs_isa)wanted;
    sqs_isa found = sqs_find_isa(isa);
    if (found == SQS_ISA_BEST) {
        printf("no %s here\n", names[wanted]);
        return LACKING;
    }
    for (sqs_dtype dtype = SQS_F16; dtype <= SQS_BF16; dtype++) {
        spoil_everywhere(dtype, 19);
        spoil_everywhere(dtype, 300);
    }
    if (argc == 5)
        set_control(strtoul(argv[4], NULL, 16));
    uint64_t count = strtoull(argv[2], NULL, 10);
    uint64_t seed = strtoull(argv[3], NULL, 10);
    for (uint64_t i = 0; i < count; i++) {
        seed_of_case = seed + i;
        random_start(seed_of_case);
        run_case();
    }
    printf("%s: %llu cases from seed %llu, checksum %016llx\n", names[found],
           (unsigned long long)count, (unsigned long long)seed,
           (unsigned long long)checksum);
    return 0;
}
