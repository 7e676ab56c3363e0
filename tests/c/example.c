/*
 * example.c - every status of sqs.h, each from an input that deserves it, and
 * what is right next to it.
 *
 * What one call says of its arguments stands in a table: a row says what is
 * called, what is broken in valid arguments, and the status. Bytes that are no
 * packets have a table, too. Functions are for what takes several calls, or
 * large arguments.
 *
 * Every buffer has exactly the size that sqs.h asks for, and ends where its
 * heap block ends, so that AddressSanitizer sees one byte too many.
 */
#include <math.h>
#include <string.h>

#include "check.h"
#include "priors.h"
#include "valid.h"

#define STATUSES (SQS_SUM + 1)
#define COUNT(array) (sizeof(array) / sizeof *(array))

static bool met[STATUSES];

static void expect_at(int line, sqs_status wanted, sqs_status got)
{
    if (got != wanted)
        printf("got: %s\n", sqs_status_text(got));
    check_at(__FILE__, line, got == wanted, sqs_status_text(wanted));
    met[wanted] = true;
}

#define EXPECT(wanted, got) expect_at(__LINE__, wanted, got)

/* Has attack.h find nothing wrong. */
static void expect_right(const char *wrong)
{
    check_at(__FILE__, __LINE__, wrong == NULL, wrong);
}

/* Memory that lasts until it is released with all that was taken later. */

static void *pieces[256];
static size_t n_pieces;

static void *allocate(size_t count, size_t size)
{
    void *memory = malloc(count * size);
    CHECK(n_pieces < COUNT(pieces) && (memory != NULL || count == 0));
    return pieces[n_pieces++] = memory;
}

static void release(size_t down_to)
{
    while (n_pieces > down_to)
        free(pieces[--n_pieces]);
}

static void *copy(const void *bytes, size_t size)
{
    void *memory = allocate(size, 1);
    return size > 0 ? memcpy(memory, bytes, size) : memory;
}

/* There and back. */

static sqs_status get(const sqs_codec *codec, kind k, const packet *p,
                      content *got)
{
    sqs_status status;
    packet exact = {p->size, copy(p->bytes, p->size)};
    expect_right(attack(codec, k, &exact, got, &status));
    return status;
}

static sqs_status send(const sqs_codec *codec, kind k, const content *c,
                       size_t *size)
{
    static content got;
    size_t unused;
    *size = packet_bound(codec, k, c);
    packet p = {*size, allocate(*size, 1)};
    sqs_status status = write_packet(codec, k, c, p.bytes, p.size, size);
    if (status != SQS_OK)
        return status;
    CHECK(*size <= p.size);
    p.size = *size;
    EXPECT(SQS_NO_SPACE, write_packet(codec, k, c, allocate(*size - 1, 1),
                                      *size - 1, &unused));
    EXPECT(SQS_OK, get(codec, k, &p, &got));
    CHECK(same_content(c, &got));
    expect_right(attack_around(codec, k, &p, &got));
    p.size--;
    status = get(codec, k, &p, &got);
    if (codec->coding != SQS_ENTROPY)
        EXPECT(SQS_TRUNCATED, status);
    else /* may end well, but elsewhere */
        CHECK(status != SQS_OK || !same_content(c, &got));
    return SQS_OK;
}

/* Packets of distributions at once are those of each, and so is what they say.
 * Where room or the receiver's limit ends, so does what is done. */
static void send_each(const sqs_codec *codec, const content *c)
{
    static content got;
    const sqs_sparse_rows r = view(c);
    size_t room = 0, used = 0, at = 0,
           *sizes = allocate(r.length, sizeof *sizes);
    uint32_t most = 0, largest = 0, n = r.length;
    for (uint32_t i = 0; i < n; i++) {
        room += sqs_encode_bound(codec, r.survivors[i]);
        largest = r.survivors[i] > most ? i : largest;
        most = r.survivors[largest];
    }
    uint8_t *bytes = allocate(room, 1);
    uint32_t done;
    EXPECT(SQS_OK, sqs_encode_rows(codec, &r, bytes, room, sizes, &done));
    CHECK(done == n);
    for (uint32_t i = 0; i < n; at += r.survivors[i++], used += sizes[i - 1]) {
        uint8_t *one = allocate(sizes[i], 1);
        size_t size;
        EXPECT(SQS_OK, sqs_encode(codec, r.token_ids + at, r.counts + at,
                                  r.survivors[i], one, sizes[i], &size));
        CHECK(size == sizes[i] && memcmp(one, bytes + used, size) == 0);
        free(pieces[--n_pieces]);
    }
    const uint8_t *all = copy(bytes, used);
    EXPECT(SQS_NO_SPACE,
           sqs_encode_rows(codec, &r, bytes, used - 1, sizes, &done));
    CHECK(done == n - 1);
    make_room(&got, n, (size_t)n * most);
    sqs_sparse_room *d = &got.round;
    EXPECT(SQS_OK, sqs_decode_rows(codec, all, sizes, n, most, d));
    got.positions = NULL;
    CHECK(same_content(c, &got));
    EXPECT(SQS_OVER_LIMIT, sqs_decode_rows(codec, all, sizes, n, most - 1, d));
    CHECK(d->done == largest);
}

/* All kinds of packets, of which the same is said. */
static sqs_status send_all(const sqs_codec *codec, const content *c)
{
    const sqs_sparse_room *r = &c->round;
    size_t size, mark = n_pieces;
    uint32_t bits;
    sqs_status status = send(codec, ROUND, c, &size);
    if (r->done == 1 && c->positions[0] == 0) {
        EXPECT(status, send(codec, DISTRIBUTION, c, &size));
        EXPECT(status, sqs_bits(codec, r->token_ids, r->counts,
                                r->survivors[0], &bits));
    }
    if (status == SQS_OK)
        send_each(codec, c);
    if (status == SQS_OK && codec->coding == SQS_ENTROPY)
        EXPECT(SQS_OK, send(codec, SEQUENCE, c, &size));
    release(mark);
    return status;
}

static void there_and_back(const sqs_codec *codec)
{
    static content c;
    uint32_t n = codec->vocab_size < 1024 ? codec->vocab_size : 1024;
    EXPECT(SQS_OK, sqs_check_codec(codec));
    for (uint32_t i = 0; i < 24; i++) {
        uint32_t mosts[] = {1, n / 16 + 1, n};
        shape s = {mosts[i / 2 % 3], 5, i / 6 % 2};
        random_start(i);
        random_content(codec, i % 2 ? ROUND : DISTRIBUTION, &s, &c);
        EXPECT(SQS_OK, send_all(codec, &c));
    }
}

static void all_sizes(void)
{
    static const uint32_t sizes[][2] = {{SQS_MIN_VOCAB, 1},
                                        {3, SQS_MAX_RESOLUTION},
                                        {1000, 100},
                                        {1024, 65536},
                                        {SQS_MAX_VOCAB, 100}};
    for (uint32_t i = 0; i < 3 * COUNT(sizes); i++) {
        sqs_codec codec = {sizes[i / 3][0], sizes[i / 3][1], i % 3, NULL};
        there_and_back(&codec);
    }
}

/* What calls say of their arguments. */

#define ROW 5
#define ROWS 3
#define STRIDE (ROW + 2)

/* All arguments, and some of what is to come out; lists begin where they are
 * named. */
/* clang-format off */
enum {
    VOCAB_SIZE, RESOLUTION, CODING, ISA, HEIGHT, WIDTH,
    MOST, LEAST, DTYPE, BLAMED, VALUES, /* of the row to blame */
    DRAWS = VALUES + ROW, ACCEPTED = DRAWS + ROWS, TOKEN, TEMPERATURE,
    K, IDS, COUNTS = IDS + ROW,
    LENGTH = COUNTS + ROW, POSITION, /* of the last token */
    THRESHOLD, ALPHA, ETA, MASS, LEARNT,
    ARGUMENTS
};

/* The values will do as logits and as probabilities. What is NaN is not looked
 * at. */
static const double valid[ARGUMENTS] = {
    [VOCAB_SIZE] = ROW, 4, [HEIGHT] = ROWS, ROW, [MOST] = ROW, 0,
    [VALUES] = 0, 0.125, 0.125, 0.25, 0.5, [ACCEPTED] = NAN,
    [K] = 2, [IDS] = 1, 4, [COUNTS] = 3, 1, [LENGTH] = 1,
    [THRESHOLD] = 1, 0.5, 0.5, 0.5, NAN};
/* clang-format on */

/* Halves have short numbers, none of them subnormal. In a type that there isn't
 * values are doubles. */
static const void *as_type(uint32_t dtype, const double *values, size_t n)
{
    bool is_half = dtype == SQS_F16 || dtype == SQS_BF16;
    size_t size = is_half ? 2 : dtype == SQS_F32 ? 4 : 8;
    char *to = allocate(n, size);
    for (size_t i = 0; i < n; i++) {
        float f32 = (float)values[i];
        uint32_t bits, most = 0x7f800000;
        memcpy(&bits, &f32, sizeof bits);
        uint16_t half = (uint16_t)(bits >> 16);
        if (dtype == SQS_F16 && (bits & most) == most)
            half = (half & 0xfc00) | (uint16_t)(bits >> 13 & 0x3ff);
        else if (dtype == SQS_F16 && bits << 1 != 0)
            half =
                (half & 0x8000) | (uint16_t)((bits - (112u << 23)) << 4 >> 17);
        const void *from = is_half     ? (const void *)&half
                           : size == 4 ? (const void *)&f32
                                       : &values[i];
        memcpy(to + i * size, from, size);
    }
    return to;
}

static sqs_codec codec_of(const double *given)
{
    return (sqs_codec){(uint32_t)given[VOCAB_SIZE],
                       (uint32_t)given[RESOLUTION], (uint32_t)given[CODING],
                       NULL};
}

/* Rows with NaN between them, one of which may be broken. Each is turned by a
 * place from the one before it. */
static sqs_rows rows_of(const double *given, uint32_t dtype)
{
    double values[ROWS * STRIDE];
    for (uint32_t i = 0; i < ROWS * STRIDE; i++) {
        uint32_t row = i / STRIDE, at = i % STRIDE;
        const double *from = row == given[BLAMED] ? given : valid;
        values[i] = at < ROW ? from[VALUES + (at + row) % ROW] : NAN;
    }
    return (sqs_rows){as_type(dtype, values, ROWS * STRIDE - STRIDE + ROW),
                      dtype,
                      (uint32_t)given[ISA],
                      (uint32_t)given[HEIGHT],
                      (uint32_t)given[WIDTH],
                      STRIDE};
}

/* How many rows are done after such a status. */
static uint32_t done(const double *given, sqs_status status)
{
    if (status == SQS_OK)
        return ROWS;
    return status >= SQS_NOT_FINITE ? (uint32_t)given[BLAMED] : 0;
}

static sqs_status check_codec(const double *given)
{
    sqs_codec codec = codec_of(given);
    return sqs_check_codec(&codec);
}

/* Rows as a round. */
static sqs_status quantize_as(const double *given, uint32_t dtype, bool mass,
                              bool are_logits, content *c)
{
    sqs_codec codec = codec_of(given);
    sqs_keep keep = {(uint32_t)given[MOST], given[LEAST]};
    sqs_rows rows = rows_of(given, dtype);
    sqs_sparse_room *r = &c->round;
    uint32_t most = sqs_max_survivors(&codec);
    most = keep.most < most ? keep.most : most;
    double masses[ROWS] = {0};
    make_room(c, ROWS, ROWS * (size_t)most);
    memset(c->positions, 0, ROWS * sizeof *c->positions);
    double *dropped = mass ? masses : NULL;
    void *scratch = allocate(1, sqs_quantize_scratch(&codec));
    sqs_status status =
        are_logits
            ? sqs_quantize_logits(&codec, &rows, given[TEMPERATURE], &keep,
                                  scratch, r, dropped)
            : sqs_quantize_probs(&codec, &rows, &keep, scratch, r, dropped);
    CHECK(r->done == done(given, status));
    for (uint32_t i = 0; i < r->done; i++)
        CHECK(masses[i] >= 0 && masses[i] < 1);
    return status;
}

/* Types that can hold the values give the same, whether or not the dropped mass
 * is asked for. */
static sqs_status quantize(const double *given, bool are_logits, content *c)
{
    static content other;
    sqs_codec codec = codec_of(given);
    bool is_short = true;
    for (uint32_t i = VALUES; i < VALUES + ROW; i++)
        if (given[i] != -INFINITY)
            is_short = is_short && fabs(given[i]) < 8 &&
                       8 * given[i] == (int)(8 * given[i]);
    sqs_status status =
        quantize_as(given, (uint32_t)given[DTYPE], true, are_logits, c);
    for (uint32_t i = 0; i < 8 && status == SQS_OK && is_short; i++) {
        EXPECT(SQS_OK, quantize_as(given, i / 2, i % 2, are_logits, &other));
        CHECK(same_content(c, &other));
    }
    if (status == SQS_OK)
        EXPECT(SQS_OK, send_all(&codec, c));
    return status;
}

static sqs_status probs(const double *given)
{
    static content c;
    return quantize(given, false, &c);
}

static sqs_status logits(const double *given)
{
    static content c;
    return quantize(given, true, &c);
}

static sqs_status unbiased(const double *given)
{
    static content c;
    const uint64_t numbers[ROWS] = {UINT64_MAX, UINT64_MAX / 2};
    sqs_codec codec = codec_of(given);
    sqs_rows rows = rows_of(given, (uint32_t)given[DTYPE]);
    sqs_sparse_room *r = &c.round;
    make_room(&c, ROWS, ROWS * (size_t)sqs_max_survivors(&codec));
    memset(c.positions, 0, ROWS * sizeof *c.positions);
    void *scratch = allocate(1, sqs_quantize_scratch(&codec));
    sqs_status status = sqs_quantize_unbiased(
        &codec, &rows, given[TEMPERATURE], numbers, scratch, r);
    CHECK(r->done == done(given, status));
    if (status == SQS_OK)
        EXPECT(SQS_OK, send_all(&codec, &c));
    return status;
}

static sqs_status learn(const double *given)
{
    sqs_keep keep = {1, given[THRESHOLD]};
    sqs_status status =
        sqs_conformal_update(&keep, given[ALPHA], given[ETA], given[MASS]);
    const double *wanted = &given[status == SQS_OK ? LEARNT : THRESHOLD];
    CHECK((status == SQS_OK && isnan(*wanted)) ||
          memcmp(&keep.least, wanted, sizeof keep.least) == 0);
    return status;
}

/* The same distribution over and over. */
static const content *repeated(const double *given)
{
    static content c;
    sqs_sparse_room *r = &c.round;
    uint32_t length = (uint32_t)given[LENGTH], k = (uint32_t)given[K];
    make_room(&c, length, (size_t)length * k);
    for (uint32_t i = 0; i < length * k; i++) {
        r->token_ids[i] = (uint32_t)given[IDS + i % k];
        r->counts[i] = (uint32_t)given[COUNTS + i % k];
    }
    for (uint32_t i = 0; i < length; i++) {
        r->survivors[i] = k;
        c.positions[i] = i + 1 < length ? 0 : (uint32_t)given[POSITION];
    }
    r->done = length;
    return &c;
}

static sqs_status encode(const double *given)
{
    sqs_codec codec = codec_of(given);
    return send_all(&codec, repeated(given));
}

/* Other codings have no sequences. */
static sqs_status encode_sequence(const double *given)
{
    static content got;
    const content *c = repeated(given);
    sqs_codec codec = codec_of(given);
    size_t size;
    if (codec.coding != SQS_ENTROPY) {
        uint8_t byte = 0;
        make_room(&got, 1, 1);
        EXPECT(SQS_BAD_ARGUMENT, send(&codec, SEQUENCE, c, &size));
        EXPECT(SQS_BAD_ARGUMENT,
               sqs_decode_sequence(&codec, &byte, 1, 1, 1, &got.round));
        codec.coding = SQS_ENTROPY;
    }
    return send(&codec, SEQUENCE, c, &size);
}

/* Two drafted tokens: 4, of which draft and first row have 1/2; and 2, of which
 * the second row has 1/4, so that p / q is 1/2. The residual is 1/8 for token 1
 * and 1/4 for token 3. At a temperature of log2(e), logits of 0, 1/8, 1/4 and
 * 1/2 are powers of two: then p / q is 0.4890 and 0.4112, and the residual
 * 0.1885 for token 1 and 0.1729 for token 4. */
static sqs_status judge(const double *given, bool by_logits)
{
    static uint32_t ids[] = {0, 4, 0, 2, 3}, counts[] = {2, 2, 1, 2, 1};
    static uint32_t survivors[] = {2, 3}, positions[] = {1, 1};
    const sqs_sparse_rows round = {ROWS - 1, ids, counts, survivors};
    const sqs_rows usual = {.n = ROWS, .width = ROW};
    sqs_rows target = rows_of(given, (uint32_t)given[DTYPE]);
    void *scratch = allocate(1, sqs_verify_scratch(&usual));
    sqs_verdict v;
    sqs_status status =
        by_logits
            ? sqs_verify_logits(&round, positions, &target, given[TEMPERATURE],
                                given + DRAWS, scratch, &v)
            : sqs_verify(&round, positions, &target, given + DRAWS, scratch,
                         &v);
    CHECK(v.done == done(given, status));
    CHECK(isnan(given[ACCEPTED]) ||
          (v.accepted == given[ACCEPTED] && v.token == given[TOKEN]));
    return status;
}

static sqs_status verify(const double *given)
{
    return judge(given, false);
}

static sqs_status verify_logits(const double *given)
{
    return judge(given, true);
}

static sqs_status (*const calls[])(const double *given) = {
    check_codec, learn,  encode,        encode_sequence, probs,
    verify,      logits, verify_logits, unbiased};

/* Of a row of the table: bit i stands for calls[i]. */
enum {
    CODEC = 1,
    LEARN = 2,
    ROUNDS = 4,
    SEQUENCES = 8,
    ENCODE = ROUNDS | SEQUENCES,
    PROBS = 16 | 32,
    LOGITS = 64 | 128 | 256,
    VALUE = PROBS | LOGITS,
    VERIFY = 32,
    QUANTIZE = 16 | 64,
    JUDGE_LOGITS = 128,
    UNBIASED = 256
};

/* What is called, what it says, and what arguments are instead: cases of `each`
 * values, for an argument and those after it. If that is 0, all numbers above
 * one that means something; fields may come from anywhere. */
typedef struct entry {
    int calls;
    sqs_status wanted;
    int argument;
    size_t each, n;
    const double *values;
} entry;

#define LIST(...)                                                             \
    (const double[])                                                          \
    {                                                                         \
        __VA_ARGS__                                                           \
    }
#define VALUES_OF(...) sizeof LIST(__VA_ARGS__) / sizeof(double)
#define BY(each, ...) each, VALUES_OF(__VA_ARGS__), LIST(__VA_ARGS__)
#define EACH(...) BY(1, __VA_ARGS__)
#define TO(...) BY(VALUES_OF(__VA_ARGS__), __VA_ARGS__)
#define ABOVE(value) BY(0, value)

static const entry table[] = {
    {~0, SQS_OK, VOCAB_SIZE, TO(ROW)},

    {CODEC, SQS_BAD_CODEC, VOCAB_SIZE,
     EACH(0, SQS_MIN_VOCAB - 1, SQS_MAX_VOCAB + 1)},
    {CODEC, SQS_BAD_CODEC, RESOLUTION, EACH(0, SQS_MAX_RESOLUTION + 1)},
    {CODEC, SQS_BAD_CODEC, CODING, ABOVE(SQS_ENTROPY)},

    {QUANTIZE, SQS_OK, RESOLUTION, EACH(1, 2, 3, 5, 7, 100, 65536)},
    {QUANTIZE, SQS_OK, MOST, EACH(1, 2, UINT32_MAX)},
    {QUANTIZE, SQS_OK, MOST,
     BY(2, UINT32_MAX, -1, UINT32_MAX, 0.25, UINT32_MAX, 2, 2, 0.25, 1, 0.25)},
    {QUANTIZE, SQS_BAD_KEEP, MOST, EACH(0)},
    {QUANTIZE, SQS_BAD_KEEP, LEAST, EACH(NAN, INFINITY, -INFINITY)},

    {LOGITS, SQS_OK, TEMPERATURE, EACH(1e-300, 1e300)},
    {LOGITS, SQS_BAD_TEMPERATURE, TEMPERATURE, EACH(-1, INFINITY, NAN)},
    {VERIFY, SQS_BAD_DTYPE, DTYPE, EACH(SQS_F16, SQS_BF16)},
    {VALUE, SQS_BAD_DTYPE, DTYPE, ABOVE(SQS_BF16)},
    {VALUE, SQS_BAD_ARGUMENT, ISA, ABOVE(SQS_NEON)},
    {VALUE, SQS_BAD_ARGUMENT, WIDTH,
     EACH(0, SQS_MIN_VOCAB - 1, SQS_MAX_VOCAB + 1)},
    {QUANTIZE | UNBIASED, SQS_BAD_ARGUMENT, WIDTH, EACH(ROW - 1, ROW + 1)},
    {VERIFY | JUDGE_LOGITS, SQS_BAD_ARGUMENT, HEIGHT,
     EACH(0, ROWS - 1, ROWS + 1)},

    {VALUE, SQS_NOT_FINITE, VALUES + 1, EACH(NAN, INFINITY)},
    {VALUE, SQS_NOT_FINITE, VALUES + 4, EACH(NAN, INFINITY)},
    {LOGITS, SQS_OK, VALUES, TO(-INFINITY, 1, -INFINITY)},
    {LOGITS, SQS_ALL_MASKED, VALUES,
     TO(-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY)},
    {PROBS, SQS_NOT_FINITE, VALUES, EACH(-INFINITY)},
    {PROBS, SQS_NEGATIVE, VALUES, EACH(-0.25)},
    {PROBS, SQS_NEGATIVE, VALUES, TO(-0.5, 0.5, 0.5, 0.25, 0.25)},
    {PROBS, SQS_OK, VALUES, TO(0, 0, 0, 0, 1)},
    {PROBS, SQS_OK, DTYPE, TO(SQS_F64, 1, 0, 0.125, 0.125, 0.25, 0.5004)},
    {PROBS, SQS_SUM, VALUES, TO(0, 0, 0, 0, 0)},
    {PROBS, SQS_SUM, VALUES + 4, EACH(0.498, 0.502, 1.25)},

#define ALMOST (1 - 0x1p-53)
#define LOG2_E 1.4426950408889634
    {VERIFY, SQS_OK, DRAWS, /* then how many are accepted, and what follows */
     BY(5, 0, 0, 0, 2, 0, ALMOST, 0, ALMOST, 2, 4, /* accepted below 1, 1/2 */
        ALMOST, 0.5 - 0x1p-54, ALMOST, 2, 4, ALMOST, 0.5, 0, 1, 1, 0, 0.5,
        0.333, 1, 1, 0, 0.5, 0.334, 1, 3, 0, ALMOST, ALMOST, 1, 3)},
    {JUDGE_LOGITS, SQS_OK, DRAWS,
     BY(6, 0.488, 0.411, 0, 2, 0, LOG2_E, 0.490, 0.53, 0, 0, 2, LOG2_E, 0.488,
        0.412, 0, 1, 1, LOG2_E, 0, 0.412, 0.521, 1, 1, LOG2_E, 0, 0.412, 0.522,
        1, 4, LOG2_E, 0, ALMOST, ALMOST, 1, 4, LOG2_E,
        /* All alike: p / q is 2/5, and what is drawn again is 1 or 4. */
        0.399, 0.399, ALMOST, 2, 4, 1e300, 0.399, 0.401, ALMOST, 1, 4, 1e300,
        ALMOST, 0, ALMOST, 1, 3, 0)},

    {ENCODE, SQS_BAD_DISTRIBUTION, K, TO(0)},
    {ENCODE, SQS_BAD_DISTRIBUTION, K, TO(5, 0, 1, 2, 3, 4, 1, 1, 1, 1, 1)},
    {ENCODE, SQS_BAD_DISTRIBUTION, K, TO(1, 5, 0, 0, 0, 0, 4)},
    {ENCODE, SQS_BAD_DISTRIBUTION, IDS, BY(2, 3, 1, 1, 1)},
    {ENCODE, SQS_BAD_DISTRIBUTION, COUNTS, /* the last sum to 4 in 32 bits */
     BY(2, 4, 0, 2, 1, 3, 2, UINT32_MAX, 5)},
    {ROUNDS, SQS_OK, LENGTH, TO(SQS_MAX_ROUND)},
    {ROUNDS, SQS_BAD_ROUND, LENGTH, EACH(0, SQS_MAX_ROUND + 1)},
    {ROUNDS, SQS_BAD_ROUND, LENGTH, TO(SQS_MAX_ROUND, 2)},
    {SEQUENCES, SQS_OK, LENGTH, TO(SQS_MAX_ROUND + 1, 2)},
    {SEQUENCES, SQS_BAD_ROUND, LENGTH, EACH(0, SQS_MAX_SEQUENCE + 1)},

    {LEARN, SQS_OK, THRESHOLD, /* to the last of each five */
     BY(5, 0.5, 0.25, 0.5, 0.75, 0.25, 0.25, 0.25, 0.5, 1, -0.125, 0.9375,
        0.25, 0.5, 0, 1)},
    {LEARN, SQS_BAD_KEEP, THRESHOLD, EACH(1.5, NAN, -INFINITY)},
    {LEARN, SQS_BAD_ARGUMENT, ALPHA, EACH(-0.5, 1.5, NAN)},
    {LEARN, SQS_BAD_ARGUMENT, ETA, EACH(0, 1.5, NAN)},
    {LEARN, SQS_BAD_ARGUMENT, MASS, EACH(-0.5, 1.5, NAN)}};

/* Has n arguments be others: for each coding and row to blame, in two types and
 * at two temperatures, unless these are among them. */
static void run(const entry *e, const double *values, size_t n)
{
    for (uint32_t i = 0; i < 36; i++) {
        double given[ARGUMENTS];
        memcpy(given, valid, sizeof given);
        given[CODING] = i % 3;
        given[BLAMED] = i / 3 % ROWS;
        given[DTYPE] = i / 9 % 2 ? SQS_F64 : SQS_F32;
        given[TEMPERATURE] = i / 18 ? 0.7 : 0;
        memcpy(given + e->argument, values, n * sizeof *values);
        for (uint32_t j = 0; j < COUNT(calls); j++) {
            if (e->calls >> j & 1)
                EXPECT(e->wanted, calls[j](given));
            release(0);
        }
    }
}

/* The seed of check.h is the number of the row. */
static void run_table(void)
{
    static const double strange[] = {256, 257, 1u << 31, UINT32_MAX};
    for (const entry *e = table; e < table + COUNT(table); e++) {
        seed_of_case = (uint64_t)(e - table);
        for (size_t i = 0; e->each > 0 && i < e->n; i += e->each)
            run(e, e->values + i, e->each);
        if (e->each > 0)
            continue;
        for (double number = *e->values + 1; number < 256; number++)
            run(e, &number, 1);
        for (size_t i = 0; i < COUNT(strange); i++)
            run(e, strange + i, 1);
    }
}

/* A machine has the scalar code and, of the others, those of one kind. */
static void instruction_sets(void)
{
    uint32_t found = 0;
    for (uint32_t isa = SQS_SCALAR; isa <= SQS_NEON; isa++) {
        bool has = sqs_find_isa((sqs_isa)isa) == (sqs_isa)isa;
        CHECK(has || sqs_find_isa((sqs_isa)isa) == SQS_ISA_BEST);
        found |= (uint32_t)has << isa;
    }
    sqs_isa best = sqs_find_isa(SQS_ISA_BEST);
    const uint32_t x86 = 1u << SQS_AVX2 | 1u << SQS_AVX512;
    CHECK(best != SQS_ISA_BEST && sqs_find_isa(best) == best);
    CHECK(sqs_find_isa((sqs_isa)(SQS_NEON + 1)) == SQS_ISA_BEST);
    CHECK(found >> SQS_SCALAR & 1);
    CHECK((found & x86) == 0 || (found & 1u << SQS_NEON) == 0);
}

/* What calls give. */

static void draw(void)
{
    static const uint32_t counts[] = {2, 1, 3}, wanted[] = {0, 0, 1, 2, 2, 2};
    for (uint32_t i = 0; i < 6; i++)
        CHECK(sqs_sample(counts, 3, i) == wanted[i]);
}

/* A distribution `length` times: the first ids and the last ones, all alike. */
static const content *flat(uint32_t vocab_size, uint32_t resolution,
                           uint32_t k, uint32_t length)
{
    static content c;
    sqs_sparse_room *r = &c.round;
    make_room(&c, length, (size_t)length * k);
    r->done = length;
    for (uint32_t i = 0; i < length * k; i++) {
        uint32_t at = i % k;
        r->token_ids[i] = at < k / 2 ? at : vocab_size - k + at;
        r->counts[i] = at > 0 ? 1 : resolution - k + 1;
        r->survivors[i / k] = k;
        c.positions[i / k] = 0;
    }
    return &c;
}

/* One survivor, then one distribution more than a coding takes. */
static void large_packets(void)
{
    uint32_t most = SQS_MAX_ENUMERATIVE_SUPPORT, n = SQS_MAX_VOCAB;
    for (uint32_t k = most; k <= most + 1; k++) {
        sqs_status wanted = k > most ? SQS_LARGE_SUPPORT : SQS_OK;
        sqs_codec codec = {n, most + 1, SQS_ENUMERATIVE, NULL};
        EXPECT(wanted, send_all(&codec, flat(n, most + 1, k, 1)));
        codec.coding = SQS_BITPACK;
        EXPECT(SQS_OK, send_all(&codec, flat(n, most + 1, k, 1)));
        release(0);
    }
    n = SQS_MAX_RESOLUTION;
    most = SQS_MAX_ENTROPY_SURVIVORS / n;
    sqs_codec codec = {n, n, SQS_ENTROPY, NULL};
    size_t size;
    EXPECT(SQS_BAD_ROUND, send_all(&codec, flat(n, n, n, most + 1)));
    EXPECT(SQS_BAD_ROUND,
           send(&codec, SEQUENCE, flat(n, n, n, most + 1), &size));
    EXPECT(SQS_OK, send_all(&codec, flat(n, n, n, most)));
    const content *longest = flat(n, n, 1, SQS_MAX_SEQUENCE);
    EXPECT(SQS_OK, send(&codec, SEQUENCE, longest, &size));
}

/* Nobody can allocate SIZE_MAX bytes, so nobody passes on too few of them. */
static void scratch_sizes(void)
{
    static const uint32_t strange[] = {
        0,        SQS_MIN_VOCAB - 1, SQS_MAX_VOCAB + 1,
        1u << 31, UINT32_MAX - 100,  UINT32_MAX};
    const uint32_t n = SQS_MAX_VOCAB, most = SQS_MAX_ROUND + 1;
    sqs_rows rows = {.n = most};
    for (size_t i = 0; i < COUNT(strange); i++) {
        rows.width = strange[i];
        CHECK(sqs_verify_scratch(&rows) == SIZE_MAX);
        CHECK(sqs_gumbel_scratch(&rows) == SIZE_MAX);
    }
    rows.width = n;
    /* a double for each 256 values of a row, and 16 bytes for each 64 */
    CHECK(sqs_verify_scratch(&rows) == 8 * most * (n / 256));
    CHECK(sqs_gumbel_scratch(&rows) >= 16 * (n / 64));
    CHECK(sqs_gumbel_scratch(&rows) < 17 * (n / 64));
    rows.width = SQS_MIN_VOCAB;
    static const uint32_t heights[] = {0, SQS_MAX_ROUND + 2, UINT32_MAX};
    for (size_t i = 0; i < COUNT(heights); i++) {
        rows.n = heights[i];
        CHECK(sqs_verify_scratch(&rows) == SIZE_MAX);
    }
}

/* Bytes that are no packets. */

#define DENSE "1111111111 0000000000"
#define FOUR_DENSE DENSE DENSE DENSE DENSE

/* Bits that are left out at the end are zero. */
static const struct {
    sqs_coding coding;
    uint32_t size; /* of the vocabulary; the resolution, too, if below 5 */
    kind k;
    sqs_status wanted;
    const char *bits;
} broken[] = {
    /* Bit-packed: k - 1 in 2 bits, ids in 3, counts - 1 in the width of 4 - k;
     * a round adds its length - 1 in 8 bits and, for k = 3, 2 of position. */
    {SQS_BITPACK, 5, DISTRIBUTION, SQS_OK, "01 000 100 10 000000"},
    {SQS_BITPACK, 5, DISTRIBUTION, SQS_TRUNCATED, ""},
    {SQS_BITPACK, 5, DISTRIBUTION, SQS_TRUNCATED, "01 000 100"},
    {SQS_BITPACK, 5, DISTRIBUTION, SQS_TRAILING_BYTES, "00 100 000 00000000"},
    {SQS_BITPACK, 5, DISTRIBUTION, SQS_PADDING, "01 000 100 10 000001"},
    {SQS_BITPACK, 5, DISTRIBUTION, SQS_PADDING, "01 000 100 10 100000"},
    {SQS_BITPACK, 5, DISTRIBUTION, SQS_TOKEN_ID, "01 000 101 10"},
    {SQS_BITPACK, 5, DISTRIBUTION, SQS_TOKEN_ORDER, "01 011 011 10"},
    {SQS_BITPACK, 5, DISTRIBUTION, SQS_TOKEN_ORDER, "01 011 010 10"},
    {SQS_BITPACK, 5, DISTRIBUTION, SQS_COUNTS, "01 000 100 11"},
    {SQS_BITPACK, 5, DISTRIBUTION, SQS_COUNTS, "10 000 001 100 1 1"},
    {SQS_BITPACK, 3, DISTRIBUTION, SQS_SUPPORT_SIZE, "11 000000"},
    {SQS_BITPACK, 5, ROUND, SQS_OK, "00000000 10 000 001 100 0 0 10"},
    {SQS_BITPACK, 5, ROUND, SQS_TOKEN_POSITION,
     "00000000 10 000 001 100 0 0 11"},
    {SQS_BITPACK, 5, ROUND, SQS_TRUNCATED, ""},
    {SQS_BITPACK, 5, ROUND, SQS_TRUNCATED, "00000001 00 100"},
    {SQS_BITPACK, 5, ROUND, SQS_TRUNCATED, /* at the last position */
     "00000110 00100 00100 00100 00100 00100 00100 01 000 100 10"},
    {SQS_BITPACK, 5, ROUND, SQS_TRAILING_BYTES,
     "00000000 00 100 000 00000000"},
    {SQS_BITPACK, 5, ROUND, SQS_PADDING, "00000000 00 100 010"},
    /* Ranks: k - 1 in 2 bits; for k = 2 of 4 one below C(4, 2) C(3, 1) = 18 in
     * 5; for k = 3 of 3 there is one distribution, and 2 bits of position. */
    {SQS_ENUMERATIVE, 4, DISTRIBUTION, SQS_OK, "01 10001"},
    {SQS_ENUMERATIVE, 4, DISTRIBUTION, SQS_RANK, "01 10010"},
    {SQS_ENUMERATIVE, 4, DISTRIBUTION, SQS_RANK, "01 11111"},
    {SQS_ENUMERATIVE, 4, DISTRIBUTION, SQS_TRUNCATED, ""},
    {SQS_ENUMERATIVE, 4, DISTRIBUTION, SQS_TRAILING_BYTES,
     "01 10001 0 00000000"},
    {SQS_ENUMERATIVE, 4, DISTRIBUTION, SQS_PADDING, "01 10001 1"},
    {SQS_ENUMERATIVE, 3, DISTRIBUTION, SQS_SUPPORT_SIZE, "11 000000"},
    {SQS_ENUMERATIVE, 4, ROUND, SQS_OK, "00000000 01 10001 1"},
    {SQS_ENUMERATIVE, 4, ROUND, SQS_TRAILING_BYTES,
     "00000000 01 10001 1 00000000"},
    {SQS_ENUMERATIVE, 3, ROUND, SQS_OK, "00000000 10 10"},
    {SQS_ENUMERATIVE, 3, ROUND, SQS_TOKEN_POSITION, "00000000 10 11"},
    /* Supports of 1 024 out of 1 024 tokens, whose rank takes no bits: eight
     * of them use SQS_MAX_ENUMERATIVE_SQUARES up. */
    {SQS_ENUMERATIVE, 1024, ROUND, SQS_OK, "00000111" FOUR_DENSE FOUR_DENSE},
    {SQS_ENUMERATIVE, 1024, ROUND, SQS_ROUND_SUPPORT,
     "00001000" FOUR_DENSE FOUR_DENSE DENSE}};

static void broken_packets(void)
{
    static content got;
    for (size_t i = 0; i < COUNT(broken); i++) {
        uint32_t size = broken[i].size, n = 0;
        sqs_codec codec = {size, size == 5 ? 4 : size, broken[i].coding, NULL};
        uint8_t bytes[64] = {0};
        for (const char *c = broken[i].bits; *c != '\0'; c++)
            if (*c != ' ') {
                bytes[n / 8] |= (uint8_t)((*c - '0') << (7 - n % 8));
                n++;
            }
        packet p = {(n + 7) / 8, bytes};
        seed_of_case = i;
        EXPECT(broken[i].wanted, get(&codec, broken[i].k, &p, &got));
        release(0);
    }
}

/* A message of the range coder can be nothing but too short, too long or not
 * the one number that ends it. */
static void broken_entropy(void)
{
    static content c;
    const uint32_t ids[] = {1, 4}, counts[] = {6, 2};
    sqs_codec codec = {8, 8, SQS_ENTROPY, NULL};
    uint8_t bytes[100] = {0};
    packet p = {sizeof bytes, bytes};
    uint32_t padded = 0;
    EXPECT(SQS_OK, sqs_encode(&codec, ids, counts, 2, bytes, p.size, &p.size));
    for (uint32_t last = 0; last < 256; last++) {
        bytes[p.size - 1] = (uint8_t)last;
        padded += get(&codec, DISTRIBUTION, &p, &c) == SQS_PADDING;
        release(0);
    }
    CHECK(padded > 0);
    EXPECT(SQS_OK, sqs_encode(&codec, ids, counts, 2, bytes, p.size, &p.size));
    p.size++;
    EXPECT(SQS_TRAILING_BYTES, get(&codec, DISTRIBUTION, &p, &c));
    p.size = 0;
    EXPECT(SQS_TRUNCATED, get(&codec, DISTRIBUTION, &p, &c));

    /* Bytes of ones are supports of all tokens, as large as can be; 16 of them
     * use SQS_MAX_ENTROPY_SURVIVORS up. */
    codec.vocab_size = codec.resolution = SQS_MAX_RESOLUTION;
    memset(bytes, 0xff, sizeof bytes);
    EXPECT(SQS_TRUNCATED, get(&codec, ROUND, &p, &c));
    p.size = 20;
    EXPECT(SQS_TRUNCATED, get(&codec, ROUND, &p, &c));
    p.size = sizeof bytes;
    EXPECT(SQS_ROUND_SUPPORT, get(&codec, ROUND, &p, &c));
    EXPECT(SQS_ROUND_SUPPORT, get(&codec, SEQUENCE, &p, &c));
    /* Now the receiver takes less than the format does. */
    make_room(&c, 0, 0);
    EXPECT(SQS_OVER_LIMIT,
           sqs_decode_sequence(&codec, bytes, p.size, 1, 0, &c.round));
    uint32_t most = sqs_max_round_survivors(&codec, p.size) - 1;
    make_room(&c, SQS_MAX_ROUND, most);
    EXPECT(SQS_OVER_LIMIT, sqs_decode_round(&codec, bytes, p.size, most,
                                            &c.round, c.positions));
}

/* Priors. */

#define CLASSES 2u
#define PRIOR_IDS 1000u
#define CHANCES 14u /* where chances begin in a file, and then codes */
#define CODES (CHANCES + (CLASSES + 1) * CLASSES)

/* A prior is for one coding and one vocabulary. */
static void send_with_prior(const sqs_prior *prior)
{
    sqs_codec codec = {PRIOR_IDS, 100, SQS_ENTROPY, prior};
    there_and_back(&codec);
    codec.vocab_size++;
    EXPECT(SQS_BAD_CODEC, sqs_check_codec(&codec));
    codec.vocab_size = PRIOR_IDS;
    for (codec.coding = 0; codec.coding < SQS_ENTROPY; codec.coding++)
        EXPECT(SQS_BAD_CODEC, sqs_check_codec(&codec));
}

static sqs_status judge_prior(const void *bytes, size_t size)
{
    packet file = {size, copy(bytes, size)};
    sqs_status status;
    expect_right(attack_prior(&file, &status));
    release(0);
    return status;
}

/* Every byte counts, and so does every rule if the check is made right. The
 * file isn't needed any more when the prior is made. */
static void priors(void)
{
    static const struct {
        size_t at;
        uint8_t value;
    } bad[] = {{0, 'S'},
               {8, 0},
               {8, 2},
               {9, 0},
               {9, 1},
               {9, 33},
               {10, 0},
               {11, 0},
               {13, 1},
               {CHANCES, 0},
               {CODES - 1, 0},
               {CODES, 255},
               {CODES + 256, 255}};
    static holder h;
    static uint8_t file[4096];
    CHECK(make_prior(PRIOR_IDS, CLASSES, 1, &h) != NULL);
    size_t size = h.file.size;
    packet p = {size, file};
    memcpy(file, h.file.bytes, size);
    memset(h.file.bytes, 0xff, size);
    send_with_prior(h.prior);
    EXPECT(SQS_OK, judge_prior(file, size));
    EXPECT(SQS_BAD_PRIOR, judge_prior(file, size + 1));
    for (size_t i = 0; i < size; i++) {
        EXPECT(SQS_BAD_PRIOR, judge_prior(file, i));
        file[i] ^= 0x10;
        EXPECT(SQS_BAD_PRIOR, judge_prior(file, size));
        file[i] ^= 0x10;
    }
    for (size_t i = 0; i < COUNT(bad); i++) {
        uint8_t before = file[bad[i].at];
        file[bad[i].at] = bad[i].value;
        seal_prior(&p);
        EXPECT(SQS_BAD_PRIOR, judge_prior(file, size));
        file[bad[i].at] = before;
    }
}

static void check_statuses(void)
{
    for (int i = 0; i < STATUSES; i++) {
        const char *text = sqs_status_text((sqs_status)i);
        check_at(__FILE__, __LINE__, met[i], text);
        for (int j = 0; j <= STATUSES; j++)
            CHECK(j == i || strcmp(text, sqs_status_text((sqs_status)j)) != 0);
    }
}

int main(void)
{
    all_sizes();
    run_table();
    instruction_sets();
    draw();
    large_packets();
    scratch_sizes();
    broken_packets();
    broken_entropy();
    priors();
    check_statuses();
    printf("every status met: %d\n", STATUSES);
    return 0;
}
