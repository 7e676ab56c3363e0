/*
 * gumbel.c - which tokens win a race of exponential numbers.
 *
 * Every token x has a number E(x), exponentially distributed, which a key and
 * a position determine. Of scores E(x) / 2^t(x), with 2^t in proportion to the
 * token's probability p, the least is that of a token with the law p. Whoever
 * knows another distribution guesses it by the least scores that this one
 * gives: docs/theory.md, section 9, has the numbers to the bit, and proofs.
 *
 * The least of SQS_RACE numbers is exponential, too, with a SQS_RACE-th of the
 * mean; each of them is as likely to be the least, and the others exceed it by
 * numbers that are again exponential. So a block of tokens has one number G
 * and the place that it belongs to, and every other token of the block G and a
 * number of its own. With the block's largest logit G bounds all its scores.
 * Most blocks are bounded out of the race by 32 bits of G, and most tokens of
 * the few others by G: their own numbers are never made. Whether a last block
 * is full makes no difference.
 *
 * All that decides is computed here, in double precision. What kernels tell
 * only leaves out what can't win.
 */
#include <math.h>
#include <stdbool.h>

#include "rows/kernels.h"
#include "rows/values.h"

/* Tokens of a smaller t have no part in a race. */
#define LEAST_EXPONENT -100.0

/* Colder than this the largest logits win. */
#define LEAST_TEMPERATURE 0x1p-100

/* Hotter than this single precision bounds nothing. */
#define MOST_TEMPERATURE 0x1p100

/* Which of a position's streams of words is for what. Stream 0, by blocks, has
 * the upper bits of G: kernels read it. */
enum { PLACES = 2, UPPER = 1, LOWER = 3 };

/* The best so far, by score, and by id where scores are equal. */
typedef struct podium {
    uint32_t most, n;
    double scores[SQS_MAX_GUESSES];
    uint32_t ids[SQS_MAX_GUESSES];
} podium;

typedef struct race {
    const sqs_kernels *kernels;
    sqs_scanned row;
    uint32_t dtype;
    double scale; /* of logits in the exponent */
    sqs_numbers numbers;
    float *lows; /* bounds of blocks; infinite for those that are through */
    uint32_t *words; /* of blocks */
    podium best;
} race;

/* A block's number, and whose it is. */
typedef struct block {
    uint32_t first, place;
    double number;
} block;

/* -ln(1 - v) = -ln(u) of v and u = 1 - v, of which the smaller is exact to the
 * last bit: by 2 artanh(s) = 2 s (1 + s^2 / 3 + s^4 / 5 + ...), |s| <= 0.172.
 * Of u >= 3/4, s = v / (2 - v); otherwise u is 2^k z with z in [0.7071,
 * 1.4142), and s = (1 - z) / (1 + z). */
static double minus_log(double v, double u)
{
    double s = v / (2 - v), k = 0;
    if (v >= 0.25) {
        uint64_t bits, below = 0x3fe6a0902de00d1b; /* the bits of 0.7071 */
        memcpy(&bits, &u, sizeof bits);
        uint64_t up = (bits + 0x3ff0000000000000 - below) >> 52;
        bits += 0x3ff0000000000000 - (up << 52);
        memcpy(&u, &bits, sizeof u);
        k = (double)((int64_t)up - 1023);
        s = (1 - u) / (1 + u);
    }
    static const double series[] = {1.0 / 19, 1.0 / 17, 1.0 / 15,
                                    1.0 / 13, 1.0 / 11, 1.0 / 9,
                                    1.0 / 7,  1.0 / 5,  1.0 / 3};
    double q = s * s, p = 1.0 / 21;
    for (uint32_t i = 0; i < 9; i++)
        p = p * q + series[i];
    return 2 * (s + s * q * p) - k * 0.6931471805599453; /* ln 2 */
}

/* An exponential number: of 2^(32 + bits) equal parts of [0, 1) the middle of
 * the one that the words name. */
static double exponential(uint32_t high, uint32_t low, uint32_t bits)
{
    double unit = 0x1p-32 / (double)((uint64_t)1 << bits);
    uint32_t most = ~0u >> (32 - bits);
    return minus_log(high * 0x1p-32 + (low + 0.5) * unit,
                     ~high * 0x1p-32 + (most - low + 0.5) * unit);
}

static bool precedes(double score, uint32_t id, const podium *to, uint32_t i)
{
    return score < to->scores[i] ||
           (score == to->scores[i] && id < to->ids[i]);
}

/* Puts a token in its place, unless it has one or all are taken by better
 * ones. */
static void offer(podium *to, double score, uint32_t id)
{
    for (uint32_t i = 0; i < to->n; i++)
        if (to->ids[i] == id)
            return;
    uint32_t i = to->n;
    if (i == to->most && !precedes(score, id, to, --i))
        return;
    to->n = i + 1;
    for (; i > 0 && precedes(score, id, to, i - 1); i--) {
        to->scores[i] = to->scores[i - 1];
        to->ids[i] = to->ids[i - 1];
    }
    to->scores[i] = score;
    to->ids[i] = id;
}

/* What a score must not exceed. */
static double bar(const race *r)
{
    return r->best.n < r->best.most ? INFINITY
                                    : r->best.scores[r->best.most - 1];
}

static double value(const race *r, uint32_t i)
{
    return sqs_value(r->row.values, r->dtype, i);
}

static double largest(const race *r, uint32_t b)
{
    uint32_t dtype = r->dtype == SQS_F64 ? SQS_F64 : SQS_F32;
    return sqs_value(r->row.maxima, dtype, b);
}

static uint32_t blocks(const race *r)
{
    return (r->row.n + SQS_RACE - 1) / SQS_RACE;
}

/* A bit for each token of a block whose logit is at least `bound`. */
static uint64_t find_from(const race *r, uint32_t b, double bound)
{
    uint32_t first = b * SQS_RACE, left = r->row.n - first;
    return r->kernels->find_from(sqs_value_at(r->row.values, r->dtype, first),
                                 left < SQS_RACE ? left : SQS_RACE, bound);
}

static block open_block(const race *r, uint32_t b)
{
    uint32_t low = sqs_word(&r->numbers, PLACES, b);
    double number = exponential(r->words[b], low / SQS_RACE, 26) / SQS_RACE;
    return (block){b * SQS_RACE, low % SQS_RACE, number};
}

/* Lets token i of a block run. Every number left out would have made the score
 * larger than a bar that it doesn't pass: roundings keep the order. */
static void enter(race *r, const block *of, uint32_t i)
{
    uint32_t id = of->first + i;
    double t = (value(r, id) - r->row.max) * r->scale, number = of->number;
    if (!(t >= LEAST_EXPONENT))
        return;
    double by = sqs_exp2_f64(-t);
    if (number * by > bar(r))
        return;
    if (i != of->place) {
        uint32_t high = sqs_word(&r->numbers, UPPER, id);
        if ((number + high * 0x1p-32) * by > bar(r))
            return;
        number += exponential(high, sqs_word(&r->numbers, LOWER, id), 32);
    }
    offer(&r->best, number * by, id);
}

/* The least logit with which a token passes the bar, if its number is at least
 * this one. A number's bits, read as an integer, are 2^52 times its log2 and
 * 1023 at most. */
static double least_logit(const race *r, double number)
{
    double ratio = number / bar(r);
    uint64_t bits;
    memcpy(&bits, &ratio, sizeof bits);
    double t = (double)bits * 0x1p-52 - 1023;
    t = t > LEAST_EXPONENT ? t : LEAST_EXPONENT;
    return r->row.max + (t - 1e-9) / r->scale; /* more than roundings take */
}

static void enter_largest(race *r, uint32_t b)
{
    uint64_t mask = find_from(r, b, largest(r, b));
    block of = open_block(r, b);
    for (uint32_t i = 0; i < SQS_RACE; i++)
        if (mask >> i & 1) {
            enter(r, &of, i);
            return;
        }
}

static void enter_block(race *r, uint32_t b)
{
    if (!(largest(r, b) >= least_logit(r, r->words[b] * 0x1p-38)))
        return;
    block of = open_block(r, b);
    uint64_t mask = find_from(r, b, least_logit(r, of.number));
    for (uint32_t i = 0; mask != 0; i++, mask >>= 1)
        if (mask & 1)
            enter(r, &of, i);
}

/* The most promising blocks give a bar; after that the order is that of ids. */
static void run(race *r)
{
    const sqs_kernels *kernels = r->kernels;
    uint32_t n = sqs_races(r->row.n), first[SQS_MAX_GUESSES], k, b;
    for (k = 0; k < r->best.most; k++) {
        b = kernels->find_least(r->lows, n);
        if (b == n || r->lows[b] == INFINITY)
            break;
        first[k] = b;
        r->lows[b] = INFINITY;
        enter_largest(r, b);
    }
    while (k > 0)
        enter_block(r, first[--k]);
    for (b = 0;; b++) {
        double most = bar(r) * 1.000001; /* so that a float is not below it */
        float bound = most < FLT_MAX ? (float)most : FLT_MAX;
        b = kernels->find_low(r->lows, b, n, bound);
        if (b == n)
            return;
        enter_block(r, b);
    }
}

/* Bounds the blocks that there are. */
static void bound_blocks(race *r, double temperature)
{
    bool hot = temperature > MOST_TEMPERATURE;
    r->kernels->bound_blocks(&r->row, hot ? 0 : (float)r->scale, &r->numbers,
                             r->words, r->lows);
    for (uint32_t b = 0; hot && b < blocks(r); b++)
        r->lows[b] = 0;
    for (uint32_t b = blocks(r); b < sqs_races(r->row.n); b++)
        r->lows[b] = INFINITY;
}

/* The largest logits; their scores are these with the other sign. */
static void choose(race *r)
{
    for (uint32_t b = 0; b < blocks(r); b++) {
        if (!(largest(r, b) >= -bar(r)))
            continue;
        uint64_t mask = find_from(r, b, -bar(r));
        for (uint32_t i = b * SQS_RACE; mask != 0; i++, mask >>= 1)
            if (mask & 1 && value(r, i) > -INFINITY)
                offer(&r->best, -value(r, i), i);
    }
}

static sqs_status draw(race *r, double temperature)
{
    r->best.n = 0;
    if (!r->kernels->scan_blocks(&r->row))
        return SQS_NOT_FINITE;
    if (r->row.max == -INFINITY)
        return SQS_ALL_MASKED;
    if (temperature < LEAST_TEMPERATURE) {
        choose(r);
    } else {
        bound_blocks(r, temperature);
        run(r);
    }
    return r->best.n > 0 ? SQS_OK : SQS_ALL_MASKED;
}

size_t sqs_gumbel_scratch(const sqs_rows *logits)
{
    if (logits->width < SQS_MIN_VOCAB || logits->width > SQS_MAX_VOCAB)
        return SIZE_MAX;
    size_t n = sqs_races(logits->width);
    return n * (sizeof(double) + sizeof(float) + sizeof(uint32_t)) +
           SQS_WORDS * sizeof(uint32_t);
}

sqs_status sqs_gumbel(const sqs_rows *logits, double temperature,
                      const uint32_t key[4], uint64_t position, uint32_t most,
                      void *scratch, sqs_guesses *to)
{
    to->done = 0;
    sqs_status status = sqs_check_rows(logits, temperature);
    if (status == SQS_OK && (most == 0 || most > SQS_MAX_GUESSES))
        status = SQS_BAD_ARGUMENT;
    if (status != SQS_OK)
        return status;
    size_t n = sqs_races(logits->width);
    race r = {.kernels = sqs_find_kernels(logits),
              .row = {.n = logits->width, .maxima = scratch},
              .dtype = logits->dtype,
              .scale = SQS_LOG2_E / temperature,
              .lows = (float *)((double *)scratch + n),
              .words = (uint32_t *)((double *)scratch + n) + n,
              .best = {.most = most}};
    for (; to->done < logits->n; to->done++) {
        uint32_t i = to->done;
        r.row.values =
            sqs_value_at(logits->values, logits->dtype, i * logits->stride);
        r.numbers = sqs_numbers_at(key, position + i);
        status = draw(&r, temperature);
        if (status != SQS_OK)
            return status;
        to->found[i] = r.best.n;
        memcpy(to->token_ids + i * most, r.best.ids,
               r.best.n * sizeof(uint32_t));
        memcpy(to->scores + i * most, r.best.scores,
               r.best.n * sizeof(double));
    }
    return SQS_OK;
}
