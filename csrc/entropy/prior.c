/*
 * prior.c - priors: loads a file into tables, and looks ids up in them.
 *
 * A file gives each id a kind, and each kind a weight in every class. The sums
 * of the weights of all lower ids would be up to 32 million numbers. Only
 * every SQS_PRIOR_BLOCK-th is stored, and the rest is added up on demand. To
 * find an id from such a sum, guides give the blocks of 2^GUIDE_BITS evenly
 * spaced sums. Most ids that are searched for are heavy: their blocks span
 * more than one guide, so that only the block is left to search. (Chen and
 * Asau, "On generating random variates from an empirical distribution", 1974.)
 */
#include "entropy/prior.h"

#include <stdbool.h>
#include <string.h>

#include "entropy/crc.h"
#include "entropy/fixed.h"

#define KINDS 256u
#define CLASSES SQS_MAX_PRIOR_CLASSES

#define GUIDE_BITS 10u
#define GUIDES ((1u << GUIDE_BITS) + 1)
_Static_assert(SQS_MAX_VOCAB / SQS_PRIOR_BLOCK - 1 <= UINT16_MAX,
               "a guide can name every block");

/* Values of all classes are added two per word, as no sum exceeds 32 bits. */
#define WORDS (CLASSES / 2)

/* Rows are padded to groups of this many words, which are added together. */
#define GROUP 4u
_Static_assert(CLASSES % (2 * GROUP) == 0, "rows are whole groups");

/* Costs in units of 2^-16 bits. */
#define COST_SHIFT (SQS_LOG_UNIT - 16)

/* The file. */

#define VERSION 1u
#define HEADER 14u
#define CHECK 4u

static const uint8_t magic[8] = {'s', 'q', 's', 'p', 'r', 'i', 'o', 'r'};

static uint32_t get_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 |
           (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* The parts of a file. */
typedef struct contents {
    uint32_t vocab_size, classes;
    const uint8_t *chances, *codes, *kinds, *check;
} contents;

static bool read_header(const uint8_t *file, size_t size, contents *f)
{
    if (size < HEADER || memcmp(file, magic, sizeof magic) != 0 ||
        file[8] != VERSION)
        return false;
    f->classes = file[9];
    f->vocab_size = get_u32(file + 10);
    return f->classes >= 1 && f->classes <= CLASSES &&
           f->vocab_size >= SQS_MIN_VOCAB && f->vocab_size <= SQS_MAX_VOCAB;
}

static bool find_parts(const uint8_t *file, size_t size, contents *f)
{
    size_t codes = HEADER + (f->classes + 1) * f->classes;
    size_t kinds = codes + KINDS * f->classes;
    size_t check = kinds + f->vocab_size;
    if (size != check + CHECK)
        return false;
    f->chances = file + HEADER;
    f->codes = file + codes;
    f->kinds = file + kinds;
    f->check = file + check;
    return true;
}

static uint32_t weight_of(uint8_t code)
{
    return (uint32_t)(((uint64_t)(8 + code % 8) << (code / 8)) / 8);
}

/* Whether the weights of each class sum to at most 2^31. */
static bool weights_fit(const contents *f)
{
    uint32_t ids_of[KINDS] = {0};
    for (uint32_t i = 0; i < f->vocab_size; i++)
        ids_of[f->kinds[i]]++;
    for (uint32_t c = 0; c < f->classes; c++) {
        uint64_t whole = 0;
        for (uint32_t j = 0; j < KINDS; j++)
            whole += (uint64_t)ids_of[j] * weight_of(f->codes[KINDS * c + j]);
        if (whole > SQS_ONE)
            return false;
    }
    return true;
}

static bool read_file(const uint8_t *file, size_t size, contents *f)
{
    if (!read_header(file, size, f) || !find_parts(file, size, f) ||
        sqs_crc32(file, size - CHECK) != get_u32(f->check))
        return false;
    for (uint32_t i = 0; i < (f->classes + 1) * f->classes; i++)
        if (f->chances[i] == 0)
            return false;
    return weights_fit(f);
}

/* The tables, one after the other, wider values first. */

typedef struct tables {
    uint64_t *costs, *chance_costs;
    uint32_t *weights, *sums;
    uint16_t *starts, *guides;
    uint8_t *ratios, *kinds;
} tables;

static uint32_t blocks_of(uint32_t vocab_size)
{
    return (vocab_size + SQS_PRIOR_BLOCK - 1) / SQS_PRIOR_BLOCK;
}

/* The last of a row's sums is the total. */
static uint32_t sums_of(uint32_t vocab_size)
{
    return blocks_of(vocab_size) + 1;
}

/* The words of a row with a value of each class. */
static uint32_t words_of(uint32_t classes)
{
    return (classes + 2 * GROUP - 1) / (2 * GROUP) * GROUP;
}

/* The number of values in each table. */
typedef struct sizes {
    size_t costs, chance_costs, weights, sums, starts, guides, ratios, kinds;
} sizes;

static sizes sizes_of(const contents *f)
{
    size_t n = f->classes, words = words_of(f->classes);
    return (sizes){.costs = KINDS * words,
                   .chance_costs = (n + 1) * words,
                   .weights = n * KINDS,
                   .sums = n * sums_of(f->vocab_size),
                   .starts = (n + 1) * (n + 1),
                   .guides = n * GUIDES,
                   .ratios = n * KINDS,
                   .kinds = f->vocab_size};
}

size_t sqs_prior_memory(const uint8_t *file, size_t size)
{
    contents f;
    if (!read_header(file, size, &f))
        return 0;
    sizes n = sizes_of(&f);
    return sizeof(sqs_prior) + (n.costs + n.chance_costs) * sizeof(uint64_t) +
           (n.weights + n.sums) * sizeof(uint32_t) +
           (n.starts + n.guides) * sizeof(uint16_t) + n.ratios + n.kinds;
}

static tables lay_out(const contents *f, void *memory)
{
    sizes n = sizes_of(f);
    tables t = {.costs = (void *)((sqs_prior *)memory + 1)};
    t.chance_costs = t.costs + n.costs;
    void *end = t.chance_costs + n.chance_costs;
    t.weights = end;
    t.sums = t.weights + n.weights;
    end = t.sums + n.sums;
    t.starts = end;
    t.guides = t.starts + n.starts;
    end = t.guides + n.guides;
    t.ratios = end;
    t.kinds = t.ratios + n.ratios;
    return t;
}

/* Values of all classes, two per word. */

static void set_value(uint64_t *row, uint32_t c, uint32_t value)
{
    row[c / 2] |= (uint64_t)value << (c % 2 * 32);
}

static uint32_t value_of(const uint64_t *row, uint32_t c)
{
    return (uint32_t)(row[c / 2] >> (c % 2 * 32));
}

/* Adds the rows of n kinds to sums. */
static void add_rows(uint64_t *sums, const uint64_t *rows, uint32_t words,
                     const uint8_t *kinds, uint32_t n)
{
    for (uint32_t first = 0; first < words; first += GROUP) {
        uint64_t *to = sums + first;
        uint64_t a = to[0], b = to[1], c = to[2], d = to[3];
        for (uint32_t i = 0; i < n; i++) {
            const uint64_t *row = rows + kinds[i] * words + first;
            a += row[0];
            b += row[1];
            c += row[2];
            d += row[3];
        }
        to[0] = a;
        to[1] = b;
        to[2] = c;
        to[3] = d;
    }
}

/* Sums all classes at the same time. Meanwhile the room for costs holds the
 * weights. */
static void fill_sums(const contents *f, const tables *t)
{
    uint32_t words = words_of(f->classes), blocks = blocks_of(f->vocab_size);
    uint32_t stride = sums_of(f->vocab_size);
    uint64_t sums[WORDS] = {0};
    memset(t->costs, 0, (size_t)KINDS * words * sizeof *t->costs);
    for (uint32_t c = 0; c < f->classes; c++)
        for (uint32_t j = 0; j < KINDS; j++)
            set_value(t->costs + j * words, c, t->weights[KINDS * c + j]);
    for (uint32_t block = 0; block < stride; block++) {
        uint32_t start = block * SQS_PRIOR_BLOCK;
        for (uint32_t c = 0; c < f->classes; c++)
            t->sums[c * stride + block] = value_of(sums, c);
        if (block < blocks)
            add_rows(sums, t->costs, words, f->kinds + start,
                     sqs_lesser(f->vocab_size - start, SQS_PRIOR_BLOCK));
    }
}

/* A sum below `whole`, shifted right by this, has at most GUIDE_BITS bits and
 * is the index of its guide. */
static uint32_t guide_shift(uint32_t whole)
{
    uint32_t bits = sqs_floor_log2(whole) + 1;
    return bits > GUIDE_BITS ? bits - GUIDE_BITS : 0;
}

/* A guide is the last block that begins at or before the guide's sum. */
static void fill_guides(const uint32_t *sums, uint32_t blocks,
                        uint16_t *guides)
{
    uint32_t shift = guide_shift(sums[blocks]), block = 0;
    for (uint32_t i = 0; i < GUIDES; i++) {
        while (block + 1 < blocks && sums[block + 1] <= (uint64_t)i << shift)
            block++;
        guides[i] = (uint16_t)block;
    }
}

/* A kind's weight in a class relative to its weight in class 0, which covers
 * all contexts; in units of 1/16. */
static uint8_t ratio(uint64_t own, uint64_t own_whole, uint64_t usual,
                     uint64_t usual_whole)
{
    const uint64_t least = 4, most = 64;
    uint64_t below = usual * own_whole / 16;
    uint64_t times = own * usual_whole / (below > 1 ? below : 1);
    return (uint8_t)(times < least ? least : times < most ? times : most);
}

static void fill_ratios(const contents *f, const tables *t)
{
    uint32_t stride = sums_of(f->vocab_size);
    const uint32_t *wholes = t->sums + stride - 1;
    for (uint32_t c = 0; c < f->classes; c++)
        for (uint32_t j = 0; j < KINDS; j++)
            t->ratios[KINDS * c + j] =
                ratio(t->weights[KINDS * c + j], wholes[c * stride],
                      t->weights[j], wholes[0]);
}

static void fill_costs(const contents *f, const tables *t)
{
    uint32_t words = words_of(f->classes);
    uint32_t stride = sums_of(f->vocab_size);
    memset(t->costs, 0, (size_t)KINDS * words * sizeof *t->costs);
    for (uint32_t c = 0; c < f->classes; c++) {
        uint64_t most = sqs_log2(t->sums[c * stride + stride - 1]);
        for (uint32_t j = 0; j < KINDS; j++) {
            uint64_t log = sqs_log2(t->weights[KINDS * c + j]);
            uint64_t cost = log < most ? (most - log) >> COST_SHIFT : 0;
            set_value(t->costs + j * words, c, (uint32_t)cost);
        }
    }
}

static void fill_chances(const contents *f, const tables *t)
{
    uint32_t n = f->classes, words = words_of(n);
    memset(t->chance_costs, 0, (n + 1) * words * sizeof *t->chance_costs);
    for (uint32_t last = 0; last <= n; last++) {
        const uint8_t *row = f->chances + last * n;
        uint16_t *starts = t->starts + last * (n + 1);
        starts[0] = 0;
        for (uint32_t c = 0; c < n; c++)
            starts[c + 1] = (uint16_t)(starts[c] + row[c]);
        for (uint32_t c = 0; c < n; c++) {
            uint64_t cost = sqs_prior_chance_cost(starts, n, c) >> COST_SHIFT;
            set_value(t->chance_costs + last * words, c, (uint32_t)cost);
        }
    }
}

sqs_status sqs_load_prior(const uint8_t *file, size_t size, void *memory,
                          const sqs_prior **prior)
{
    contents f;
    if (!read_file(file, size, &f))
        return SQS_BAD_PRIOR;
    tables t = lay_out(&f, memory);
    uint32_t blocks = blocks_of(f.vocab_size), stride = sums_of(f.vocab_size);
    for (uint32_t i = 0; i < KINDS * f.classes; i++)
        t.weights[i] = weight_of(f.codes[i]);
    memcpy(t.kinds, f.kinds, f.vocab_size);
    fill_sums(&f, &t);
    for (uint32_t c = 0; c < f.classes; c++)
        fill_guides(t.sums + c * stride, blocks, t.guides + c * GUIDES);
    fill_ratios(&f, &t);
    fill_costs(&f, &t);
    fill_chances(&f, &t);
    sqs_prior *made = memory;
    *made = (sqs_prior){
        .vocab_size = f.vocab_size,
        .classes = f.classes,
        .costs_stride = words_of(f.classes),
        .sums_stride = stride,
        .weights = t.weights,
        .sums = t.sums,
        .costs = t.costs,
        .chance_costs = t.chance_costs,
        .starts = t.starts,
        .guides = t.guides,
        .ratios = t.ratios,
        .kinds = t.kinds,
    };
    *prior = made;
    return SQS_OK;
}

/* Looking up. */

uint32_t sqs_prior_seek(const sqs_prior *p, uint32_t in_class, uint32_t id,
                        sqs_prior_place *place)
{
    const uint32_t *weights = p->weights + KINDS * in_class;
    uint32_t block = id / SQS_PRIOR_BLOCK;
    uint32_t below = p->sums[in_class * p->sums_stride + block];
    for (uint32_t at = block * SQS_PRIOR_BLOCK; at < id; at++)
        below += weights[p->kinds[at]];
    *place = (sqs_prior_place){id, below};
    return below;
}

/* What the guides say about the block that holds a sum. */
typedef struct hint {
    uint32_t sum;
    uint32_t low, high; /* the first and the last possible block */
    uint32_t about;     /* the right block if all are equally heavy */
} hint;

static hint ask_guides(const sqs_prior *p, uint32_t in_class, uint64_t below)
{
    uint32_t whole = sqs_prior_whole(p, in_class);
    uint32_t sum = below < whole ? (uint32_t)below : whole - 1;
    uint32_t shift = guide_shift(whole);
    const uint16_t *guide = p->guides + in_class * GUIDES + (sum >> shift);
    uint64_t past = sum & (((uint64_t)1 << shift) - 1);
    uint32_t n = (uint32_t)(guide[1] - guide[0]);
    return (hint){sum, guide[0], guide[1],
                  guide[0] + (uint32_t)(past * n >> shift)};
}

uint32_t sqs_prior_id_about(const sqs_prior *p, uint32_t in_class,
                            uint64_t below)
{
    return ask_guides(p, in_class, below).about * SQS_PRIOR_BLOCK;
}

/* The last block that begins at or before the sum. */
static uint32_t find_block(const uint32_t *sums, const hint *h)
{
    uint32_t block = h->low; /* it is this block or one of the next n */
    for (uint32_t n = h->high - h->low; n > 0;) {
        uint32_t half = n - n / 2;
        block += sums[block + half] <= h->sum ? half : 0;
        n -= half;
    }
    return block;
}

uint32_t sqs_prior_id(const sqs_prior *p, uint32_t in_class, uint64_t below,
                      sqs_prior_place *place)
{
    const uint32_t *weights = p->weights + KINDS * in_class;
    const uint32_t *sums = p->sums + in_class * p->sums_stride;
    hint h = ask_guides(p, in_class, below);
    uint32_t block = find_block(sums, &h);
    uint32_t id = block * SQS_PRIOR_BLOCK, left = h.sum - sums[block];
    for (; left >= weights[p->kinds[id]]; id++)
        left -= weights[p->kinds[id]];
    *place = (sqs_prior_place){id, h.sum - left};
    return id;
}

/* The most costs of ids that fit 32 bits in total, together with the cost of a
 * class. Each is the cost of a chance of at least 2^-31. */
#define MOST_COSTS 256u
_Static_assert((MOST_COSTS + 1) * (SQS_POWER_UNIT * SQS_BIT >> COST_SHIFT) <=
                   UINT32_MAX,
               "costs do not overflow");

uint32_t sqs_prior_choose(const sqs_prior *p, uint32_t last,
                          const uint32_t *ids, uint32_t k)
{
    uint64_t totals[CLASSES] = {0}, sums[WORDS];
    uint8_t kinds[MOST_COSTS];
    uint32_t words = p->costs_stride;
    memcpy(sums, p->chance_costs + last * words, words * sizeof *sums);
    for (uint32_t n; k > 0; k -= n, ids += n) {
        n = sqs_lesser(k, MOST_COSTS);
        for (uint32_t i = 0; i < n; i++)
            kinds[i] = p->kinds[ids[i]];
        add_rows(sums, p->costs, words, kinds, n);
        for (uint32_t c = 0; c < p->classes; c++)
            totals[c] += value_of(sums, c);
        memset(sums, 0, words * sizeof *sums);
    }
    uint64_t least = UINT64_MAX; /* total * CLASSES + class */
    for (uint32_t c = 0; c < p->classes; c++)
        least =
            totals[c] * CLASSES + c < least ? totals[c] * CLASSES + c : least;
    return (uint32_t)(least % CLASSES);
}
