/*
 * hostile.c - a campaign of mutated packets against the decoders.
 *
 *   hostile bitpack|enumerative|entropy|prior COUNT SEED
 *
 * Each packet is a valid one with bits flipped, bytes replaced, an end cut off
 * or added, or the tail of another; a few are noise. It is read as what it was
 * made from: a distribution, a round or a sequence. One in FRESH is valid, and new among those that are mutated.
 *
 * "prior" is the entropy coding with priors; there, one attempt in FILES is a
 * mutated prior file, whose check is mostly made right.
 *
 * attack.h says what is asserted. Anything else is a finding, printed and
 * fatal. The checksum covers all results: equal for equal arguments, whatever
 * the build.
 */
#define _POSIX_C_SOURCE 199309L /* clock_gettime */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "priors.h"
#include "valid.h"

/* Codecs under attack. */

/* Distributions have up to `most` survivors, other kinds up to `length` of
 * them.
 * A codec is chosen as often as its weight says; those that can take
 * milliseconds over a packet are rare. */
typedef struct target {
    uint32_t vocab_size, resolution, most, length, weight;
    uint32_t classes; /* of its prior; 0 for none */
} target;

#define COMMON 8192u
#define SEVERAL 1024u
#define RARE 32u

/* A codec a line. */
/* clang-format off */
static const target bitpack[] = {
    {2, 1, 1, 8, COMMON, 0},
    {2, 65536, 2, 4, COMMON, 0},
    {3, 3, 3, 4, COMMON, 0},
    {5, 4, 4, 4, COMMON, 0},
    {37, 300, 37, 2, COMMON, 0},
    {256, 16, 16, 3, COMMON, 0},
    {49152, 100, 12, 2, COMMON, 0},
    {1u << 20, 1, 1, 4, COMMON, 0},
    {1u << 20, 65536, 6, 3, COMMON, 0},
    {(1u << 16) + 1, 65536, 6, 3, COMMON, 0},
    {2, 1, 1, 256, RARE, 0},
    {49152, 100, 100, 256, RARE, 0},
    {1024, 65536, 1024, 2, RARE, 0},
    {1u << 20, 65536, 65536, 1, 1, 0},
    {65536, 65536, 65536, 1, 1, 0},
};

static const target enumerative[] = {
    {2, 1, 1, 8, COMMON, 0},
    {2, 65536, 2, 4, COMMON, 0},
    {3, 3, 3, 4, COMMON, 0},
    {5, 4, 4, 4, COMMON, 0},
    {16, 16, 16, 2, COMMON, 0},
    {37, 300, 6, 2, COMMON, 0},
    {256, 16, 6, 2, COMMON, 0},
    {49152, 16, 3, 2, COMMON, 0},
    {1u << 20, 1, 1, 4, COMMON, 0},
    {1u << 20, 8, 3, 2, COMMON, 0},
    {1024, 1024, 3, 2, SEVERAL, 0}, /* all ones: a round of dense supports */
    {2, 1, 1, 256, RARE, 0},
    {49152, 100, 12, 8, RARE, 0},
    {1u << 20, 65536, 6, 3, RARE, 0},
    {49152, 100, 100, 2, RARE, 0},
    {1u << 20, 65536, 1024, 1, 1, 0},
    {1100, 1100, 1024, 1, 1, 0},
    {1024, 65536, 1024, 1, 1, 0},
};

static const target entropy[] = {
    {2, 1, 1, 8, COMMON, 0},
    {2, 65536, 2, 4, COMMON, 0},
    {3, 3, 3, 4, COMMON, 0},
    {5, 4, 4, 4, COMMON, 0},
    {37, 300, 37, 2, COMMON, 0},
    {256, 16, 16, 3, COMMON, 0},
    {49152, 100, 12, 4, COMMON, 0},
    {1u << 20, 1, 1, 4, COMMON, 0},
    {1u << 20, 65536, 6, 3, SEVERAL, 0},
    {(1u << 16) + 1, 65536, 6, 3, SEVERAL, 0},
    {300, 300, 300, 2, SEVERAL, 0},
    {2, 1, 1, 256, RARE, 0},
    {49152, 100, 100, 256, RARE, 0},
    {1024, 65536, 1024, 2, RARE, 0},
    {1u << 20, 65536, 65536, 1, 1, 0},
    {65536, 65536, 65536, 16, 8, 0}, /* all ones: a round of dense supports */
};

static const target prior[] = {
    {2, 1, 1, 8, COMMON, 1},
    {2, 65536, 2, 4, COMMON, 2},
    {3, 3, 3, 4, COMMON, 5},
    {17, 100, 17, 4, COMMON, 2},
    {37, 300, 37, 2, COMMON, 32},
    {256, 16, 16, 3, COMMON, 9},
    {1000, 100, 12, 4, COMMON, 1},
    {49152, 100, 12, 4, COMMON, 5},
    {(1u << 16) + 1, 65536, 6, 3, SEVERAL, 3},
    {300, 300, 300, 2, SEVERAL, 31},
    {1u << 20, 65536, 6, 3, SEVERAL, 2},
    {3, 1, 1, 256, RARE, 2},
    {49152, 100, 100, 256, RARE, 32},
    {1024, 65536, 1024, 2, RARE, 8},
    {65536, 65536, 65536, 16, 1, 2},
};

/* clang-format on */

#define FILES 16u

/* Valid packets to mutate; fewer where they cost milliseconds to make. */
#define SEEDS 16u
#define DEAR_SEEDS 2u

/* One packet of so many is valid. */
#define FRESH 16u

typedef struct seed {
    block room;
    packet packet;
} seed;

typedef struct campaign {
    sqs_codec codec;
    const target *target;
    holder prior;
    seed seeds[KINDS][SEEDS];
    uint32_t n_seeds;
} campaign;

#define MAX_ADDED 32u

/* A packet that attacks, and what it attacks. */
typedef struct attempt {
    const sqs_codec *codec;
    kind k;
    packet packet;
    sqs_status status;
    const char *wrong; /* null if all is right */
} attempt;

static const char *const kind_names[] = {"distribution", "round", "sequence"};

static void report(const attempt *a)
{
    printf("FINDING: vocab_size %u, resolution %u, %s: %s, %s\n",
           a->codec->vocab_size, a->codec->resolution, kind_names[a->k],
           sqs_status_text(a->status), a->wrong);
    for (size_t i = 0; i < a->packet.size; i++)
        printf("%02x", a->packet.bytes[i]);
    printf("\n");
}

/* Valid packets. */

/* Replaces a seed by a new one, made of `c`. */
static sqs_status renew(campaign *from, kind k, seed *s, content *c)
{
    const target *t = from->target;
    bool dense = t->weight < RARE || t->most > 256;
    shape looks = {t->most, t->length, dense};
    random_content(&from->codec, k, &looks, c);
    size_t bound = packet_bound(&from->codec, k, c);
    s->packet.bytes = take(&s->room, bound);
    return write_packet(&from->codec, k, c, s->packet.bytes, bound,
                        &s->packet.size);
}

static void make_campaign(campaign *c, const target *t, sqs_coding coding)
{
    static content made;
    c->codec = (sqs_codec){t->vocab_size, t->resolution, coding, NULL};
    if (t->classes > 0)
        c->codec.prior =
            make_prior(t->vocab_size, t->classes, t->length, &c->prior);
    c->target = t;
    c->n_seeds = t->weight < RARE ? DEAR_SEEDS : SEEDS;
    for (uint32_t i = 0; i < c->n_seeds; i++)
        for (kind k = DISTRIBUTION; k < kinds_of(&c->codec); k++) {
            sqs_status status = renew(c, k, &c->seeds[k][i], &made);
            if (status != SQS_OK) {
                fprintf(stderr, "no seed: %s\n", sqs_status_text(status));
                exit(2);
            }
        }
}

/* Mutation. */

static void fill(uint8_t *bytes, size_t size)
{
    uint64_t noise = 0;
    for (size_t i = 0; i < size; i++, noise >>= 8) {
        if (i % 8 == 0)
            noise = random_bits();
        bytes[i] = (uint8_t)noise;
    }
}

/* Half of all places lie in the first bytes, where sizes are. */
static size_t place(size_t size)
{
    size_t most = size > 4 && random_bits() >> 63 ? 4 : size;
    return random_below((uint32_t)most);
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
    memset(bytes + from, value, random_below(2) ? 1 : size - from);
}

/* The packet lasts until the next one. */
static packet mutate(const packet *from, const packet *other)
{
    static block room;
    enum { CUT, EXTEND, NOISE, EXTREME, SPLICE, FLIP } way = random_below(8);
    size_t kept = way == CUT ? place(from->size + 1) : from->size;
    size_t added =
        way == EXTEND || way == EXTREME ? random_below(MAX_ADDED) : 0;
    packet p = {kept + added, take(&room, kept + added)};
    memcpy(p.bytes, from->bytes, kept);
    fill(p.bytes + kept, added);
    switch (way) {
    case CUT:
    case EXTEND:
        break;
    case NOISE:
        fill(p.bytes, p.size);
        break;
    case EXTREME:
        run(p.bytes, p.size, random_below(2) ? 0xff : 0);
        break;
    case SPLICE:
        splice(p.bytes, p.size, other);
        break;
    default: /* one to three bits */
        for (uint32_t flips = way - FLIP + 1; flips > 0; flips--)
            p.bytes[place(p.size)] ^= (uint8_t)(1u << random_below(8));
    }
    return p;
}

/* Attack. */

static void attack_valid(campaign *c, seed *s, attempt *a)
{
    static content made, got;
    static block room;
    a->status = renew(c, a->k, s, &made);
    if (a->status != SQS_OK) {
        a->packet.size = 0;
        a->wrong = "from the encoder for something valid";
        return;
    }
    a->packet = (packet){s->packet.size, take(&room, s->packet.size)};
    memcpy(a->packet.bytes, s->packet.bytes, s->packet.size);
    a->wrong = attack(a->codec, a->k, &a->packet, &got, &a->status);
    if (a->wrong == NULL &&
        (a->status != SQS_OK || !same_content(&made, &got)))
        a->wrong = "which isn't what it was made of";
    if (a->wrong == NULL)
        a->wrong = attack_around(a->codec, a->k, &a->packet, &got);
}

static void attack_mutated(campaign *c, const seed *s, attempt *a)
{
    static content got;
    a->packet =
        mutate(&s->packet, &c->seeds[a->k][random_below(c->n_seeds)].packet);
    a->wrong = attack(a->codec, a->k, &a->packet, &got, &a->status);
}

/* Small files, so that most of what is mutated is no kind. */
static void attack_file(const campaign *c, attempt *a)
{
    static holder made[2];
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t classes = 1 + random_below(random_below(2) ? 2 : 6);
        uint32_t vocab_size = SQS_MIN_VOCAB + random_below(100);
        make_prior(vocab_size, classes, random_below(1000), &made[i]);
    }
    a->codec = &c->codec;
    a->packet = mutate(&made[0].file, &made[1].file);
    if (random_below(16) > 0)
        seal_prior(&a->packet);
    a->wrong = attack_prior(&a->packet, &a->status);
}

static void attack_campaign(campaign *c, attempt *a)
{
    a->codec = &c->codec;
    if (c->codec.prior != NULL && random_below(FILES) == 0) {
        attack_file(c, a);
        return;
    }
    a->k = (kind)random_below(kinds_of(&c->codec));
    seed *s = &c->seeds[a->k][random_below(c->n_seeds)];
    if (random_below(FRESH) == 0)
        attack_valid(c, s, a);
    else
        attack_mutated(c, s, a);
}

#define MAX_CAMPAIGNS 32u

typedef struct plan {
    campaign campaigns[MAX_CAMPAIGNS];
    uint32_t n, weight;
} plan;

/* The targets of a coding. */
typedef struct arsenal {
    const char *name;
    sqs_coding coding;
    const target *targets;
    uint32_t n;
} arsenal;

static const arsenal arsenals[] = {
    {"bitpack", SQS_BITPACK, bitpack, sizeof bitpack / sizeof *bitpack},
    {"enumerative", SQS_ENUMERATIVE, enumerative,
     sizeof enumerative / sizeof *enumerative},
    {"entropy", SQS_ENTROPY, entropy, sizeof entropy / sizeof *entropy},
    {"prior", SQS_ENTROPY, prior, sizeof prior / sizeof *prior},
};

static const arsenal *find_arsenal(const char *name)
{
    for (size_t i = 0; i < sizeof arsenals / sizeof *arsenals; i++)
        if (strcmp(name, arsenals[i].name) == 0)
            return &arsenals[i];
    return NULL;
}

static void make_plan(plan *all, const arsenal *from)
{
    all->weight = 0;
    all->n = from->n;
    for (uint32_t i = 0; i < all->n; i++) {
        make_campaign(&all->campaigns[i], &from->targets[i], from->coding);
        all->weight += from->targets[i].weight;
    }
}

/* Each campaign once, then as the weights say. */
static campaign *choose(plan *all, uint64_t i)
{
    if (i < all->n)
        return &all->campaigns[i];
    uint32_t drawn = random_below(all->weight), at = 0;
    while (drawn >= all->campaigns[at].target->weight)
        drawn -= all->campaigns[at++].target->weight;
    return &all->campaigns[at];
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    const arsenal *from = argc == 4 ? find_arsenal(argv[1]) : NULL;
    if (from == NULL) {
        fprintf(stderr,
                "usage: hostile bitpack|enumerative|entropy|prior COUNT "
                "SEED\n");
        return 2;
    }
    uint64_t count = strtoull(argv[2], NULL, 10);
    uint64_t number = strtoull(argv[3], NULL, 10);
    random_start(number);

    static plan all;
    static attempt a;
    make_plan(&all, from);
    uint64_t valid = 0;
    double start = seconds();
    for (uint64_t i = 0; i < count; i++) {
        attack_campaign(choose(&all, i), &a);
        if (a.wrong != NULL) {
            report(&a);
            return 1;
        }
        valid += a.status == SQS_OK;
    }
    double rate = (double)count / (seconds() - start);
    printf("%s, seed %llu: %llu packets, %llu of them valid, %.0f per second, "
           "findings 0, checksum %016llx\n",
           argv[1], (unsigned long long)number, (unsigned long long)count,
           (unsigned long long)valid, rate, (unsigned long long)checksum);
    return 0;
}
