/*
 * sets.c - sets as order statistics.
 *
 * Let R(x) be the total weight of x and all numbers above it. If n members of
 * a set are sampled independently, in proportion to their weights, the least
 * is x or more with probability (R(x) / R(0))^n. Given the least, the others
 * are n - 1 samples from the numbers above it, and so on. So every member
 * takes one symbol, and the order of the members takes no bits (arXiv
 * 2107.09202 achieves this by other means). Powers are computed as n times a
 * logarithm. Independent samples may coincide, and members don't; starting
 * each symbol above the member before accounts for most of that.
 *
 * With n members to come, none below a, the next one is a symbol with the
 * values a .. e - 1, where e = size - n + 1, and the cumulative weights
 *
 *     c(x) = 2^31 - (2^-n(log2 R(a) - log2 R(x)) (2^31 - (e - a)) + e - x)
 *
 * out of 2^31: c(a) = 0, and each value has a weight of at least 1.
 *
 * For uniform sets, R(x) = 2 (size - x) - (n - 1) accounts for the rest, and a
 * set of more than half of the numbers is coded as its complement. The mean
 * cost is then less than 1/400 bit per member above log2 C(size, n).
 */
#include "entropy/sets.h"

#include "entropy/divide.h"

#ifdef __GNUC__
#define APART __attribute__((noinline))
#else
#define APART
#endif

/* The weights of a set's members. Functions take this as a constant, so that
 * they are compiled once for each value. */
typedef enum weights {
    UNIFORM, /* all equal */
    BUCKETS, /* of a model without a prior */
    PRIOR    /* of a model with a prior */
} weights;

/* A set whose members below a are known, with n more to come. */
typedef struct set {
    const sqs_ids *model; /* null for a uniform set */
    uint32_t size, n, a;
    sqs_place place; /* at or near a in the model */
    uint64_t log_a;  /* log2 R(a) */
} set;

/* The end e of the next member's values. */
SQS_INLINE uint32_t end_of(const set *s)
{
    return s->size - s->n + 1;
}

/* log2 R(x) */
SQS_INLINE uint64_t log_rest(set *s, weights w, uint32_t x)
{
    uint64_t rest = w == UNIFORM
                        ? 2 * (uint64_t)(s->size - x) - (s->n - 1)
                        : sqs_ids_rest(s->model, w == PRIOR, x, &s->place);
    return sqs_log2(rest);
}

/* c(x) of a value of the next member, and log2 R(x). */
typedef struct cumulative {
    uint64_t c, log;
} cumulative;

SQS_INLINE cumulative cumulate(const set *s, uint32_t e, uint32_t x,
                               uint64_t log)
{
    uint64_t scale = SQS_ONE - (e - s->a);
    uint64_t above = sqs_exp2(s->n * (s->log_a - log)) * scale;
    return (cumulative){SQS_ONE - ((above >> SQS_POWER_UNIT) + e - x), log};
}

/* log2 of an upper bound on R(x). A memory's ids weigh less in total than all
 * static weights, which sum to SQS_ID_TOTAL or, in a prior, at most 2^31. In a
 * uniform set, R(x) <= 2 size. */
#define MOST_LOG 33u
_Static_assert(2 * (uint64_t)SQS_ID_TOTAL <= (uint64_t)1 << MOST_LOG &&
                   2 * SQS_ONE <= (uint64_t)1 << MOST_LOG &&
                   2 * (uint64_t)SQS_MAX_VOCAB <= (uint64_t)1 << MOST_LOG,
               "no R(x) exceeds 2^MOST_LOG");

/* 2^log */
static uint64_t power(uint64_t log)
{
    return sqs_exp2(((uint64_t)MOST_LOG << SQS_LOG_UNIT) - log)
           << (MOST_LOG - SQS_POWER_UNIT);
}

/* The last value x with an R(x) of about `rest` or more. With `rough`, a prior
 * gives a value nearby in less time. */
SQS_INLINE uint32_t value_at(set *s, weights w, uint32_t e, uint64_t rest,
                             bool rough)
{
    uint64_t whole = 2 * (uint64_t)s->size - (s->n - 1);
    uint32_t x = 0;
    if (w == PRIOR)
        x = sqs_prior_ids_at(s->model, rest, s->a, rough, &s->place);
    else if (w == BUCKETS)
        x = sqs_ids_at(s->model, rest, s->a, &s->place);
    else if (rest < whole)
        x = (uint32_t)((whole - rest) / 2);
    return x < s->a ? s->a : x < e ? x : e - 1;
}

/* guess_member solves its equation twice if the first solution is further from
 * a than FAR times n. The best of a few values tried. */
#define FAR 64u

/*
 * Guesses the last value x with u c(x) <= code. Solving the formula above for
 * R(x) gives, except for rounding,
 *
 *     log2 R(x) = log2 R(a) - (log2(u (2^31 - (e - a)))
 *                              - log2(range - code - u (e - x))) / n
 *
 * The x on the right side matters little. So this uses a in its place. If the
 * result, which may be rough, is far from a, it solves again with that result
 * in place of a. A wrong guess only costs time.
 */
SQS_INLINE uint32_t guess_member(const sqs_coder *c, set *s, weights w,
                                 uint32_t e)
{
    uint64_t unit = c->range >> SQS_POWER_UNIT;
    uint64_t scaled = c->range - unit * (e - s->a);
    uint64_t log_scaled = sqs_log2(scaled);
    uint32_t x = s->a;
    for (bool again = true;; again = false) {
        uint64_t most = scaled + unit * (x - s->a);
        uint64_t above = most > c->code ? most - c->code : 1;
        uint64_t log = sqs_log2(above);
        uint64_t fall =
            log < log_scaled ? sqs_divide(log_scaled - log, s->n) : 0;
        uint64_t rest = power(fall < s->log_a ? s->log_a - fall : 0);
        x = value_at(s, w, e, rest, again);
        if (again && x - s->a > FAR * s->n)
            continue;
        return again && w == PRIOR ? value_at(s, w, e, rest, false) : x;
    }
}

/* Finds the last value x with u c(x) <= code: outwards from a guess in steps
 * that double, then by bisection. Writes c(x), and c(x + 1) if x + 1 < e. */
SQS_INLINE uint32_t find_member(const sqs_coder *c, set *s, weights w,
                                uint32_t e, cumulative found[2])
{
    uint64_t unit = c->range >> SQS_POWER_UNIT;
    uint32_t low = s->a, high = e, step = 1;
    found[0] = (cumulative){0, s->log_a};
    for (uint32_t x = guess_member(c, s, w, e);; step *= 2) {
        cumulative at_x = cumulate(s, e, x, log_rest(s, w, x));
        if (unit * at_x.c <= c->code) {
            found[0] = at_x;
            low = x;
            x += step;
        } else {
            found[1] = at_x;
            high = x;
            x -= step;
        }
        if (high - low == 1)
            return low;
        if (x <= low || x >= high)
            x = low + (high - low) / 2;
    }
}

/* Narrows the coder's interval to x, given c(x) and c(x + 1). */
SQS_INLINE void narrow_to_member(sqs_coder *c, set *s, uint32_t e, uint32_t x,
                                 cumulative here, cumulative next)
{
    sqs_coder_narrow_to_value(c, c->range >> SQS_POWER_UNIT, here.c,
                              next.c - here.c, x + 1 == e);
    s->log_a = next.log;
}

/* Leaves out log2 R(x + 1) if x + 1 isn't a value. */
SQS_INLINE sqs_logs logs_of(set *s, weights w, uint32_t e, uint32_t x)
{
    uint64_t here = log_rest(s, w, x);
    return (sqs_logs){here, x + 1 < e ? log_rest(s, w, x + 1) : 0};
}

SQS_INLINE void write_member(sqs_coder *c, set *s, uint32_t e, uint32_t x,
                             sqs_logs logs)
{
    narrow_to_member(c, s, e, x, cumulate(s, e, x, logs.here),
                     cumulate(s, e, x + 1, logs.next));
}

SQS_INLINE uint32_t read_any(sqs_coder *c, set *s, weights w, uint32_t e)
{
    cumulative found[2] = {{0, 0}, {SQS_ONE, 0}};
    uint32_t x = find_member(c, s, w, e, found);
    narrow_to_member(c, s, e, x, found[0], found[1]);
    return x;
}

/* Inlined into the loops that call them, these take 10 % longer. */

static APART uint32_t read_uniform(sqs_coder *c, set *s, uint32_t e)
{
    return read_any(c, s, UNIFORM, e);
}

static APART uint32_t read_by_buckets(sqs_coder *c, set *s, uint32_t e)
{
    return read_any(c, s, BUCKETS, e);
}

static APART uint32_t read_by_prior(sqs_coder *c, set *s, uint32_t e)
{
    return read_any(c, s, PRIOR, e);
}

SQS_INLINE uint32_t read_member(sqs_coder *c, set *s, weights w, uint32_t e)
{
    return w == UNIFORM   ? read_uniform(c, s, e)
           : w == BUCKETS ? read_by_buckets(c, s, e)
                          : read_by_prior(c, s, e);
}

/* Sets of ids, with the weights of a model. */

static set start_ids(const sqs_ids *model, uint32_t n, uint32_t size)
{
    set s = {.model = model, .size = size, .n = n};
    s.log_a = sqs_log2(model->whole);
    return s;
}

SQS_INLINE void write_members(sqs_coder *c, weights w, const sqs_ids *model,
                              uint32_t size, const uint32_t *ids, uint32_t n,
                              const sqs_logs known[SQS_KNOWN_LOGS])
{
    set s = start_ids(model, n, size);
    for (uint32_t i = 0; i < n; i++, s.n--) {
        uint32_t x = ids[i], e = end_of(&s);
        if (e - s.a == 1) /* only x and the members after it are left */
            return;
        write_member(c, &s, e, x,
                     i < SQS_KNOWN_LOGS ? known[i] : logs_of(&s, w, e, x));
        s.a = x + 1;
    }
}

void sqs_write_members(sqs_coder *c, const sqs_ids *model, uint32_t size,
                       const uint32_t *ids, uint32_t n,
                       const sqs_logs known[SQS_KNOWN_LOGS])
{
    if (model->prior)
        write_members(c, PRIOR, model, size, ids, n, known);
    else
        write_members(c, BUCKETS, model, size, ids, n, known);
}

SQS_INLINE void read_members(sqs_coder *c, weights w, const sqs_ids *model,
                             uint32_t size, uint32_t *ids, uint32_t n)
{
    set s = start_ids(model, n, size);
    for (uint32_t i = 0; i < n; i++, s.n--) {
        uint32_t x = s.a, e = end_of(&s);
        if (e - s.a > 1) {
            if (!sqs_coder_going(c))
                return;
            x = read_member(c, &s, w, e);
        }
        ids[i] = x;
        s.a = x + 1;
    }
}

void sqs_read_members(sqs_coder *c, const sqs_ids *model, uint32_t size,
                      uint32_t *ids, uint32_t n)
{
    if (model->prior)
        read_members(c, PRIOR, model, size, ids, n);
    else
        read_members(c, BUCKETS, model, size, ids, n);
}

/*
 * Estimates. A member x has a chance of about 2^-fall - 2^-(fall + step): the
 * chance of x and all values above it, minus the chance of the values above.
 * This ignores rounding and the minimum weight of 1. Both are units of 2^-31
 * and matter only for values that cost RARE bits or more. For those, the
 * estimate uses c(x + 1) - c(x).
 */
#define RARE (24 * SQS_BIT)

/* The last value also gets the remainder of dividing the range into 2^31
 * units: up to 2^14 units, as each is 2^17 or more. So it costs less than
 * estimated, but at most log2(1 + 2^14 / 2^21) = 0.011 bits less unless its
 * cost exceeds this. */
#define RARE_LAST (10 * SQS_BIT)

/* The estimated cost of a member; the symbol has `values` values. */
static uint64_t member_cost(uint64_t fall, uint64_t step, uint32_t values)
{
    const uint64_t small = SQS_BIT / 16;
    const uint64_t minus_log_ln_2 = 2271034279;
    uint64_t cost = fall;
    if (step < small) /* a series of -log2(1 - 2^-step) */
        cost += SQS_LOG_UNIT * SQS_BIT - sqs_log2(step > 0 ? step : 1) +
                minus_log_ln_2 + step / 2;
    else
        cost += SQS_POWER_UNIT * SQS_BIT - sqs_log2(SQS_ONE - sqs_exp2(step));
    if (cost < RARE)
        return cost;
    uint64_t scale = SQS_ONE - values;
    uint64_t above = sqs_exp2(fall) * scale >> SQS_POWER_UNIT;
    uint64_t above_next = sqs_exp2(fall + step) * scale >> SQS_POWER_UNIT;
    return SQS_POWER_UNIT * SQS_BIT - sqs_log2(above - above_next + 1);
}

SQS_INLINE sqs_members_cost cost_of_members(weights w, const sqs_ids *model,
                                            uint32_t size, const uint32_t *ids,
                                            uint32_t n,
                                            sqs_logs known[SQS_KNOWN_LOGS])
{
    sqs_members_cost cost = {0, false};
    set s = start_ids(model, n, size);
    for (uint32_t i = 0; i < n; i++, s.n--) {
        uint32_t e = end_of(&s), values = e - s.a;
        sqs_logs logs = logs_of(&s, w, e, ids[i]);
        uint64_t fall = s.n * (s.log_a - logs.here);
        if (i < SQS_KNOWN_LOGS)
            known[i] = logs;
        if (ids[i] + 1 == e) { /* the last value; all after it are certain */
            cost.bits += member_cost(fall, 64 * SQS_BIT, values);
            cost.rough |= fall > RARE_LAST;
            break;
        }
        cost.bits += member_cost(fall, s.n * (logs.here - logs.next), values);
        s.log_a = logs.next;
        s.a = ids[i] + 1;
    }
    return cost;
}

sqs_members_cost sqs_cost_of_members(const sqs_ids *model, uint32_t size,
                                     const uint32_t *ids, uint32_t n,
                                     sqs_logs known[SQS_KNOWN_LOGS])
{
    return model->prior ? cost_of_members(PRIOR, model, size, ids, n, known)
                        : cost_of_members(BUCKETS, model, size, ids, n, known);
}

/* Sets of equally likely members. */

/* Codes the next member as its distance from the least possible one. */
static uint32_t code_gap(sqs_coder *c, set *s, uint32_t gap)
{
    uint32_t e = end_of(s), x = s->a + gap;
    if (e - s->a == 1) {
        gap = 0;
    } else if (sqs_coder_going(c)) {
        s->log_a = log_rest(s, UNIFORM, s->a);
        if (c->mode == SQS_READ)
            gap = read_member(c, s, UNIFORM, e) - s->a;
        else
            write_member(c, s, e, x, logs_of(s, UNIFORM, e, x));
    }
    s->a += gap + 1;
    s->n--;
    return gap;
}

/* Arrays hold members, or the distances between them. These two functions
 * convert to and from the gap before member i. */

static uint32_t get_gap(const uint32_t *given, uint32_t i, bool distances)
{
    if (distances)
        return given[i] - 1;
    return i > 0 ? given[i] - given[i - 1] - 1 : given[i];
}

static void set_gap(uint32_t *found, uint32_t i, bool distances, uint32_t gap)
{
    found[i] = gap + (distances ? 1 : i > 0 ? found[i - 1] + 1 : 0);
}

static void code_members(sqs_coder *c, set *s, sqs_values members,
                         bool distances)
{
    for (uint32_t i = 0; s->n > 0 && !c->truncated; i++) {
        uint32_t gap = 0;
        if (members.given)
            gap = get_gap(members.given, i, distances);
        gap = code_gap(c, s, gap);
        if (members.found)
            set_gap(members.found, i, distances, gap);
    }
}

/* These two functions code a set of n members as its complement, the others.
 * The others fill the gaps between members, and runs of members fill the gaps
 * between the others. */

static void write_others(sqs_coder *c, set *others, uint32_t n,
                         const uint32_t *given, bool distances)
{
    uint32_t run = 0;
    for (uint32_t i = 0; i < n; i++, run++)
        for (uint32_t gap = get_gap(given, i, distances); gap > 0; gap--) {
            code_gap(c, others, run);
            run = 0;
        }
    for (; others->n > 0; run = 0)
        code_gap(c, others, run);
}

static void read_others(sqs_coder *c, set *others, uint32_t n, uint32_t *found,
                        bool distances)
{
    uint32_t gap = 0, i = 0;
    while (i < n && !c->truncated) {
        uint32_t run = others->n > 0 ? code_gap(c, others, 0) : n - i;
        for (; run > 0; run--, gap = 0)
            set_gap(found, i++, distances, gap);
        gap++;
    }
    while (others->n > 0 && !c->truncated)
        code_gap(c, others, 0);
}

void sqs_code_uniform_set(sqs_coder *c, uint32_t n, uint32_t size,
                          sqs_values members, bool distances)
{
    set s = {.size = size, .n = n};
    if (n <= size - n) {
        code_members(c, &s, members, distances);
        return;
    }
    s.n = size - n;
    if (members.given)
        write_others(c, &s, n, members.given, distances);
    else
        read_others(c, &s, n, members.found, distances);
}
