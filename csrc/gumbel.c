/*
 * gumbel.c - sampling with shared random numbers, as a race: the least score
 * wins.
 *
 * A key and a position determine an exponentially distributed number E(x) for
 * every token x. The token's score is E(x) / 2^t(x), where 2^t is proportional
 * to its probability p. The token with the least score has the distribution p.
 * Another end with a similar distribution guesses this token from the least
 * scores of its own. docs/theory.md, section 9, has the exact numbers and
 * proofs.
 *
 * The least of SQS_RACE such numbers is also exponential, with 1 / SQS_RACE of
 * the mean. Each token is equally likely to have it, and the other numbers
 * exceed it by exponential amounts. So each block of SQS_RACE tokens has one
 * number G, which belongs to one place, and every other token has G plus a
 * number of its own. G and the block's largest logit bound all its scores. 32
 * bits of G exclude most blocks, and G excludes most tokens of the others,
 * whose own numbers are never computed. An incomplete last block works the
 * same way.
 *
 * Decisions are made here in double precision. Kernels only exclude blocks and
 * tokens that can't win.
 */
#include <math.h>
#include <stdbool.h>

#include "rows/kernels.h"
#include "rows/values.h"

/* Tokens of a smaller t can't win. */
#define LEAST_EXPONENT -100.0

/* At lower temperatures the largest logits win. */
#define LEAST_TEMPERATURE 0x1p-100

/* At higher temperatures single precision gives no bounds. */
#define MOST_TEMPERATURE 0x1p100

/* The streams of random words of a position. Kernels read stream 0, which has
 * the upper bits of G of each block. */
enum { PLACES = 2, UPPER = 1, LOWER = 3 };

/* The best tokens so far, sorted by score; ties go to the lower id. */
typedef struct podium {
    uint32_t most, n;
    double scores[SQS_MAX_GUESSES];
    uint32_t ids[SQS_MAX_GUESSES];
} podium;

typedef struct race {
    const sqs_kernels *kernels;
    sqs_scanned row;
    uint32_t dtype;
    double scale; /* t = (logit - max) * scale */
    sqs_numbers numbers;
    float *lows;     /* bounds of each block's scores; INFINITY if done */
    uint32_t *words; /* the upper bits of each block's number */
    podium best;
} race;

typedef struct block {
    uint32_t first; /* the id of its first token */
    uint32_t place; /* the token that has the block's number */
    double number;
} block;

/* -ln(u) for u = 1 - v, of which the smaller is exact, as 2 artanh(s) =
 * 2 s (1 + s^2 / 3 + s^4 / 5 + ...) with |s| <= 0.172. If v < 1/4, then
 * s = v / (2 - v). Otherwise u is 2^k z with z in [0.7071, 1.4142), and
 * s = (1 - z) / (1 + z). */
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

/* An exponential number: -ln(1 - v), where v is the middle of one of
 * 2^(32 + bits) equal parts of [0, 1), which the words choose. */
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

/* Inserts a token, unless it is there already or all places have better ones.
 */
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

/* The largest score that still gets a place. */
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

/* A mask of the tokens of a block whose logits are at least `bound`. */
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

/* Computes the score of token i of a block, but stops as soon as a part of it
 * exceeds the bar: what is left could only add to it, and rounding is
 * monotone. */
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

/* The least logit with which a token can pass the bar, given a lower bound of
 * its number. The bits of a double, read as an integer and divided by 2^52,
 * are at most 1023 plus its log2. */
static double least_logit(const race *r, double number)
{
    double ratio = number / bar(r);
    uint64_t bits;
    memcpy(&bits, &ratio, sizeof bits);
    double t = (double)bits * 0x1p-52 - 1023;
    t = t > LEAST_EXPONENT ? t : LEAST_EXPONENT;
    return r->row.max + (t - 1e-9) / r->scale; /* exceeds rounding errors */
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

/* Starts with the blocks of the lowest bounds, whose largest logits set a low
 * bar; then takes all blocks by ascending id. */
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
        double most = bar(r) * 1.000001; /* or its float could be less */
        float bound = most < FLT_MAX ? (float)most : FLT_MAX;
        b = kernels->find_low(r->lows, b, n, bound);
        if (b == n)
            return;
        enter_block(r, b);
    }
}

/* Writes the bounds of all blocks; infinite for those that only fill up. */
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

/* Below LEAST_TEMPERATURE: scores are the negated logits. */
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
