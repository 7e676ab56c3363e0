/*
 * modes.c - counts and ids, each in the cheaper of two modes.
 *
 * Counts come first, ids second. The model's mode suits distributions of
 * language models: counts are a partition and its arrangement, see counts.c,
 * and ids a set with the weights of ids.c, see sets.c. For other distributions
 * there is a uniform mode, in which all sets of one size are equally likely:
 * sets of ids, and sets of the cuts of the resolution between the counts. The
 * writer estimates the cost of both modes. A bit names the mode: it costs 0.09
 * bits for the model and 4 for uniform. So in the worst case a distribution
 * takes 8 bits more than its rank.
 *
 * With a prior of several classes, modeled ids come after their class. Its
 * chance depends on the class of the distribution before.
 */
#include "entropy/modes.h"

#include "bits.h"
#include "entropy/counts.h"
#include "entropy/ids.h"
#include "entropy/sets.h"

/* Estimates. */

/* log2(n!) by Stirling's series; the constants are log2(e), log2(2 pi) / 2 and
 * log2(e) / 12. */
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

/* The cost of the bit that names the mode. */
static uint64_t mode_cost(bool uniform)
{
    return 8 * SQS_BIT -
           sqs_log2(uniform ? SQS_UNIFORM_CHANCE : 256 - SQS_UNIFORM_CHANCE);
}

/* Estimated costs of the two modes. */
typedef struct costs {
    uint64_t model, uniform;
    bool rough; /* the model's may be several bits too high */
} costs;

static bool uniform_is_cheaper(const costs *c)
{
    return c->uniform < c->model;
}

static costs counts_costs(uint32_t vocab_size, uint32_t resolution,
                          const sqs_groups *g, uint32_t k)
{
    sqs_coder meter = sqs_coder_meter();
    sqs_write_partition(&meter, vocab_size, resolution, g);
    uint32_t most = sqs_lesser(vocab_size, resolution);
    costs bits = {mode_cost(false) + meter.cost + log2_factorial(k),
                  mode_cost(true) + sqs_log2(most) +
                      log2_binomial(resolution - 1, k - 1),
                  false};
    for (uint32_t i = 0; i < g->n; i++)
        bits.model -= log2_factorial(g->size[i]);
    return bits;
}

/* The class that an encoder chooses for a distribution's ids after the class
 * `last`, or 0 if none is coded. */
static uint32_t choose_class(const sqs_prior *prior, uint32_t last,
                             const uint32_t *ids, uint32_t k)
{
    return sqs_coded_classes(prior) > 0 ? sqs_prior_choose(prior, last, ids, k)
                                        : 0;
}

static uint64_t class_cost(const sqs_prior *prior, uint32_t last,
                           uint32_t in_class)
{
    uint32_t n = sqs_coded_classes(prior);
    return n > 0 ? sqs_prior_chance_cost(sqs_prior_starts(prior, last), n,
                                         in_class)
                 : 0;
}

static costs ids_costs(const sqs_ids *m, uint32_t vocab_size, uint32_t last,
                       const uint32_t *ids, uint32_t k,
                       sqs_logs known[SQS_KNOWN_LOGS])
{
    sqs_members_cost cost = sqs_cost_of_members(m, vocab_size, ids, k, known);
    return (costs){mode_cost(false) + class_cost(m->prior, last, m->in_class) +
                       cost.bits,
                   mode_cost(true) + log2_binomial(vocab_size, k), cost.rough};
}

sqs_cost sqs_entropy_cost(const sqs_codec *codec, const uint32_t *ids,
                          const uint32_t *counts, uint32_t k)
{
    sqs_groups g;
    sqs_make_groups(counts, k, &g);
    costs a = counts_costs(codec->vocab_size, codec->resolution, &g, k);
    sqs_ids m;
    sqs_make_ids(&m, codec, choose_class(codec->prior, 0, ids, k), NULL);
    sqs_logs known[SQS_KNOWN_LOGS];
    costs b = ids_costs(&m, codec->vocab_size, 0, ids, k, known);
    bool uniform_counts = uniform_is_cheaper(&a);
    bool uniform_ids = uniform_is_cheaper(&b);
    return (sqs_cost){(uniform_counts ? a.uniform : a.model) +
                          (uniform_ids ? b.uniform : b.model),
                      !uniform_counts && !uniform_ids && !b.rough};
}

/* Counts. */

/* Codes counts in the uniform mode: their number k, and the set of the k - 1
 * cuts of the resolution into k parts. */
static uint32_t code_composition(sqs_coder *c, uint32_t vocab_size,
                                 uint32_t resolution, sqs_values counts,
                                 uint32_t k, uint32_t limit)
{
    uint32_t most = sqs_lesser(vocab_size, resolution);
    k = 1 + sqs_code_uniform(c, most, k - 1);
    if (c->truncated || k > limit)
        return k;
    sqs_code_uniform_set(c, k - 1, resolution - 1, counts, true);
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
    sqs_values given = {counts, NULL};
    sqs_groups g;
    sqs_make_groups(counts, k, &g);
    costs bits = counts_costs(vocab_size, resolution, &g, k);
    if (sqs_code_bit(c, SQS_UNIFORM_CHANCE, uniform_is_cheaper(&bits))) {
        code_composition(c, vocab_size, resolution, given, k, k);
        return;
    }
    sqs_write_partition(c, vocab_size, resolution, &g);
    sqs_code_arrangement(c, &g, k, given);
}

uint32_t sqs_read_counts(sqs_coder *c, uint32_t vocab_size,
                         uint32_t resolution, uint32_t *counts, uint32_t limit)
{
    sqs_values found = {NULL, counts};
    if (sqs_code_bit(c, SQS_UNIFORM_CHANCE, false))
        return code_composition(c, vocab_size, resolution, found, 1, limit);
    sqs_groups g;
    uint32_t k = sqs_read_partition(c, vocab_size, resolution, limit, &g);
    if (!c->truncated && k <= limit)
        sqs_code_arrangement(c, &g, k, found);
    return k;
}

/* Ids. */

/* Codes the class of ids, and remembers it for the next distribution. */
static uint32_t code_class(sqs_coder *c, const sqs_prior *prior,
                           sqs_memory *memory, uint32_t in_class)
{
    uint32_t n = sqs_coded_classes(prior);
    if (n == 0 || !sqs_coder_going(c))
        return 0;
    const uint16_t *starts = sqs_prior_starts(prior, memory->last);
    uint64_t unit = c->range / starts[n];
    if (c->mode == SQS_READ)
        for (in_class = 0;
             in_class + 1 < n && unit * starts[in_class + 1] <= c->code;)
            in_class++;
    uint32_t chance = (uint32_t)(starts[in_class + 1] - starts[in_class]);
    sqs_coder_narrow_to_value(c, unit, starts[in_class], chance,
                              in_class + 1 == n);
    memory->last = 1 + in_class;
    return in_class;
}

void sqs_write_ids(sqs_coder *c, const sqs_codec *codec, sqs_memory *memory,
                   const uint32_t *ids, uint32_t k)
{
    sqs_values given = {ids, NULL};
    uint32_t in_class = choose_class(codec->prior, memory->last, ids, k);
    sqs_ids m;
    sqs_make_ids(&m, codec, in_class, memory);
    sqs_logs known[SQS_KNOWN_LOGS];
    costs bits = ids_costs(&m, codec->vocab_size, memory->last, ids, k, known);
    if (sqs_code_bit(c, SQS_UNIFORM_CHANCE, uniform_is_cheaper(&bits))) {
        sqs_code_uniform_set(c, k, codec->vocab_size, given, false);
        return;
    }
    code_class(c, codec->prior, memory, in_class);
    sqs_write_members(c, &m, codec->vocab_size, ids, k, known);
}

void sqs_read_ids(sqs_coder *c, const sqs_codec *codec, sqs_memory *memory,
                  uint32_t *ids, uint32_t k)
{
    sqs_values found = {NULL, ids};
    if (sqs_code_bit(c, SQS_UNIFORM_CHANCE, false)) {
        sqs_code_uniform_set(c, k, codec->vocab_size, found, false);
        return;
    }
    uint32_t in_class = code_class(c, codec->prior, memory, 0);
    sqs_ids m;
    sqs_make_ids(&m, codec, in_class, memory);
    sqs_read_members(c, &m, codec->vocab_size, ids, k);
}

/* Positions. */

uint32_t sqs_code_position(sqs_coder *c, const uint32_t *counts, uint32_t k,
                           uint32_t resolution, uint32_t position)
{
    if (!sqs_coder_going(c))
        return 0;
    uint64_t unit = c->range / resolution;
    uint64_t target = c->mode == SQS_READ ? c->code / unit : 0;
    uint32_t at = 0, below = 0;
    while (c->mode == SQS_READ ? at + 1 < k && target >= below + counts[at]
                               : at < position)
        below += counts[at++];
    sqs_coder_narrow_to_value(c, unit, below, counts[at], at + 1 == k);
    return at;
}
