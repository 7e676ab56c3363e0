/*
 * sets.c - sets as order statistics.
 *
 * Had the n members of a set been drawn independently, each with the weights w
 * of a model, then the least of them would be x or more with the chance
 * (R(x) / R(0))^n, where R(x) is what x and all above it weigh. Given the
 * least, the others are n - 1 draws from what is above it, and so on: every
 * member takes one symbol, and the order of the members, which says nothing,
 * takes no bits (arXiv 2107.09202 gets there by other means). The power is one
 * product of logarithms. The one thing left out is that members differ; that
 * they lie above each other makes up for most of it.
 *
 * For uniform sets R(x) = 2 (size - x) - (n - 1) allows for the members' being
 * different, and a set of more than half is coded by what it leaves out; so its
 * mean cost stays within 1/400 bit of log2 C(size, n) a member.
 */
#include "entropy/sets.h"

#include "entropy/divide.h"

/* A set in the making: its members up to `start` are known, and `left` more
 * are to come of start .. size - 1. */
typedef struct set {
    const sqs_ids *model; /* null for a uniform one */
    uint32_t size, left, start;
    uint32_t place;     /* of start in the model's memory, or nearby */
    uint64_t log_start; /* log2 of what is left to weigh at start */
} set;

/* log2 of what x and all above it weigh. */
SQS_INLINE uint64_t log_rest(set *s, uint32_t x)
{
    uint64_t rest = s->model
                        ? sqs_ids_rest(s->model, x, &s->place)
                        : 2 * (uint64_t)(s->size - x) - (s->left - 1);
    return sqs_log2(rest);
}

/* Where a value of a symbol begins. */
typedef struct edge {
    uint64_t below; /* the chance, out of SQS_ONE, of all values before */
    uint64_t log;   /* log_rest of it */
} edge;

/* The edge of x in the symbol whose values are start .. end - 1, each with a
 * chance of at least 1. */
SQS_INLINE edge edge_of(const set *s, uint32_t end, uint32_t x, uint64_t log)
{
    uint64_t scale = SQS_ONE - (end - s->start);
    uint64_t above = sqs_exp2(s->left * (s->log_start - log)) * scale;
    return (edge){SQS_ONE - ((above >> SQS_POWER_UNIT) + end - x), log};
}

/* 2^log for log <= 33, which no rest exceeds. */
static uint64_t power(uint64_t log)
{
    const uint32_t top = 33;
    return sqs_exp2(((uint64_t)top << SQS_LOG_UNIT) - log)
           << (top - SQS_POWER_UNIT);
}

/* The last x of about that rest or more. */
static uint32_t place_of(set *s, uint64_t weight)
{
    if (s->model)
        return sqs_ids_at(s->model, weight, s->start, &s->place);
    uint64_t whole = 2 * (uint64_t)s->size - (s->left - 1);
    return weight < whole ? (uint32_t)((whole - weight) / 2) : 0;
}

#define FAR 64u /* the best of a few tried */

/* About the last value whose edge is not after the code: edge_of the other way
 * round, but for the end - x that it adds. Those are known about, once x is,
 * and count less the more members are to come; a second round is for values
 * far off. A wrong guess costs time only. */
static uint32_t guess_member(const sqs_coder *c, set *s, uint32_t end)
{
    uint64_t unit = c->range >> SQS_POWER_UNIT;
    uint64_t scaled = c->range - unit * (end - s->start);
    uint64_t log_scaled = sqs_log2(scaled);
    uint32_t x = s->start;
    for (bool again = true;; again = false) {
        uint64_t least = scaled + unit * (x - s->start);
        uint64_t above = least > c->code ? least - c->code : 1;
        uint64_t log = sqs_log2(above);
        uint64_t fall =
            log < log_scaled ? sqs_divide(log_scaled - log, s->left) : 0;
        x = place_of(s, power(fall < s->log_start ? s->log_start - fall : 0));
        x = x < s->start ? s->start : x < end ? x : end - 1;
        if (!again || x - s->start <= FAR * s->left)
            return x;
    }
}

/* Finds the last value whose edge is not after the code: searches from the
 * guess outwards, in steps that double. Fills in its edge and the next. */
static uint32_t find_member(const sqs_coder *c, set *s, uint32_t end,
                            edge edges[2])
{
    uint64_t unit = c->range >> SQS_POWER_UNIT;
    uint32_t low = s->start, high = end, step = 1;
    edges[0] = (edge){0, s->log_start};
    for (uint32_t x = guess_member(c, s, end);; step *= 2) {
        edge e = edge_of(s, end, x, log_rest(s, x));
        if (unit * e.below <= c->code) {
            edges[0] = e;
            low = x;
            x += step;
        } else {
            edges[1] = e;
            high = x;
            x -= step;
        }
        if (high - low == 1)
            return low;
        if (x <= low || x >= high)
            x = low + (high - low) / 2;
    }
}

/* Narrows the interval to x, between its edge and the next. */
SQS_INLINE void take(sqs_coder *c, set *s, uint32_t end, uint32_t x,
                     edge own, edge next)
{
    sqs_coder_take(c, c->range >> SQS_POWER_UNIT, own.below,
                   next.below - own.below, x + 1 == end);
    s->log_start = next.log;
}

/* log_rest of x and of x + 1, if that is below `end`. */
SQS_INLINE sqs_logs logs_of(set *s, uint32_t end, uint32_t x)
{
    uint64_t own = log_rest(s, x);
    return (sqs_logs){own, x + 1 < end ? log_rest(s, x + 1) : 0};
}

SQS_INLINE void write_member(sqs_coder *c, set *s, uint32_t end, uint32_t x,
                             sqs_logs logs)
{
    take(c, s, end, x, edge_of(s, end, x, logs.own),
         edge_of(s, end, x + 1, logs.next));
}

static uint32_t read_member(sqs_coder *c, set *s, uint32_t end)
{
    edge edges[2] = {{0, 0}, {SQS_ONE, 0}};
    uint32_t x = find_member(c, s, end, edges);
    take(c, s, end, x, edges[0], edges[1]);
    return x;
}

/* Ids of a model. */

static set start_ids(const sqs_ids *model, uint32_t n, uint32_t size)
{
    set s = {.model = model, .size = size, .left = n};
    s.log_start = sqs_log2(model->whole);
    return s;
}

void sqs_write_members(sqs_coder *c, const sqs_ids *model, uint32_t size,
                       const uint32_t *ids, uint32_t n,
                       const sqs_logs known[SQS_KNOWN_LOGS])
{
    set s = start_ids(model, n, size);
    for (uint32_t i = 0; i < n; i++, s.left--) {
        uint32_t x = ids[i], end = size - s.left + 1;
        if (end - s.start == 1) /* nor have the others a choice */
            return;
        write_member(c, &s, end, x,
                     i < SQS_KNOWN_LOGS ? known[i] : logs_of(&s, end, x));
        s.start = x + 1;
    }
}

void sqs_read_members(sqs_coder *c, const sqs_ids *model, uint32_t size,
                      uint32_t *ids, uint32_t n)
{
    set s = start_ids(model, n, size);
    for (uint32_t i = 0; i < n; i++, s.left--) {
        uint32_t x = s.start, end = size - s.left + 1;
        if (end - s.start > 1) {
            if (!sqs_coder_going(c))
                return;
            x = read_member(c, &s, end);
        }
        ids[i] = x;
        s.start = x + 1;
    }
}

/* About what is spent on a symbol of chance 2^-fall - 2^-(fall + step). That
 * no chance is below 1 shows where it is small. */
static uint64_t member_cost(uint64_t fall, uint64_t step)
{
    const uint64_t small = SQS_BIT / 16, floor_shows = 24 * SQS_BIT;
    const uint64_t minus_log_ln_2 = 2271034279;
    uint64_t cost = fall;
    if (step < small) /* the series of -log2(1 - 2^-step) */
        cost += SQS_LOG_UNIT * SQS_BIT - sqs_log2(step > 0 ? step : 1) +
                minus_log_ln_2 + step / 2;
    else
        cost += SQS_POWER_UNIT * SQS_BIT - sqs_log2(SQS_ONE - sqs_exp2(step));
    if (cost < floor_shows)
        return cost;
    uint64_t chance = sqs_exp2(fall) - sqs_exp2(fall + step) + 1;
    return SQS_POWER_UNIT * SQS_BIT - sqs_log2(chance);
}

/* The last value of a symbol takes what rounding leaves of the range: it is
 * likelier than its chance says, where that is below 2^-16. */
#define REST_SHOWS (16 * SQS_BIT)

sqs_members_cost sqs_cost_of_members(const sqs_ids *model, uint32_t size,
                                     const uint32_t *ids, uint32_t n,
                                     sqs_logs known[SQS_KNOWN_LOGS])
{
    sqs_members_cost cost = {0, false};
    set s = start_ids(model, n, size);
    for (uint32_t i = 0; i < n; i++, s.left--) {
        uint32_t end = size - s.left + 1;
        sqs_logs logs = logs_of(&s, end, ids[i]);
        uint64_t fall = s.left * (s.log_start - logs.own);
        if (i < SQS_KNOWN_LOGS)
            known[i] = logs;
        if (ids[i] + 1 == end) { /* the last value; others have no choice */
            cost.bits += member_cost(fall, 64 * SQS_BIT);
            cost.rough = fall > REST_SHOWS;
            break;
        }
        cost.bits += member_cost(fall, s.left * (logs.own - logs.next));
        s.log_start = logs.next;
    }
    return cost;
}

/* Sets of equally likely members. */

/* Codes the next member by its distance from the first possible one. */
static uint32_t code_gap(sqs_coder *c, set *s, uint32_t gap)
{
    uint32_t end = s->size - s->left + 1, x = s->start + gap;
    if (end - s->start == 1) {
        gap = 0;
    } else if (sqs_coder_going(c)) {
        s->log_start = log_rest(s, s->start);
        if (c->mode == SQS_READ)
            gap = read_member(c, s, end) - s->start;
        else
            write_member(c, s, end, x, logs_of(s, end, x));
    }
    s->start += gap + 1;
    s->left--;
    return gap;
}

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
    for (uint32_t i = 0; s->left > 0 && !c->truncated; i++) {
        uint32_t gap = members.given ? get_gap(members.given, i, distances) : 0;
        gap = code_gap(c, s, gap);
        if (members.found)
            set_gap(members.found, i, distances, gap);
    }
}

/* The two below code n members of a uniform set by the others: a gap between
 * those is a run of members. */

static void write_others(sqs_coder *c, set *others, uint32_t n,
                         const uint32_t *given, bool distances)
{
    uint32_t run = 0;
    for (uint32_t i = 0; i < n; i++, run++)
        for (uint32_t gap = get_gap(given, i, distances); gap > 0; gap--) {
            code_gap(c, others, run);
            run = 0;
        }
    for (; others->left > 0; run = 0)
        code_gap(c, others, run);
}

static void read_others(sqs_coder *c, set *others, uint32_t n, uint32_t *found,
                        bool distances)
{
    uint32_t gap = 0, i = 0;
    while (i < n && !c->truncated) {
        uint32_t run = others->left > 0 ? code_gap(c, others, 0) : n - i;
        for (; run > 0; run--, gap = 0)
            set_gap(found, i++, distances, gap);
        gap++;
    }
    while (others->left > 0 && !c->truncated)
        code_gap(c, others, 0);
}

void sqs_code_uniform_set(sqs_coder *c, uint32_t n, uint32_t size,
                          sqs_values members, bool distances)
{
    set s = {.size = size, .left = n};
    if (n <= size - n) {
        code_members(c, &s, members, distances);
        return;
    }
    s.left = size - n;
    if (members.given)
        write_others(c, &s, n, members.given, distances);
    else
        read_others(c, &s, n, members.found, distances);
}
