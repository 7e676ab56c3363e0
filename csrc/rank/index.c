/*
 * index.c - the exact rank of a support and of its counts.
 *
 * Sets. The combinatorial number system numbers the k-subsets
 * c_1 < ... < c_k of {0, ..., n-1} without a gap:
 *
 *     rank = C(c_1, 1) + C(c_2, 2) + ... + C(c_k, k)  in [0, C(n, k)).
 *
 * From a rank, c_k is the largest c with C(c, k) <= rank; subtract and go on
 * with k - 1. For subsets of 3 of {0, ..., 4}:
 *
 *     012 -> 0   013 -> 1   023 -> 2   123 -> 3   014 -> 4
 *     024 -> 5   124 -> 6   034 -> 7   134 -> 8   234 -> 9
 *
 * A binomial needs a division for each factor. The falling factorial
 * [c]_i = c (c-1) ... (c-i+1) = i! C(c, i) needs none, so what is kept here is
 * R_i = i! (C(c_1, 1) + ... + C(c_i, i)), which obeys
 *
 *     R_i = i R_{i-1} + [c_i]_i,    R_k = k! rank.
 *
 * Ranking runs it upwards and divides by k! once; unranking runs it downwards,
 * one single-limb division to a token.
 *
 * Compositions. Positive counts b_1, ..., b_k with sum l are the (k-1)-subset
 * {b_1 - 1, b_1 + b_2 - 1, ...} of the l - 1 places where l units in a row can
 * be cut, so the same code ranks them: there are C(l-1, k-1).
 *
 * Both. rank = rank(support) * C(l-1, k-1) + rank(counts): one number for the
 * two, so that only one ceiling is paid.
 *
 * rank / C(l-1, k-1), rounded down, is (k-1)! rank / [l-1]_{k-1}, and dividing
 * by one factor after the other rounds down to the same: no long division.
 *
 * Widths. Scaled ranks and falling factorials stay below [n]_k < 2^(20 k), and
 * (k-1)! rank below C(n, k) [l-1]_{k-1} < 2^(36 k - 16) / k!, whose size grows
 * with k and has 28 067 bits at k = 1 024. One limb more holds [c]_i (c + 1)
 * before it is divided.
 */
#include "rank/index.h"

#include <math.h>

_Static_assert(SQS_MAX_VOCAB <= 1u << 20 && SQS_MAX_RESOLUTION <= 1u << 16,
               "the widths above assume these limits");
_Static_assert(SQS_MAX_ENUMERATIVE_SUPPORT <= 1024 &&
                   SQS_BIG_BITS >= 28067 + 64,
               "a big integer must hold every number here");

/* Multiplies or divides a by the factors of [c]_i, c >= i, as many at a time as
 * fit a limb. */
static void apply_falling(sqs_big *a, uint32_t c, uint32_t i,
                          void (*apply)(sqs_big *a, sqs_limb factor))
{
    if (i == 0)
        return;
    const sqs_limb full = (sqs_limb)-1 / c;
    sqs_limb product = c;
    for (uint32_t j = 1; j < i; j++) {
        if (product > full) {
            apply(a, product);
            product = 1;
        }
        product *= c - j;
    }
    apply(a, product);
}

/* a *= [c]_i */
static void multiply_falling(sqs_big *a, uint32_t c, uint32_t i)
{
    apply_falling(a, c, i, sqs_big_scale);
}

/* a /= [c]_i, rounded down */
static void divide_falling(sqs_big *a, uint32_t c, uint32_t i)
{
    apply_falling(a, c, i, sqs_big_shrink);
}

/* f = [c]_i, which is 0 for c < i. */
static void falling(sqs_big *f, uint32_t c, uint32_t i)
{
    sqs_big_set(f, c >= i);
    if (c >= i)
        multiply_falling(f, c, i);
}

static void binomial(sqs_big *b, uint32_t n, uint32_t k)
{
    falling(b, n, k);
    divide_falling(b, k, k);
}

/*
 * Where to look for the largest c with [c]_i <= r. This is a hint: exact
 * integers decide, so the accuracy of log and exp costs time at most.
 */

/* ln(n!) and its derivative, by Stirling's series. */
typedef struct stirling {
    double value, slope;
} stirling;

static stirling log_factorial(double n)
{
    double x = n + 1, log_x = log(x);
    return (stirling){(x - 0.5) * log_x - x +
                          0.9189385332046727 /* ln sqrt(2 pi) */ + 1 / (12 * x),
                      log_x - 1 / (2 * x)};
}

static double log_big(const sqs_big *a)
{
    uint32_t length = sqs_big_length(a), taken = 0;
    double mantissa = 0;
    for (; taken < 48 && taken < length; taken += 16) {
        uint32_t n = length - taken < 16 ? length - taken : 16;
        uint32_t bits = sqs_big_bits(a, length - taken - n, n);
        mantissa = mantissa * 65536 + (double)(bits << (16 - n));
    }
    return log(mantissa) +
           ((double)length - (double)taken) * 0.6931471805599453 /* ln 2 */;
}

/* Newton's method doubles the correct digits, so that it seldom takes more
 * than four rounds; and what is closer than this will be corrected by one. */
#define MOST_ROUNDS 16
#define CLOSE 0.01

/* Newton's method from below on ln [c]_i, which is concave in c. The start is
 * the c at which the i factors, were they all equal to their mean, reach r. */
static uint32_t guess(const sqs_big *r, uint32_t i, uint32_t upper)
{
    if (r->size == 0)
        return i - 1;
    double target = log_big(r);
    double c = exp(target / i) + (i - 1) / 2.0;
    if (!(c >= i))
        c = i;
    for (int round = 0; round < MOST_ROUNDS; round++) {
        stirling whole = log_factorial(c), rest = log_factorial(c - i);
        double step = (target - (whole.value - rest.value)) /
                      (whole.slope - rest.slope);
        if (!(step > CLOSE || step < -CLOSE))
            break;
        c += step;
        if (!(c >= i))
            c = i;
    }
    return c < upper ? (uint32_t)c : upper - 1;
}

/* To divide a limb takes about six times what it takes to multiply one; and f
 * has its full length then, where [d]_i is built up from nothing. So a factor
 * that is moved costs as much as 14 = 2 (1 + 6) that are built. */
#define DEAR 14u

/* f = [c]_i becomes [d]_{i+1} for d > c: by the factors c + 1 .. d that are
 * new and those of (d - i - 1)! / (c - i)! that no longer are there, or anew
 * if these are many. */
static void move_up(sqs_big *f, uint32_t c, uint32_t i, uint32_t d)
{
    uint32_t gap = d - c;
    if (i == 0 || c < i || gap > i / DEAR) {
        falling(f, d, i + 1);
        return;
    }
    multiply_falling(f, d, gap);
    divide_falling(f, d - i - 1, gap - 1);
}

/* f = [c]_i becomes [d]_{i-1} for d < c, the other way round. */
static void move_down(sqs_big *f, uint32_t c, uint32_t i, uint32_t d)
{
    uint32_t gap = c - d;
    if (c < i || d + 1 < i || gap > i / DEAR) {
        falling(f, d, i - 1);
        return;
    }
    multiply_falling(f, c - i, gap - 1);
    divide_falling(f, c, gap);
}

/*
 * The largest c < upper with [c]_i <= r; f becomes [c]_i. [i-1]_i = 0 always
 * fits, and upper >= i. If upper < n, then f is [upper]_{i+1}.
 */
static uint32_t search(sqs_big *f, const sqs_big *r, uint32_t i,
                       uint32_t upper, uint32_t n)
{
    uint32_t c = guess(r, i, upper);
    if (upper < n)
        move_down(f, upper, i + 1, c);
    else
        falling(f, c, i);
    while (sqs_big_compare(f, r) > 0) {
        sqs_big_scale(f, c - i);
        sqs_big_shrink(f, c);
        c--;
    }
    for (; c + 1 < upper; c++) {
        sqs_big next;
        if (c < i) {
            falling(&next, c + 1, i);
        } else {
            sqs_big_copy(&next, f);
            sqs_big_scale(&next, c + 1);
            sqs_big_shrink(&next, c + 1 - i);
        }
        if (sqs_big_compare(&next, r) > 0)
            break;
        sqs_big_copy(f, &next);
    }
    return c;
}

/* The elements of a set, from a support or from the cuts of a composition. */
typedef struct set_walk {
    const uint32_t *values;
    bool cuts;
    uint32_t at;
} set_walk;

static uint32_t next_element(set_walk *walk)
{
    uint32_t value = *walk->values++;
    if (!walk->cuts)
        return value;
    walk->at += value;
    return walk->at - 1;
}

static void rank_set(sqs_big *rank, set_walk walk, uint32_t k)
{
    sqs_big f;
    sqs_big_set(&f, 1);
    sqs_big_set(rank, 0);
    for (uint32_t i = 1, last = 0; i <= k; i++) {
        uint32_t c = next_element(&walk);
        move_up(&f, last, i - 1, c);
        last = c;
        sqs_big_scale(rank, i);
        sqs_big_add(rank, &f);
    }
    divide_falling(rank, k, k);
}

/* rank < C(n, k) becomes 0; the set ascends. */
static void unrank_set(sqs_big *rank, uint32_t n, uint32_t k, uint32_t *set)
{
    multiply_falling(rank, k, k);
    sqs_big f;
    for (uint32_t i = k, c = n; i > 0; i--) {
        c = search(&f, rank, i, c, n);
        set[i - 1] = c;
        sqs_big_subtract(rank, &f);
        sqs_big_shrink(rank, i);
    }
}

void sqs_index_size(sqs_big *size, uint32_t n, uint32_t resolution,
                    uint32_t k)
{
    sqs_big supports, compositions;
    binomial(&supports, n, k);
    binomial(&compositions, resolution - 1, k - 1);
    sqs_big_multiply(size, &supports, &compositions);
}

void sqs_index_rank(sqs_big *rank, const uint32_t *ids,
                    const uint32_t *counts, uint32_t k, uint32_t resolution)
{
    sqs_big support, compositions, composition;
    rank_set(&support, (set_walk){ids, false, 0}, k);
    binomial(&compositions, resolution - 1, k - 1);
    sqs_big_multiply(rank, &support, &compositions);
    rank_set(&composition, (set_walk){counts, true, 0}, k - 1);
    sqs_big_add(rank, &composition);
}

void sqs_index_unrank(sqs_big *rank, uint32_t n, uint32_t resolution,
                      uint32_t k, uint32_t *ids, uint32_t *counts)
{
    sqs_big support, compositions, rest;
    sqs_big_copy(&support, rank);
    multiply_falling(&support, k - 1, k - 1);
    divide_falling(&support, resolution - 1, k - 1);
    binomial(&compositions, resolution - 1, k - 1);
    sqs_big_multiply(&rest, &support, &compositions);
    sqs_big_subtract(rank, &rest);
    unrank_set(&support, n, k, ids);
    unrank_set(rank, resolution - 1, k - 1, counts);
    uint32_t at = 0;
    for (uint32_t i = 0; i + 1 < k; i++) {
        uint32_t cut = counts[i] + 1;
        counts[i] = cut - at;
        at = cut;
    }
    counts[k - 1] = resolution - at;
}
