/*
 * entropy.c - what distributions of language models look like.
 *
 * Counts come first. Sorted in descending order they are a partition of the
 * resolution, and a partition tells how many tokens there are, so that the
 * size of the support is never sent. Each count lies between what the tokens
 * still possible need it to be and the smaller of the count before and what
 * is left; it is found by halving that interval, and the first splits have
 * learned chances. A context is how large the interval is and how much is
 * left in its terms, which makes one table serve every resolution. Which token
 * has which count then takes a multinomial number of ways: an urn with a ball
 * for each token, coloured by its count, is emptied in order of ids.
 *
 * Ids come second, as a set. Had its n members been drawn independently, each
 * with the weights w of the model, then the least of them would be x or more
 * with the chance (R(x) / R(0))^n, where R(x) is what x and all above it weigh.
 * Given the least, the others are n - 1 draws from what is above it, and so
 * on: every member takes one symbol, and the order of the members, which says
 * nothing, takes no bits (arXiv 2107.09202 gets there by other means). The
 * power is one product of logarithms. The one thing left out is that members
 * differ; that they lie above each other makes up for most of it.
 *
 * Weights are those of buckets of ids, half an octave each: in a vocabulary
 * made by merging the most frequent pairs first, a low id is a frequent token.
 * Tokens of recent supports weigh more, see sqs_memory.
 *
 * Both parts have a uniform mode beside the learned one for distributions of
 * no such kind: there, composition or support is one of all equally likely
 * sets. For uniform sets R(x) = 2 (size - x) - (n - 1) allows for the members'
 * being different, and a set of more than half is coded by what it leaves out;
 * so its mean cost stays within 1/400 bit of log2 C(size, n) a member.
 */
#include "entropy.h"

#include <string.h>

/* Chances in 256ths. Those of the uniform modes cost 0.09 bits each where the
 * models fit, and 4 where they don't: half of the 8 that the worst case may
 * take beyond a rank. Rules choose a resolution of 1 for a quarter of real
 * drafts. */
#define EVEN 128u
#define UNIFORM_CHANCE 16u
#define ONE_TOKEN_CHANCE 64u

/* Code what is given when writing, fill in what is found when reading. */
typedef struct values {
    const uint32_t *given;
    uint32_t *found;
} values;

static uint32_t lesser(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Resolutions. */

uint32_t sqs_code_exponent(sqs_coder *c, uint32_t home, uint32_t exponent)
{
    if (sqs_code_bit(c, ONE_TOKEN_CHANCE, exponent == 0))
        return 0;
    if (!sqs_code_bit(c, EVEN, exponent != home))
        return home;
    bool up = home == 1;
    if (home > 1 && home < SQS_MAX_EXPONENT)
        up = sqs_code_bit(c, EVEN, exponent > home);
    uint32_t at = up ? home + 1 : home - 1;
    while (at > 1 && at < SQS_MAX_EXPONENT &&
           sqs_code_bit(c, EVEN, exponent != at))
        at = up ? at + 1 : at - 1;
    return at;
}

/* Partitions. */

/* As 1 + 2 + ... + 361 is the last such sum not to exceed 2^16, no
 * distribution has more counts that differ. */
#define MAX_GROUPS 361u
_Static_assert(MAX_GROUPS * (MAX_GROUPS + 1) / 2 <= SQS_MAX_RESOLUTION &&
                   (MAX_GROUPS + 1) * (MAX_GROUPS + 2) / 2 >
                       SQS_MAX_RESOLUTION,
               "MAX_GROUPS follows from the largest resolution");

/* Counts that differ, descending, and how many tokens have each. */
typedef struct groups {
    uint32_t n;
    uint32_t count[MAX_GROUPS];
    uint32_t size[MAX_GROUPS];
} groups;

/* Splits at depth 0 .. FULL_DEPTH - 1 all have their own chance, below that
 * only those whose interval touches the upper end. */
#define FULL_DEPTH 3u
#define TOP_DEPTH 8u
#define SIZE_CLASSES 4u
#define RATIO_CLASSES 7u
_Static_assert(sizeof sqs_split_chances ==
                   SIZE_CLASSES * RATIO_CLASSES *
                       ((1u << FULL_DEPTH) - 1 + TOP_DEPTH - FULL_DEPTH),
               "a row for each context, a column for each node");

static uint32_t split_chance(const uint8_t *row, uint32_t depth, uint32_t node)
{
    if (depth < FULL_DEPTH)
        return row[node - 1];
    if (depth < TOP_DEPTH && node == (2u << depth) - 1)
        return row[(1u << FULL_DEPTH) - 1 + depth - FULL_DEPTH];
    return EVEN;
}

/* Codes a count of low .. high when `left` is left. */
static uint32_t code_count(sqs_coder *c, uint32_t low, uint32_t high,
                           uint32_t left, uint32_t count)
{
    if (low == high)
        return low;
    uint32_t size = lesser(sqs_floor_log2(high), SIZE_CLASSES) - 1;
    uint32_t ratio = lesser(sqs_floor_log2(left / high), RATIO_CLASSES - 1);
    const uint8_t *row = sqs_split_chances[size * RATIO_CLASSES + ratio];
    for (uint32_t depth = 0, node = 1; low < high; depth++) {
        uint32_t middle = (low + high) / 2;
        bool up = sqs_code_bit(c, split_chance(row, depth, node),
                               count > middle);
        if (depth < TOP_DEPTH)
            node = 2 * node + up;
        if (up)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Makes groups of counts by looking for one after the other. */
static void make_groups(const uint32_t *counts, uint32_t k, groups *g)
{
    g->n = 0;
    uint32_t below = UINT32_MAX;
    for (uint32_t grouped = 0; grouped < k; g->n++) {
        uint32_t largest = 0, size = 0;
        for (uint32_t i = 0; i < k; i++) {
            uint32_t count = counts[i] < below ? counts[i] : 0;
            size = count > largest ? 1 : size + (count == largest);
            largest = count > largest ? count : largest;
        }
        g->count[g->n] = below = largest;
        g->size[g->n] = size;
        grouped += size;
    }
}

static void add_to_groups(groups *g, uint32_t count, uint32_t tokens)
{
    if (g->n == 0 || g->count[g->n - 1] != count) {
        g->count[g->n] = count;
        g->size[g->n++] = 0;
    }
    g->size[g->n - 1] += tokens;
}

/* Codes the partition in `given`, or adds it to the empty `found`. Returns how
 * many parts there are. */
static uint32_t code_partition(sqs_coder *c, uint32_t vocab_size,
                               uint32_t resolution, const groups *given,
                               groups *found)
{
    uint32_t left = resolution, limit = resolution, parts = 0;
    uint32_t at = 0, used = 0;
    while (left > 0 && limit > 1 && !c->truncated) {
        uint32_t slots = vocab_size - parts;
        uint32_t low = slots < left ? (left + slots - 1) / slots : 1;
        uint32_t count = given ? given->count[at] : 0;
        limit = code_count(c, low, lesser(limit, left), left, count);
        if (found)
            add_to_groups(found, limit, 1);
        else if (++used == given->size[at])
            at++, used = 0;
        left -= limit;
        parts++;
    }
    if (found && left > 0) /* nothing but ones */
        add_to_groups(found, 1, left);
    return parts + left;
}

/* Empties the urn: which token, by ascending id, has which count. */
static void code_arrangement(sqs_coder *c, groups *g, uint32_t k,
                             values counts)
{
    uint32_t colours = g->n, first = 0; /* the largest count with a ball left */
    for (uint32_t i = 0; i < k; i++) {
        while (g->size[first] == 0)
            first++;
        uint32_t at = first, below = 0, left = k - i;
        if (colours > 1 && sqs_coder_going(c)) {
            uint64_t unit = c->range / left;
            uint64_t target = c->mode == SQS_READ ? c->code / unit : 0;
            at = g->n - 1;
            while (c->mode == SQS_READ
                       ? below + g->size[at] < left &&
                             target >= below + g->size[at]
                       : g->count[at] != counts.given[i])
                below += g->size[at--];
            sqs_coder_take(c, unit, below, g->size[at],
                           below + g->size[at] == left);
        }
        if (counts.found)
            counts.found[i] = g->count[at];
        if (--g->size[at] == 0)
            colours--;
    }
}

/* Sets. */

/* What ids weigh: their buckets' weights and, times `unit`, those of the
 * memory, if there is one. */
typedef struct id_model {
    const sqs_memory *memory;
    uint64_t unit;
    uint64_t whole;                         /* what all ids weigh */
    uint64_t below[SQS_MEMORY_TOKENS + 1]; /* what earlier tokens of the memory
                                               weigh, in units */
} id_model;

/* A set in the making: its members up to `start` are known, and `left` more
 * are to come of start .. size - 1. */
typedef struct set {
    const id_model *model; /* null for a uniform one */
    uint32_t size, left, start;
} set;

#define FIRST_BUCKET_BITS 5u

static uint32_t bucket_of(uint32_t id)
{
    if (id < 1u << FIRST_BUCKET_BITS)
        return 0;
    uint32_t log = sqs_floor_log2(id);
    return 1 + 2 * (log - FIRST_BUCKET_BITS) + (id >> (log - 1) & 1);
}

static uint32_t bucket_start(uint32_t bucket)
{
    if (bucket == 0)
        return 0;
    uint32_t log = FIRST_BUCKET_BITS + (bucket - 1) / 2;
    return (2 + (bucket - 1) % 2) << (log - 1);
}

static uint64_t static_weight_below(uint32_t id)
{
    uint32_t bucket = bucket_of(id);
    return sqs_id_starts[bucket] +
           (uint64_t)(id - bucket_start(bucket)) * sqs_id_weights[bucket];
}

/* The place of the first of the memory's ids that is not below `id`. */
static uint32_t memory_place(const sqs_memory *memory, uint32_t id)
{
    uint32_t low = 0, high = memory->size;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (memory->ids[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static const sqs_memory no_memory;

/* How much the memory counts for grows with what it has seen, up to as much
 * as the buckets do. */
#define MEMORY_DELAY 8u

static void make_model(id_model *m, uint32_t vocab_size,
                       const sqs_memory *memory)
{
    uint32_t last = vocab_size - 1;
    m->memory = memory;
    m->unit = 0;
    m->whole = static_weight_below(last) + sqs_id_weights[bucket_of(last)];
    m->below[0] = 0;
    for (uint32_t i = 0; i < memory->size; i++)
        m->below[i + 1] = m->below[i] + memory->weights[i];
    uint64_t total = m->below[memory->size];
    if (total > 0)
        m->unit = m->whole * memory->seen / (memory->seen + MEMORY_DELAY) /
                  total;
    m->whole += m->unit * total;
}

static uint64_t model_rest(const id_model *m, uint32_t id)
{
    uint64_t rest = m->whole - static_weight_below(id);
    if (m->unit > 0)
        rest -= m->unit * m->below[memory_place(m->memory, id)];
    return rest;
}

/* What x and all above it weigh. */
static uint64_t rest(const set *s, uint32_t x)
{
    if (s->model)
        return model_rest(s->model, x);
    return 2 * (uint64_t)(s->size - x) - (s->left - 1);
}

#define ONE ((uint64_t)1 << SQS_POWER_UNIT)

/* The next member of a set, as a symbol: its values are start .. end - 1. */
typedef struct member {
    const set *set;
    uint64_t log_rest; /* log2 of rest(start) */
    uint32_t end;
} member;

/* The chance, out of ONE, of a member less than x < end; each value has a
 * chance of at least 1. */
static uint64_t chance_below(const member *m, uint32_t x)
{
    const set *s = m->set;
    if (x == s->start)
        return 0;
    uint64_t t = s->left * (m->log_rest - sqs_log2(rest(s, x)));
    uint64_t scale = ONE - (m->end - s->start);
    return ONE - ((sqs_exp2(t) * scale >> SQS_POWER_UNIT) + m->end - x);
}

/* About the largest x such that chance_below(x) <= target. */
static uint32_t guess_member(const member *m, uint64_t target)
{
    const set *s = m->set;
    uint64_t missing =
        ((uint64_t)SQS_POWER_UNIT << SQS_LOG_UNIT) - sqs_log2(ONE - target);
    uint64_t fall = missing / s->left;
    if (fall >= m->log_rest)
        return m->end - 1;
    const uint32_t top = 33; /* rest is below 2^33 */
    uint64_t log_least = m->log_rest - fall;
    uint64_t least_rest =
        sqs_exp2(((uint64_t)top << SQS_LOG_UNIT) - log_least)
        << (top - SQS_POWER_UNIT);
    uint32_t low = s->start, high = m->end;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (rest(s, middle) >= least_rest)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* The largest x such that chance_below(x) <= target: searches from the guess
 * outwards, in steps that double. */
static uint32_t find_member(const member *m, uint64_t target)
{
    uint32_t low = m->set->start, high = m->end, step = 1;
    uint32_t guess = guess_member(m, target);
    if (chance_below(m, guess) <= target) {
        low = guess;
        for (; step < high - low; step *= 2) {
            if (chance_below(m, low + step) > target) {
                high = low + step;
                break;
            }
            low += step;
        }
    } else {
        high = guess;
        for (; step < high - low; step *= 2) {
            if (chance_below(m, high - step) <= target) {
                low = high - step;
                break;
            }
            high -= step;
        }
    }
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (chance_below(m, middle) <= target)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Codes the set's next member by its distance from the first possible one. */
static uint32_t code_gap(sqs_coder *c, set *s, uint32_t gap)
{
    member m = {s, 0, s->size - s->left + 1};
    if (m.end - s->start == 1)
        gap = 0;
    else if (sqs_coder_going(c)) {
        m.log_rest = sqs_log2(rest(s, s->start));
        uint64_t unit = c->range >> SQS_POWER_UNIT;
        uint32_t x = s->start + gap;
        if (c->mode == SQS_READ) {
            uint64_t target = c->code / unit;
            x = find_member(&m, target < ONE ? target : ONE - 1);
            gap = x - s->start;
        }
        bool last = x + 1 == m.end;
        uint64_t below = chance_below(&m, x);
        uint64_t above = last ? ONE : chance_below(&m, x + 1);
        sqs_coder_take(c, unit, below, above - below, last);
    }
    s->start += gap + 1;
    s->left--;
    return gap;
}

/* A set is given as its members or, as counts are the distances between the
 * cuts of a composition, as the `distances` between them. */

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

static void code_set(sqs_coder *c, set *s, values members, bool distances)
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

static void code_uniform_set(sqs_coder *c, uint32_t n, uint32_t size,
                             values members, bool distances)
{
    set s = {NULL, size, n, 0};
    if (n <= size - n) {
        code_set(c, &s, members, distances);
        return;
    }
    s.left = size - n;
    if (members.given)
        write_others(c, &s, n, members.given, distances);
    else
        read_others(c, &s, n, members.found, distances);
}

/* Which mode. */

#define UNIT ((uint64_t)1 << SQS_LOG_UNIT)

/* log2 of n!, by Stirling's series; the constants are log2(e), log2(2 pi) / 2
 * and log2(e) / 12. */
static uint64_t log2_factorial(uint32_t n)
{
    if (n < 2)
        return 0;
    return ((2 * (uint64_t)n + 1) * sqs_log2(n) >> 1) -
           n * UINT64_C(6196328019) + UINT64_C(5694044581) +
           UINT64_C(516360668) / n;
}

static uint64_t log2_binomial(uint32_t n, uint32_t k)
{
    return log2_factorial(n) - log2_factorial(k) - log2_factorial(n - k);
}

static uint64_t mode_cost(bool uniform)
{
    return 8 * UNIT -
           sqs_log2(uniform ? UNIFORM_CHANCE : 256 - UNIFORM_CHANCE);
}

/* Both modes' costs. */
typedef struct costs {
    uint64_t model, uniform;
    bool rough; /* the model's may be several bits too high */
} costs;

static costs counts_costs(uint32_t vocab_size, uint32_t resolution,
                          const groups *g, uint32_t k)
{
    sqs_coder meter = sqs_coder_meter();
    code_partition(&meter, vocab_size, resolution, g, NULL);
    costs bits = {mode_cost(false) + meter.cost + log2_factorial(k),
                  mode_cost(true) + sqs_log2(lesser(vocab_size, resolution)) +
                      log2_binomial(resolution - 1, k - 1),
                  false};
    for (uint32_t i = 0; i < g->n; i++)
        bits.model -= log2_factorial(g->size[i]);
    return bits;
}

/* About what code_gap spends on a symbol of chance 2^-fall - 2^-(fall + step).
 * What code_gap sees to, that no chance is below 1, shows where it is small. */
static uint64_t member_cost(uint64_t fall, uint64_t step)
{
    const uint64_t small = UNIT / 16, floor_shows = 24 * UNIT;
    const uint64_t minus_log_ln_2 = 2271034279;
    uint64_t cost = fall;
    if (step < small) /* the series of -log2(1 - 2^-step) */
        cost += SQS_LOG_UNIT * UNIT - sqs_log2(step > 0 ? step : 1) +
                minus_log_ln_2 + step / 2;
    else
        cost += SQS_POWER_UNIT * UNIT - sqs_log2(ONE - sqs_exp2(step));
    if (cost < floor_shows)
        return cost;
    uint64_t chance = sqs_exp2(fall) - sqs_exp2(fall + step) + 1;
    return SQS_POWER_UNIT * UNIT - sqs_log2(chance);
}

/* The last value of a symbol takes what rounding leaves of the range: it is
 * likelier than its chance says, where that is below 2^-16. */
#define REST_SHOWS (16 * UNIT)

static costs ids_costs(const id_model *m, uint32_t vocab_size,
                       const uint32_t *ids, uint32_t k)
{
    costs bits = {mode_cost(false),
                  mode_cost(true) + log2_binomial(vocab_size, k), false};
    uint64_t log_start = sqs_log2(m->whole);
    for (uint32_t i = 0; i < k; i++) {
        uint32_t x = ids[i], n = k - i;
        uint64_t log_x = sqs_log2(model_rest(m, x));
        uint64_t fall = n * (log_start - log_x);
        if (x == vocab_size - n) { /* the last value; others have no choice */
            bits.model += member_cost(fall, 64 * UNIT);
            bits.rough = fall > REST_SHOWS;
            break;
        }
        log_start = sqs_log2(model_rest(m, x + 1));
        bits.model += member_cost(fall, n * (log_x - log_start));
    }
    return bits;
}

sqs_cost sqs_entropy_cost(uint32_t vocab_size, uint32_t resolution,
                          const uint32_t *ids, const uint32_t *counts,
                          uint32_t k)
{
    groups g;
    make_groups(counts, k, &g);
    costs a = counts_costs(vocab_size, resolution, &g, k);
    id_model m;
    make_model(&m, vocab_size, &no_memory);
    costs b = ids_costs(&m, vocab_size, ids, k);
    bool uniform_counts = a.uniform < a.model;
    bool uniform_ids = b.uniform < b.model;
    sqs_cost cost = {(uniform_counts ? a.uniform : a.model) +
                         (uniform_ids ? b.uniform : b.model),
                     !uniform_counts && !uniform_ids && !b.rough};
    return cost;
}

/* Distributions. */

static uint32_t code_composition(sqs_coder *c, uint32_t vocab_size,
                                 uint32_t resolution, values counts,
                                 uint32_t k, size_t room)
{
    uint32_t most = lesser(vocab_size, resolution);
    k = 1 + sqs_code_uniform(c, most, k - 1);
    if (c->truncated || k > room)
        return k;
    code_uniform_set(c, k - 1, resolution - 1, counts, true);
    if (counts.found) {
        uint32_t left = resolution;
        for (uint32_t i = 0; i + 1 < k; i++)
            left -= counts.found[i];
        counts.found[k - 1] = left;
    }
    return k;
}

void sqs_write_counts(sqs_coder *c, uint32_t vocab_size, uint32_t resolution,
                      const uint32_t *counts, uint32_t k)
{
    values given = {counts, NULL};
    groups g;
    make_groups(counts, k, &g);
    costs bits = counts_costs(vocab_size, resolution, &g, k);
    if (sqs_code_bit(c, UNIFORM_CHANCE, bits.uniform < bits.model)) {
        code_composition(c, vocab_size, resolution, given, k, k);
        return;
    }
    code_partition(c, vocab_size, resolution, &g, NULL);
    code_arrangement(c, &g, k, given);
}

uint32_t sqs_read_counts(sqs_coder *c, uint32_t vocab_size,
                         uint32_t resolution, uint32_t *counts, size_t room)
{
    values found = {NULL, counts};
    if (sqs_code_bit(c, UNIFORM_CHANCE, false))
        return code_composition(c, vocab_size, resolution, found, 1, room);
    groups g = {.n = 0};
    uint32_t k = code_partition(c, vocab_size, resolution, NULL, &g);
    if (!c->truncated && k <= room)
        code_arrangement(c, &g, k, found);
    return k;
}

void sqs_write_ids(sqs_coder *c, uint32_t vocab_size, const sqs_memory *memory,
                   const uint32_t *ids, uint32_t k)
{
    values given = {ids, NULL};
    id_model m;
    make_model(&m, vocab_size, memory);
    costs bits = ids_costs(&m, vocab_size, ids, k);
    if (sqs_code_bit(c, UNIFORM_CHANCE, bits.uniform < bits.model)) {
        code_uniform_set(c, k, vocab_size, given, false);
        return;
    }
    set s = {&m, vocab_size, k, 0};
    code_set(c, &s, given, false);
}

void sqs_read_ids(sqs_coder *c, uint32_t vocab_size, const sqs_memory *memory,
                  uint32_t *ids, uint32_t k)
{
    values found = {NULL, ids};
    if (sqs_code_bit(c, UNIFORM_CHANCE, false)) {
        code_uniform_set(c, k, vocab_size, found, false);
        return;
    }
    id_model m;
    make_model(&m, vocab_size, memory);
    set s = {&m, vocab_size, k, 0};
    code_set(c, &s, found, false);
}

uint32_t sqs_code_position(sqs_coder *c, const uint32_t *counts, uint32_t k,
                           uint32_t resolution, uint32_t position)
{
    if (!sqs_coder_going(c))
        return 0;
    uint64_t unit = c->range / resolution;
    uint64_t target = c->mode == SQS_READ ? c->code / unit : 0;
    uint32_t at = 0, below = 0;
    while (c->mode == SQS_READ
               ? at + 1 < k && target >= below + counts[at]
               : at < position)
        below += counts[at++];
    sqs_coder_take(c, unit, below, counts[at], at + 1 == k);
    return at;
}

uint32_t sqs_code_token(sqs_coder *c, uint32_t vocab_size, uint32_t token)
{
    id_model m;
    make_model(&m, vocab_size, &no_memory);
    set s = {&m, vocab_size, 1, 0};
    return code_gap(c, &s, token);
}

uint32_t sqs_code_token_count(sqs_coder *c, uint32_t resolution,
                              uint32_t count)
{
    return code_count(c, 1, resolution, resolution, count);
}

/* Memory. */

/* Weights fade by 2^-5 with each support, so that a token seen once is
 * forgotten after about 110 others, where fading would stop at 31 for lack of
 * digits. These and MEMORY_DELAY are the best of a few tried on the drafts of
 * fit_model.py; none of them is critical. */
#define NEW_WEIGHT 1024u
#define LEAST_WEIGHT 32u
#define FADING 5u
#define MOST_SEEN 255u /* by then MEMORY_DELAY no longer shows */

/* A memory while it is being added to. */
typedef struct merged {
    uint32_t size;
    uint32_t ids[SQS_MEMORY_TOKENS + SQS_MEMORY_SUPPORT];
    uint32_t weights[SQS_MEMORY_TOKENS + SQS_MEMORY_SUPPORT];
} merged;

static void merge(const sqs_memory *m, const uint32_t *ids, uint32_t k,
                  merged *to)
{
    uint32_t i = 0, j = 0, n = 0;
    while (i < m->size || j < k) {
        bool old = i < m->size && (j == k || m->ids[i] <= ids[j]);
        bool new = j < k && (i == m->size || ids[j] <= m->ids[i]);
        uint32_t faded = old ? m->weights[i] - (m->weights[i] >> FADING) : 0;
        to->ids[n] = old ? m->ids[i] : ids[j];
        to->weights[n] = faded + (new ? NEW_WEIGHT : 0);
        n += to->weights[n] >= LEAST_WEIGHT;
        i += old;
        j += new;
    }
    to->size = n;
}

/* Drops what weighs less than `least`. */
static void forget(merged *m, uint32_t least)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < m->size; i++)
        if (m->weights[i] >= least) {
            m->ids[kept] = m->ids[i];
            m->weights[kept++] = m->weights[i];
        }
    m->size = kept;
}

void sqs_memory_learn(sqs_memory *memory, const uint32_t *ids, uint32_t k)
{
    if (k > SQS_MEMORY_SUPPORT)
        return;
    merged m;
    merge(memory, ids, k, &m);
    for (uint32_t least = LEAST_WEIGHT; m.size > SQS_MEMORY_TOKENS;)
        forget(&m, least *= 2);
    memory->size = m.size;
    memcpy(memory->ids, m.ids, m.size * sizeof *m.ids);
    memcpy(memory->weights, m.weights, m.size * sizeof *m.weights);
    if (memory->seen < MOST_SEEN)
        memory->seen++;
}
