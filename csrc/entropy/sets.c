/*
 * sets.c - sets as order statistics.
 *
 * Had the n members of a set been drawn independently, each in proportion to a
 * model's weights, then the least of them would be x or more with the chance
 * (R(x) / R(0))^n, where R(x) is what x and all above it weigh. Given the
 * least, the others are n - 1 draws from what is above it, and so on: every
 * member takes one symbol, and the order of the members, which says nothing,
 * takes no bits (arXiv 2107.09202 gets there by other means). The power is n
 * times a logarithm. The members of a set differ, which draws need not: that
 * each symbol begins above the member before makes up for most of it.
 *
 * So with n members to come, none below a, the next one is a symbol with the
 * values a .. e - 1, where e = size - n + 1, and the cumulative weights
 *
 *     c(x) = 2^31 - (2^-n(log2 R(a) - log2 R(x)) (2^31 - (e - a)) + e - x)
 *
 * out of 2^31: c(a) = 0, and each value has a weight of at least 1.
 *
 * For uniform sets R(x) = 2 (size - x) - (n - 1) allows for the rest, and a
 * set of more than half is coded by what it leaves out. The mean cost is then
 * less than 1/400 bit a member above log2 C(size, n).
 */
#include "entropy/sets.h"

#include "entropy/divide.h"

#ifdef __GNUC__
#define APART __attribute__((noinline))
#else
#define APART
#endif

/* What the members of a set weigh. Functions that take such a value know it
 * when compiled: there is one of them for each. */
typedef enum weights {
    UNIFORM, /* the same for all */
    BUCKETS, /* those of a model without a prior */
    PRIOR    /* those of a model with one */
} weights;

/* A set of which all members below a are known, and n more are to come. */
typedef struct set {
    const sqs_ids *model; /* null for a uniform one */
    uint32_t size, n, a;
    sqs_place place; /* of a in the model, or nearby */
    uint64_t log_a;  /* log2 R(a) */
} set;

/* Where the values of the next member end. */
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

/* Logarithms are below MOST_LOG. The ids of a memory together weigh less than
 * the static weights do, which are SQS_ID_TOTAL or those of a prior and then
 * 2^31 at most; and a uniform set has R(x) <= 2 size. */
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

/* The last value x with an R(x) of about `rest` or more; one not far from it
 * if `rough` and that is cheaper. */
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

#define FAR 64u /* the best of a few tried */

/*
 * Guesses the last value x with u c(x) <= code. Solved for R(x), the formula
 * above says that
 *
 *     log2 R(x) = log2 R(a) - (log2(u (2^31 - (e - a)))
 *                              - log2(range - code - u (e - x))) / n
 *
 * but for rounding. x is on the right side too, but matters little there. So
 * solve with a in its place; and if the result is far from a, once more with
 * the result in its place, for which a rough one will do. A wrong guess costs
 * time only.
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

/* Finds the last value x with u c(x) <= code: from a guess outwards, in steps
 * that double, then by bisection. Writes c(x) and c(x + 1), but the latter
 * only if x + 1 < e. */
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

/* The second logarithm is needed only if x + 1 is a value too. */
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

/* Merged with the loops that call them, these take a tenth longer. */

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

/* Ids of a model. */

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
        if (e - s.a == 1) /* x and all after it are the only ones left */
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
 * Estimates. A member x has about the chance 2^-fall - 2^-(fall + step): that
 * of x and all above it, less that of all above it. This leaves out roundings,
 * and the weight of 1 that every value has at least. Both are units of 2^-31,
 * and matter for values that cost RARE bits or more: for those the estimate
 * is c(x + 1) - c(x).
 */
#define RARE (24 * SQS_BIT)

/* The last value also gets what dividing the range into 2^31 units leaves
 * over: up to 2^14 units, as each is 2^17 or more. So it is cheaper than
 * estimated, by at most log2(1 + 2^14 / 2^21) = 0.011 bits where it is not
 * rarer than this. */
#define RARE_LAST (10 * SQS_BIT)

/* About how many bits that chance takes; fall and step are logarithms, and
 * `values` is how many the symbol has. */
static uint64_t member_cost(uint64_t fall, uint64_t step, uint32_t values)
{
    const uint64_t small = SQS_BIT / 16;
    const uint64_t minus_log_ln_2 = 2271034279;
    uint64_t cost = fall;
    if (step < small) /* the series of -log2(1 - 2^-step) */
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
        if (ids[i] + 1 == e) { /* the last value: all after it are certain */
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

/* Codes the next member by its distance from the first that it can be. */
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

/* The gap before member i, from what is given and to what is found: members,
 * or the distances between them. */

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

/* The two functions below code a set of n members by the others, the numbers
 * that are not in it. The others fill the gaps between members, and runs of
 * members fill the gaps between the others. */

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
