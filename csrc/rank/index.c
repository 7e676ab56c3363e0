/*
 * index.c - the exact rank of a support and of its counts.
 *
 * Sets. The combinatorial number system numbers the k-subsets
 * x_1 < ... < x_k of {0, ..., n-1} without a gap:
 *
 *     rank = C(x_1, 1) + C(x_2, 2) + ... + C(x_k, k)  in [0, C(n, k)).
 *
 * From a rank, x_k is the largest x with C(x, k) <= rank; subtract and
 * continue with k - 1. For example, the 3-subsets of {0, ..., 4}:
 *
 *     012 -> 0   013 -> 1   023 -> 2   123 -> 3   014 -> 4
 *     024 -> 5   124 -> 6   034 -> 7   134 -> 8   234 -> 9
 *
 * A binomial needs a division for each factor. The falling factorial
 * [x]_i = x (x-1) ... (x-i+1) = i! C(x, i) needs none. So this code computes
 * R_i = i! (C(x_1, 1) + ... + C(x_i, i)), which obeys
 *
 *     R_i = i R_{i-1} + [x_i]_i,    R_k = k! rank.
 *
 * Ranking goes upwards and divides by k! once. Unranking goes downwards, with
 * one single-limb division per token.
 *
 * Compositions. Positive counts b_1, ..., b_k with sum l are the (k-1)-subset
 * of y_i = b_1 + ... + b_i - 1 of the l - 1 places where l units in a row can
 * be cut, so the same code ranks them: there are C(l-1, k-1).
 *
 * Both. rank = S C(l-1, k-1) + T, with the rank S of the support and T of the
 * counts. One number for both is rounded up to whole bits only once.
 *
 * S = rank / C(l-1, k-1), rounded down, is (k-1)! rank / [l-1]_{k-1}. Dividing
 * by one factor after the other rounds down to the same value, without long
 * division.
 *
 * Widths. All R_i and [x]_i are below [n]_k < 2^(20 k), and (k-1)! rank is
 * below C(n, k) [l-1]_{k-1} < 2^(36 k - 16) / k!. This bound grows with k and
 * has 28 067 bits at k = 1 024. One more limb holds [x]_i (x + 1) before the
 * division.
 */
#include "rank/index.h"

#include <string.h>

_Static_assert(SQS_MAX_VOCAB <= 1u << 20 && SQS_MAX_RESOLUTION <= 1u << 16,
               "the widths above assume these limits");
_Static_assert(SQS_MAX_ENUMERATIVE_SUPPORT <= 1024 &&
                   SQS_BIG_BITS >= 28067 + 64,
               "a big integer must hold every number here");

/* Multiplies or divides a by the factors of [x]_i, i <= x. Each step takes as
 * many factors as fit a limb. */
static void apply_falling(sqs_big *a, uint32_t x, uint32_t i,
                          void (*apply)(sqs_big *a, sqs_limb factor))
{
    if (i == 0)
        return;
    const sqs_limb full = (sqs_limb)-1 / x;
    sqs_limb product = x;
    for (uint32_t j = 1; j < i; j++) {
        if (product > full) {
            apply(a, product);
            product = 1;
        }
        product *= x - j;
    }
    apply(a, product);
}

/* a *= [x]_i */
static void multiply_falling(sqs_big *a, uint32_t x, uint32_t i)
{
    apply_falling(a, x, i, sqs_big_scale);
}

/* a /= [x]_i, rounded down */
static void divide_falling(sqs_big *a, uint32_t x, uint32_t i)
{
    apply_falling(a, x, i, sqs_big_shrink);
}

static void binomial(sqs_big *b, uint32_t n, uint32_t k)
{
    sqs_big_set(b, n >= k);
    if (n < k)
        return;
    multiply_falling(b, n, k);
    divide_falling(b, k, k);
}

/* A falling factorial [x]_i, which is 0 for x < i. */
typedef struct falling {
    uint32_t x, i;
    sqs_big value;
} falling;

static void set_falling(falling *f, uint32_t x, uint32_t i)
{
    f->x = x;
    f->i = i;
    sqs_big_set(&f->value, x >= i);
    if (x >= i)
        multiply_falling(&f->value, x, i);
}

static void copy_falling(falling *f, const falling *from)
{
    f->x = from->x;
    f->i = from->i;
    sqs_big_copy(&f->value, &from->value);
}

/* The cost of moving a falling factorial by one factor, over the cost of one
 * factor when building one. Dividing a limb takes about six times as long
 * as multiplying one, and moving takes one of each at the full length.
 * Building takes a multiplication at half the length on average: 2 (1 + 6). */
#define MOVE_COST 14u

/* [x]_i becomes [to]_{i+1}, x < to: multiplies by the new factors x + 1 .. to,
 * and divides by the old ones, (to - i - 1)! / (x - i)!. */
static void step_up(falling *f, uint32_t to)
{
    uint32_t x = f->x, i = f->i, gap = to - x;
    if (i == 0 || x < i || gap > i / MOVE_COST) {
        set_falling(f, to, i + 1);
        return;
    }
    f->x = to;
    f->i = i + 1;
    multiply_falling(&f->value, to, gap);
    divide_falling(&f->value, to - i - 1, gap - 1);
}

/* [x]_i becomes [to]_{i-1}, to < x: the inverse of step_up. From a value of 0,
 * it is built from scratch. */
static void step_down(falling *f, uint32_t to)
{
    uint32_t x = f->x, i = f->i, gap = x - to;
    if (f->value.size == 0 || to + 1 < i || gap > i / MOVE_COST) {
        set_falling(f, to, i - 1);
        return;
    }
    f->x = to;
    f->i = i - 1;
    multiply_falling(&f->value, x - i, gap - 1);
    divide_falling(&f->value, x, gap);
}

/* [x]_i becomes [x-1]_i, x > i. */
static void lower(falling *f)
{
    sqs_big_scale(&f->value, f->x - f->i);
    sqs_big_shrink(&f->value, f->x);
    f->x--;
}

/* [x]_i becomes [x+1]_i. */
static void raise(falling *f)
{
    if (f->x < f->i) {
        set_falling(f, f->x + 1, f->i);
        return;
    }
    f->x++;
    sqs_big_scale(&f->value, f->x);
    sqs_big_shrink(&f->value, f->x - f->i);
}

/*
 * Where to look for the largest x with [x]_i <= r. This is only a hint: exact
 * integers decide, and inaccuracy costs time only. Logarithms and exponentials
 * are accurate to eight digits. They aren't libm's, because binaries would
 * then need recent versions of libm.
 *
 * Let y = r^(1/i) be the geometric mean of the factors, and c = x - (i-1)/2
 * their middle. Summing ln(c + d) over their distances d from c gives
 *
 *     ln(y) = ln(c) - (i^2-1) / (24 c^2) - (i^2-1)(3i^2-7) / (960 c^4) - ...
 *         c = y + (i^2-1) / (24 y) + (i^2-1)(i^2-9) / (1920 y^3) + ...
 *
 * where the next summand is 2.3e-5 i^6 / y^5. For y >= i it is below 0.03, as
 * i is at most 1 024. Otherwise Newton's method improves this x.
 */

#define LOG_2 0.6931471805599453

/* ln(x), x >= 1. With x = 2^e m, m in [sqrt(1/2), sqrt(2)), and
 * s = (m-1) / (m+1), it is e ln(2) + 2 (s + s^3/3 + s^5/5 + ...). */
static double natural_log(double x)
{
    const uint64_t sqrt_half = 0x3fe6a09e667f3bcd; /* the bits of sqrt(1/2) */
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint64_t e = (bits - sqrt_half) >> 52;
    bits -= e << 52;
    double m;
    memcpy(&m, &bits, sizeof m);
    double s = (m - 1) / (m + 1), z = s * s;
    double low = 1 + 1.0 / 3 * z, high = 1.0 / 5 + 1.0 / 7 * z;
    double sum = low + z * z * (high + 1.0 / 9 * z * z);
    return (double)e * LOG_2 + 2 * s * sum;
}

/* e^x = 2^n e^f with |f| <= ln(2)/2, 0 <= x < 700. */
static double exponential(double x)
{
    uint64_t n = (uint64_t)(1 / LOG_2 * x + 0.5), bits = (n + 1023) << 52;
    double f = x - (double)n * LOG_2, scale;
    memcpy(&scale, &bits, sizeof scale);
    double low = 1 + f, middle = 1.0 / 2 + 1.0 / 6 * f;
    double high = 1.0 / 24 + 1.0 / 120 * f, last = 1.0 / 720 + 1.0 / 5040 * f;
    double z = f * f;
    return scale * (low + z * middle + z * z * (high + z * last));
}

static double log_big(const sqs_big *a)
{
    uint32_t length = sqs_big_length(a), used = 0;
    double mantissa = 0;
    for (; used < 48 && used < length; used += 16) {
        uint32_t n = length - used < 16 ? length - used : 16;
        uint32_t bits = sqs_big_bits(a, length - used - n, n);
        mantissa = mantissa * 65536 + (double)(bits << (16 - n));
    }
    return natural_log(mantissa) + ((double)length - (double)used) * LOG_2;
}

/* ln(n!) and its derivative, by Stirling's series. */
typedef struct stirling {
    double value, slope;
} stirling;

static stirling log_factorial(double n)
{
    const double log_sqrt_2_pi = 0.9189385332046727;
    double x = n + 1, log_x = natural_log(x);
    return (stirling){(x - 0.5) * log_x - x + log_sqrt_2_pi + 1 / (12 * x),
                      log_x - 1 / (2 * x)};
}

/* Newton's method doubles the correct digits with each round, so more than
 * three are rare. */
#define MOST_ROUNDS 16

/* Newton's method ends at a smaller step. */
#define CLOSE 0.01

static double at_least(double least, double x)
{
    return x >= least ? x : least;
}

/* Solves ln [x]_i = target, starting from x >= i. */
static double improve(double x, double target, uint32_t i)
{
    for (int round = 0; round < MOST_ROUNDS; round++) {
        stirling whole = log_factorial(x), rest = log_factorial(x - i);
        double step =
            (target - (whole.value - rest.value)) / (whole.slope - rest.slope);
        if (!(step > CLOSE || step < -CLOSE))
            break;
        x = at_least(i, x + step);
    }
    return x;
}

/* Guesses x < upper. */
static uint32_t guess(const sqs_big *r, uint32_t i, uint32_t upper)
{
    if (r->size == 0)
        return i - 1;
    double target = log_big(r), n = i, y = exponential(target / n);
    double more = (n * n - 1) / (24 * y);
    double x = y + (n - 1) / 2 + more + more * (n * n - 9) / (80 * y * y);
    if (y < n)
        x = improve(at_least(n, x), target, i);
    x += CLOSE; /* r may equal [x]_i, and does for i = 1 */
    return x < upper ? (uint32_t)x : upper - 1;
}

/* Replaces [u]_{i+1}, u >= i, whose value may be 0 instead, with [x]_i for the
 * largest x < u with [x]_i <= r. There is one, as [i-1]_i = 0. */
static void search(falling *f, const sqs_big *r)
{
    uint32_t upper = f->x;
    step_down(f, guess(r, f->i - 1, upper));
    while (sqs_big_compare(&f->value, r) > 0)
        lower(f);
    while (f->x + 1 < upper) {
        falling next; /* large, so not initialized */
        copy_falling(&next, f);
        raise(&next);
        if (sqs_big_compare(&next.value, r) > 0)
            break;
        copy_falling(f, &next);
    }
}

/* Iterates over the elements of a set: ids, or the cuts y_i between counts. */
typedef struct elements {
    const uint32_t *values; /* ids, or counts */
    bool cuts;
    uint32_t sum; /* of the counts so far */
} elements;

static uint32_t next_element(elements *e)
{
    uint32_t value = *e->values++;
    if (!e->cuts)
        return value;
    e->sum += value;
    return e->sum - 1;
}

/* Writes the rank of the set of the next k elements. */
static void rank_set(sqs_big *rank, elements e, uint32_t k)
{
    falling f;
    set_falling(&f, 0, 0);
    sqs_big_set(rank, 0);
    for (uint32_t i = 1; i <= k; i++) {
        step_up(&f, next_element(&e)); /* to [x_i]_i */
        sqs_big_scale(rank, i);
        sqs_big_add(rank, &f.value);
    }
    divide_falling(rank, k, k);
}

/* Writes the k elements of the set of a rank below C(n, k); clobbers the rank.
 */
static void unrank_set(sqs_big *rank, uint32_t n, uint32_t k, uint32_t *set)
{
    falling f;
    f.x = n;
    f.i = k + 1;
    sqs_big_set(&f.value, 0); /* in place of [n]_{k+1} */
    multiply_falling(rank, k, k);
    for (uint32_t i = k; i > 0; i--) {
        search(&f, rank); /* to [x_i]_i */
        set[i - 1] = f.x;
        sqs_big_subtract(rank, &f.value);
        sqs_big_shrink(rank, i);
    }
}

void sqs_index_size(sqs_big *size, uint32_t n, uint32_t resolution, uint32_t k)
{
    sqs_big supports, compositions;
    binomial(&supports, n, k);
    binomial(&compositions, resolution - 1, k - 1);
    sqs_big_multiply(size, &supports, &compositions);
}

void sqs_index_rank(sqs_big *rank, const uint32_t *ids, const uint32_t *counts,
                    uint32_t k, uint32_t resolution)
{
    sqs_big s, t, compositions;
    rank_set(&s, (elements){ids, false, 0}, k);
    rank_set(&t, (elements){counts, true, 0}, k - 1);
    binomial(&compositions, resolution - 1, k - 1);
    sqs_big_multiply(rank, &s, &compositions);
    sqs_big_add(rank, &t);
}

/* S of a rank; the rank becomes T. */
static void split_rank(sqs_big *s, sqs_big *rank, uint32_t resolution,
                       uint32_t k)
{
    sqs_big compositions, product;
    sqs_big_copy(s, rank);
    multiply_falling(s, k - 1, k - 1);
    divide_falling(s, resolution - 1, k - 1);
    binomial(&compositions, resolution - 1, k - 1);
    sqs_big_multiply(&product, s, &compositions);
    sqs_big_subtract(rank, &product);
}

void sqs_index_unrank(sqs_big *rank, uint32_t n, uint32_t resolution,
                      uint32_t k, uint32_t *ids, uint32_t *counts)
{
    sqs_big s;
    split_rank(&s, rank, resolution, k);
    unrank_set(&s, n, k, ids);
    unrank_set(rank, resolution - 1, k - 1, counts); /* cuts for now */
    uint32_t sum = 0;
    for (uint32_t i = 0; i + 1 < k; i++) {
        uint32_t next = counts[i] + 1;
        counts[i] = next - sum;
        sum = next;
    }
    counts[k - 1] = resolution - sum;
}
