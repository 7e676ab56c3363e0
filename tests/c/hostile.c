/*
 * hostile.c - a campaign of mutated packets against the two decoders.
 *
 *   hostile bitpack|enumerative COUNT SEED
 *
 * Each packet is a valid one with bits flipped, bytes replaced, an end cut off
 * or added, or the tail of another; a few are noise. It is read as what it was
 * made from, a distribution or a round. The packet ends where its heap block
 * ends and so do the outputs, so that AddressSanitizer sees any step beyond.
 *
 * Every distribution has one packet only. So whatever decodes must encode to
 * the same bytes again; anything else is a finding, printed and fatal. The
 * checksum covers all results: equal for equal arguments, whatever the build.
 */
#define _POSIX_C_SOURCE 199309L /* clock_gettime */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sqs.h"

/* Random numbers (xorshift64*, Vigna, arXiv 1402.6246). */

static uint64_t state;

static uint64_t next(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 2685821657736338717u;
}

/* Uniform in [0, n), but for a bias of n / 2^32. */
static uint32_t below(uint32_t n)
{
    return (uint32_t)((next() >> 32) * n >> 32);
}

/* Codecs under attack. */

/* Distributions have up to `most` survivors, rounds up to `length` of them.
 * A codec is chosen as often as its weight says; those that can take
 * milliseconds over a packet are rare. */
typedef struct target {
    uint32_t vocab_size, resolution, most, length, weight;
} target;

#define COMMON 8192u
#define SEVERAL 1024u
#define RARE 32u

static const target bitpack[] = {
    {2, 1, 1, 8, COMMON},
    {2, 65536, 2, 4, COMMON},
    {3, 3, 3, 4, COMMON},
    {5, 4, 4, 4, COMMON},
    {37, 300, 37, 2, COMMON},
    {256, 16, 16, 3, COMMON},
    {49152, 100, 12, 2, COMMON},
    {1u << 20, 1, 1, 4, COMMON},
    {1u << 20, 65536, 6, 3, COMMON},
    {(1u << 16) + 1, 65536, 6, 3, COMMON},
    {2, 1, 1, 256, RARE},
    {49152, 100, 100, 256, RARE},
    {1024, 65536, 1024, 2, RARE},
    {1u << 20, 65536, 65536, 1, 1},
    {65536, 65536, 65536, 1, 1},
};

static const target enumerative[] = {
    {2, 1, 1, 8, COMMON},
    {2, 65536, 2, 4, COMMON},
    {3, 3, 3, 4, COMMON},
    {5, 4, 4, 4, COMMON},
    {16, 16, 16, 2, COMMON},
    {37, 300, 6, 2, COMMON},
    {256, 16, 6, 2, COMMON},
    {49152, 16, 3, 2, COMMON},
    {1u << 20, 1, 1, 4, COMMON},
    {1u << 20, 8, 3, 2, COMMON},
    {1024, 1024, 3, 2, SEVERAL}, /* all ones: a round of dense supports */
    {2, 1, 1, 256, RARE},
    {49152, 100, 12, 8, RARE},
    {1u << 20, 65536, 6, 3, RARE},
    {49152, 100, 100, 2, RARE},
    {1u << 20, 65536, 1024, 1, 1},
    {1100, 1100, 1024, 1, 1},
    {1024, 65536, 1024, 1, 1},
};

/* Valid packets to mutate; fewer where they cost milliseconds to make. */
#define SEEDS 16u
#define DEAR_SEEDS 2u

typedef struct packet {
    size_t size;
    uint8_t *bytes;
} packet;

typedef struct campaign {
    sqs_codec codec;
    const target *target;
    packet seeds[2][SEEDS]; /* of distributions, of rounds */
    uint32_t n_seeds;
} campaign;

#define MAX_ADDED 32u

static uint32_t survivors[SQS_MAX_ROUND], positions[SQS_MAX_ROUND];

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (memory == NULL) {
        fprintf(stderr, "out of memory\n");
        exit(2);
    }
    return memory;
}

/* Memory for one packet at a time, which lies at the end of the block. */
typedef struct block {
    uint8_t *start;
    size_t size;
} block;

static block packet_block, again_block, ids_block, counts_block;

static void grow(block *b, size_t size)
{
    if (size <= b->size)
        return;
    free(b->start);
    *b = (block){allocate(size, 1), size};
}

static void *end_of(const block *b, size_t size)
{
    return b->start + (b->size - size);
}

/* Valid packets. */

/* A random share of `slack` when `parts` are still to be served. */
static uint32_t share(uint32_t slack, uint32_t parts)
{
    uint32_t drawn = below(2 * (slack / parts) + 2);
    return drawn < slack ? drawn : slack;
}

static void random_distribution(const campaign *c, uint32_t k, uint32_t *ids,
                                uint32_t *counts)
{
    uint32_t id = 0, free_ids = c->codec.vocab_size - k;
    uint32_t units = c->codec.resolution - k;
    for (uint32_t i = 0; i < k; i++) {
        uint32_t skipped = share(free_ids, k - i);
        uint32_t more = i + 1 < k ? share(units, k - i) : units;
        free_ids -= skipped;
        units -= more;
        id += skipped;
        ids[i] = id++;
        counts[i] = 1 + more;
    }
}

static packet make_seed(const campaign *c, bool round)
{
    const target *t = c->target;
    uint32_t length = round ? 1 + below(t->length) : 1;
    size_t room = (size_t)length * t->most, used = 0;
    uint32_t *ids = allocate(room, sizeof *ids);
    uint32_t *counts = allocate(room, sizeof *counts);
    for (uint32_t i = 0; i < length; i++) {
        survivors[i] = t->most > 1000 ? t->most : 1 + below(t->most);
        positions[i] = below(survivors[i]);
        random_distribution(c, survivors[i], ids + used, counts + used);
        used += survivors[i];
    }
    size_t bound = round ? sqs_encode_round_bound(&c->codec, length, used)
                         : sqs_encode_bound(&c->codec, survivors[0]);
    packet p = {0, allocate(bound, 1)};
    sqs_status status =
        round ? sqs_encode_round(&c->codec, length, ids, counts, survivors,
                                 positions, p.bytes, bound, &p.size)
              : sqs_encode(&c->codec, ids, counts, survivors[0], p.bytes,
                           bound, &p.size);
    if (status != SQS_OK) {
        fprintf(stderr, "no seed: %s\n", sqs_status_text(status));
        exit(2);
    }
    free(ids);
    free(counts);
    return p;
}

static void make_campaign(campaign *c, const target *t, sqs_coding coding)
{
    c->codec = (sqs_codec){t->vocab_size, t->resolution, coding};
    c->target = t;
    c->n_seeds = t->weight < RARE ? DEAR_SEEDS : SEEDS;
    for (uint32_t i = 0; i < c->n_seeds; i++)
        for (int round = 0; round < 2; round++)
            c->seeds[round][i] = make_seed(c, round);
}

/* Mutation. */

static void fill(uint8_t *bytes, size_t size)
{
    uint64_t noise = 0;
    for (size_t i = 0; i < size; i++, noise >>= 8) {
        if (i % 8 == 0)
            noise = next();
        bytes[i] = (uint8_t)noise;
    }
}

/* Half of all places lie in the first bytes, where sizes are. */
static size_t place(size_t size)
{
    size_t most = size > 4 && next() >> 63 ? 4 : size;
    return below((uint32_t)most);
}

static void splice(uint8_t *bytes, size_t size, const packet *tail)
{
    size_t from = place(size);
    size_t end = tail->size < size ? tail->size : size;
    if (from < end)
        memcpy(bytes + from, tail->bytes + from, end - from);
}

/* Sets one byte, or all from one on. */
static void run(uint8_t *bytes, size_t size, uint8_t value)
{
    size_t from = place(size);
    memset(bytes + from, value, below(2) ? 1 : size - from);
}

/* Writes a mutation of a seed to the end of packet_block. */
static packet mutate(const campaign *c, bool round)
{
    const packet *seed = &c->seeds[round][below(c->n_seeds)];
    enum { CUT, EXTEND, NOISE, EXTREME, SPLICE, FLIP } kind = below(8);
    size_t kept = kind == CUT ? place(seed->size + 1) : seed->size;
    size_t added = kind == EXTEND || kind == EXTREME ? below(MAX_ADDED) : 0;
    packet p = {kept + added, end_of(&packet_block, kept + added)};
    memcpy(p.bytes, seed->bytes, kept);
    fill(p.bytes + kept, added);
    switch (kind) {
    case CUT:
    case EXTEND:
        break;
    case NOISE:
        fill(p.bytes, p.size);
        break;
    case EXTREME:
        run(p.bytes, p.size, below(2) ? 0xff : 0);
        break;
    case SPLICE:
        splice(p.bytes, p.size, &c->seeds[round][below(c->n_seeds)]);
        break;
    default: /* one to three bits */
        for (uint32_t flips = kind - FLIP + 1; flips > 0; flips--)
            p.bytes[place(p.size)] ^= (uint8_t)(1u << below(8));
    }
    return p;
}

/* Attack. */

static uint64_t checksum;

static void note(uint64_t value)
{
    checksum = (checksum ^ value) * 1099511628211u; /* FNV-1a's prime */
}

static void note_all(const uint32_t *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        note(values[i]);
}

static bool equal(const packet *p, sqs_status status, size_t size,
                  const uint8_t *again)
{
    return status == SQS_OK && size == p->size &&
           memcmp(again, p->bytes, size) == 0;
}

/* Both return whether the decoder kept its promises. */

static bool attack_one(const campaign *c, const packet *p, sqs_status *status)
{
    uint32_t room = sqs_max_survivors(&c->codec), k;
    uint32_t *ids = end_of(&ids_block, room * sizeof *ids);
    uint32_t *counts = end_of(&counts_block, room * sizeof *counts);
    *status = sqs_decode(&c->codec, p->bytes, p->size, ids, counts, &k);
    note(*status);
    if (*status != SQS_OK)
        return *status <= SQS_COUNTS;
    note(k);
    note_all(ids, k);
    note_all(counts, k);
    uint8_t *again = end_of(&again_block, p->size);
    size_t size;
    sqs_status back =
        sqs_encode(&c->codec, ids, counts, k, again, p->size, &size);
    return equal(p, back, size, again);
}

static bool attack_round(const campaign *c, const packet *p,
                         sqs_status *status)
{
    size_t room = sqs_decode_round_bound(&c->codec, p->size), total = 0;
    uint32_t *ids = end_of(&ids_block, room * sizeof *ids);
    uint32_t *counts = end_of(&counts_block, room * sizeof *counts);
    uint32_t length;
    *status = sqs_decode_round(&c->codec, p->bytes, p->size, ids, counts,
                               room, survivors, positions, &length);
    note(*status);
    if (*status != SQS_OK)
        return *status <= SQS_ROUND_SUPPORT;
    for (uint32_t i = 0; i < length; i++)
        total += survivors[i];
    note_all(survivors, length);
    note_all(positions, length);
    note_all(ids, total);
    note_all(counts, total);
    uint8_t *again = end_of(&again_block, p->size);
    size_t size;
    sqs_status back =
        sqs_encode_round(&c->codec, length, ids, counts, survivors, positions,
                         again, p->size, &size);
    return equal(p, back, size, again);
}

static void report(const campaign *c, const packet *p, bool round,
                   sqs_status status)
{
    printf("FINDING: vocab_size %u, resolution %u, %s: %s\n",
           c->codec.vocab_size, c->codec.resolution,
           round ? "round" : "distribution", sqs_status_text(status));
    for (size_t i = 0; i < p->size; i++)
        printf("%02x", p->bytes[i]);
    printf("\n");
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#define MAX_CAMPAIGNS 32u

/* Blocks for all that can become of a campaign's packets. */
static void make_room(const campaign *c)
{
    size_t size = 0;
    for (uint32_t i = 0; i < c->n_seeds; i++)
        for (int round = 0; round < 2; round++)
            if (c->seeds[round][i].size > size)
                size = c->seeds[round][i].size;
    size += MAX_ADDED;
    size_t one = sqs_max_survivors(&c->codec);
    size_t many = sqs_decode_round_bound(&c->codec, size);
    size_t room = one > many ? one : many;
    grow(&packet_block, size);
    grow(&again_block, size);
    grow(&ids_block, room * sizeof(uint32_t));
    grow(&counts_block, room * sizeof(uint32_t));
}

typedef struct plan {
    campaign campaigns[MAX_CAMPAIGNS];
    uint32_t n, weight;
} plan;

static void make_plan(plan *all, sqs_coding coding)
{
    const target *targets = coding == SQS_BITPACK ? bitpack : enumerative;
    all->weight = 0;
    all->n = coding == SQS_BITPACK ? sizeof bitpack / sizeof *bitpack
                                   : sizeof enumerative / sizeof *enumerative;
    for (uint32_t i = 0; i < all->n; i++) {
        make_campaign(&all->campaigns[i], &targets[i], coding);
        all->weight += targets[i].weight;
        make_room(&all->campaigns[i]);
    }
}

/* Each campaign once, then as the weights say. */
static const campaign *choose(const plan *all, uint64_t i)
{
    if (i < all->n)
        return &all->campaigns[i];
    uint32_t drawn = below(all->weight), at = 0;
    while (drawn >= all->campaigns[at].target->weight)
        drawn -= all->campaigns[at++].target->weight;
    return &all->campaigns[at];
}

int main(int argc, char **argv)
{
    bool is_bitpack = argc == 4 && strcmp(argv[1], "bitpack") == 0;
    if (argc != 4 || (!is_bitpack && strcmp(argv[1], "enumerative") != 0)) {
        fprintf(stderr, "usage: hostile bitpack|enumerative COUNT SEED\n");
        return 2;
    }
    uint64_t count = strtoull(argv[2], NULL, 10);
    uint64_t seed = strtoull(argv[3], NULL, 10);
    state = (seed + 1) * 0x9e3779b97f4a7c15u; /* never 0 for seed < 2^64 - 1 */

    static plan all;
    make_plan(&all, is_bitpack ? SQS_BITPACK : SQS_ENUMERATIVE);
    uint64_t valid = 0;
    double start = seconds();
    for (uint64_t i = 0; i < count; i++) {
        const campaign *c = choose(&all, i);
        bool round = next() >> 63;
        packet p = mutate(c, round);
        sqs_status status;
        bool kept = round ? attack_round(c, &p, &status)
                          : attack_one(c, &p, &status);
        if (!kept) {
            report(c, &p, round, status);
            return 1;
        }
        valid += status == SQS_OK;
    }
    double rate = (double)count / (seconds() - start);
    printf("%s, seed %llu: %llu packets, %llu of them valid, %.0f per second, "
           "findings 0, checksum %016llx\n",
           argv[1], (unsigned long long)seed, (unsigned long long)count,
           (unsigned long long)valid, rate, (unsigned long long)checksum);
    return 0;
}
