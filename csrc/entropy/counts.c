/*
 * counts.c - counts as a partition and an arrangement.
 *
 * Sorted in descending order, counts are a partition of the resolution. Its
 * length is the support size, which is never sent. Bisection finds each count
 * in an interval. The interval ends at the count before or at the remaining
 * resolution, whichever is less. It begins at the least count with which the
 * remaining tokens of the vocabulary could use up the remaining resolution.
 * The first few splits have learned chances. Their context is the size of the
 * upper end and its ratio to the remaining resolution, so that one table
 * serves every resolution.
 *
 * An arrangement, one of a multinomial number, assigns the counts to tokens.
 * It is coded by emptying an urn in the order of ids. The urn holds a ball for
 * each token, and the color of a ball is the token's count.
 */
#include "entropy/counts.h"

#include "entropy/divide.h"

_Static_assert(SQS_CODER_BITS <= 56, "sqs_divide takes a range");

/* Groups. */

static void add_to_groups(sqs_groups *g, uint32_t count, uint32_t tokens)
{
    if (g->n == 0 || g->count[g->n - 1] != count) {
        g->count[g->n] = count;
        g->size[g->n++] = 0;
    }
    g->size[g->n - 1] += tokens;
}

/* Smaller counts are tallied. Larger ones are sorted, in quadratic time. */
#define TALLIED 256u

/* The most tokens that can have larger counts. */
#define MOST_LARGE (SQS_MAX_RESOLUTION / TALLIED)

static void insert_descending(uint32_t *sorted, uint32_t n, uint32_t value)
{
    for (; n > 0 && sorted[n - 1] < value; n--)
        sorted[n] = sorted[n - 1];
    sorted[n] = value;
}

void sqs_make_groups(const uint32_t *counts, uint32_t k, sqs_groups *g)
{
    uint32_t tally[TALLIED] = {0}, large[MOST_LARGE], n = 0, most = 0;
    for (uint32_t i = 0; i < k; i++) {
        if (counts[i] >= TALLIED) {
            insert_descending(large, n++, counts[i]);
            continue;
        }
        tally[counts[i]]++;
        most = counts[i] > most ? counts[i] : most;
    }
    g->n = 0;
    for (uint32_t i = 0; i < n; i++)
        add_to_groups(g, large[i], 1);
    for (uint32_t count = most; count > 0; count--)
        if (tally[count] > 0)
            add_to_groups(g, count, tally[count]);
}

/* Partitions. */

/*
 * Splits are nodes of a tree. Nodes with a chance of their own have numbers:
 *
 *     depth 0            0
 *     depth 1        1       2        down is to the left, up to the right
 *     depth 2      3   4   5   6
 *     depth 3                    7
 *     depth 4                      8  ... to node 11 at depth 7
 *
 * At depths 3 to 7, only the node that is reached by ups has a chance of its
 * own. All other splits are even, and share the number NODES.
 */
#define NODES SQS_SPLIT_NODES
_Static_assert(SQS_SPLIT_CONTEXTS == SQS_SIZE_CLASSES * SQS_RATIO_CLASSES &&
                   SQS_SPLIT_FULL_DEPTH == 3 && SQS_SPLIT_TOP_DEPTH == 8 &&
                   NODES == 3 + 4 + 5,
               "a row for each context, a column for each node");

/* The node after each split: down, up. */
static const uint8_t next_nodes[NODES + 1][2] = {
    {1, 2},         {3, 4},         {5, 6},      {NODES, NODES},
    {NODES, NODES}, {NODES, NODES}, {NODES, 7},  {NODES, 8},
    {NODES, 9},     {NODES, 10},    {NODES, 11}, {NODES, NODES},
    {NODES, NODES},
};

/* log2(a / b), rounded down; 0 < b <= a. */
static uint32_t log_ratio(uint32_t a, uint32_t b)
{
    uint32_t log = sqs_floor_log2(a) - sqs_floor_log2(b);
    return log - (b << log > a);
}

/* Codes a count in low .. high; high <= left, the remaining resolution. */
SQS_INLINE uint32_t code_count(sqs_coder *c, uint32_t low, uint32_t high,
                               uint32_t left, uint32_t count)
{
    if (low == high)
        return low;
    uint32_t size = sqs_lesser(sqs_floor_log2(high), SQS_SIZE_CLASSES) - 1;
    uint32_t ratio = sqs_lesser(log_ratio(left, high), SQS_RATIO_CLASSES - 1);
    const uint8_t *row = sqs_split_chances[size * SQS_RATIO_CLASSES + ratio];
    uint32_t n = high - low + 1, at = low;
    for (uint32_t node = 0; n > 1;) {
        uint32_t chance = node < NODES ? row[node] : SQS_EVEN;
        uint32_t lower = (n + 1) / 2;
        bool up = sqs_code_bit(c, chance, count >= at + lower);
        at += lower & (0 - (uint32_t)up);
        n = lower - (n & up); /* for odd n, the lower half is larger */
        node = next_nodes[node][up];
    }
    return at;
}

/* Codes a partition: writing or metering reads `given`, reading writes
 * `found`. Returns the number of parts, or more than `limit`. After a part of
 * 1, all parts are 1. */
SQS_INLINE uint32_t code_partition(sqs_coder *c, uint32_t vocab_size,
                                   uint32_t resolution, uint32_t limit,
                                   const sqs_groups *given, sqs_groups *found)
{
    uint32_t left = resolution, last = resolution, parts = 0;
    uint32_t at = 0, used = 0;
    while (left > 0 && last > 1 && !c->truncated) {
        if (parts == limit)
            return limit + 1;
        uint32_t slots = vocab_size - parts;
        uint32_t low = slots < left ? (left + slots - 1) / slots : 1;
        uint32_t count = given ? given->count[at] : 0;
        last = code_count(c, low, sqs_lesser(last, left), left, count);
        if (found)
            add_to_groups(found, last, 1);
        else if (++used == given->size[at])
            at++, used = 0;
        left -= last;
        parts++;
    }
    if (found && left > 0)
        add_to_groups(found, 1, left);
    return parts + left;
}

/* These two functions compile code_partition for each mode, with a copy of the
 * coder that can stay in registers. This saves 10 % of the time. */

void sqs_write_partition(sqs_coder *c, uint32_t vocab_size,
                         uint32_t resolution, const sqs_groups *g)
{
    sqs_coder own = *c;
    if (c->mode == SQS_WRITE) {
        own.mode = SQS_WRITE;
        code_partition(&own, vocab_size, resolution, resolution, g, NULL);
    } else {
        own.mode = SQS_METER;
        code_partition(&own, vocab_size, resolution, resolution, g, NULL);
    }
    *c = own;
}

uint32_t sqs_read_partition(sqs_coder *c, uint32_t vocab_size,
                            uint32_t resolution, uint32_t limit, sqs_groups *g)
{
    sqs_coder own = *c;
    own.mode = SQS_READ;
    g->n = 0;
    uint32_t parts =
        code_partition(&own, vocab_size, resolution, limit, NULL, g);
    *c = own;
    return parts;
}

/* Arrangements. */

/* These two functions find the next token's color, when reading and when
 * writing. Both go over the colors in ascending order of counts, because most
 * tokens have small counts. *below becomes the number of balls passed. */

static uint32_t find_color(const sqs_coder *c, const sqs_groups *g,
                           uint32_t first, uint64_t unit, uint32_t *below)
{
    uint64_t code = c->code;
    uint32_t at = g->n - 1, passed = 0;
    while (at > first && code >= unit * g->size[at]) {
        code -= unit * g->size[at];
        passed += g->size[at--];
    }
    *below = passed;
    return at;
}

static uint32_t seek_color(const sqs_groups *g, uint32_t count,
                           uint32_t *below)
{
    uint32_t at = g->n - 1, passed = 0;
    while (g->count[at] != count)
        passed += g->size[at--];
    *below = passed;
    return at;
}

void sqs_code_arrangement(sqs_coder *c, sqs_groups *g, uint32_t k,
                          sqs_values counts)
{
    uint32_t first = 0; /* the largest count with a ball left */
    for (uint32_t left = k, i = 0; left > 0; left--, i++) {
        while (g->size[first] == 0)
            first++;
        while (g->size[g->n - 1] == 0)
            g->n--;
        uint32_t at = first, below = 0;
        if (first + 1 < g->n && sqs_coder_going(c)) {
            uint64_t unit = sqs_divide(c->range, left);
            at = c->mode == SQS_READ ? find_color(c, g, first, unit, &below)
                                     : seek_color(g, counts.given[i], &below);
            sqs_coder_narrow_to_value(c, unit, below, g->size[at],
                                      at == first);
        }
        if (counts.found)
            counts.found[i] = g->count[at];
        g->size[at]--;
    }
}
