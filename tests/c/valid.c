/*
 * valid.c - see valid.h.
 */
#include "valid.h"

/* xorshift64* (Vigna, arXiv 1402.6246). */

static uint64_t state;

void random_start(uint64_t seed)
{
    state = (seed + 1) * 0x9e3779b97f4a7c15u; /* not 0 if seed < 2^64 - 1 */
}

uint64_t random_bits(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 2685821657736338717u;
}

uint32_t random_below(uint32_t n)
{
    return (uint32_t)((random_bits() >> 32) * n >> 32);
}

/* Below n too, small more often than large. */
static uint32_t random_small(uint32_t n)
{
    uint32_t drawn = random_below(n);
    return drawn >> random_below(20);
}

static uint32_t lesser(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* A random share of `slack` when `parts` are still to be served. */
static uint32_t share(uint32_t slack, uint32_t parts, bool steep)
{
    uint32_t drawn = steep ? random_small(slack + 1)
                           : random_below(2 * (slack / parts) + 2);
    return lesser(drawn, slack);
}

static void random_distribution(uint32_t vocab_size, uint32_t resolution,
                                uint32_t k, uint32_t *ids, uint32_t *counts)
{
    bool low_ids = random_below(2), steep = random_below(2);
    uint32_t id = 0, free_ids = vocab_size - k, units = resolution - k;
    for (uint32_t i = 0; i < k; i++) {
        uint32_t skipped = share(free_ids, k - i, low_ids);
        uint32_t more = i + 1 < k ? share(units, k - i, steep) : units;
        free_ids -= skipped;
        units -= more;
        id += skipped;
        ids[i] = id++;
        counts[i] = 1 + more;
    }
}

void random_content(const sqs_codec *codec, kind k, const shape *s, content *c)
{
    sqs_sparse_room *r = &c->round;
    uint32_t room = lesser(s->most, codec->resolution);
    size_t used = 0;
    r->done = k == DISTRIBUTION ? 1 : 1 + random_below(s->length);
    make_room(c, SQS_MAX_ROUND, (size_t)r->done * s->most);
    for (uint32_t i = 0; i < r->done; i++) {
        uint32_t *ids = r->token_ids + used, *counts = r->counts + used;
        bool full = s->dense && random_below(4) > 0;
        uint32_t n = full ? room : 1 + random_below(room);
        r->survivors[i] = n;
        c->positions[i] = k == DISTRIBUTION ? 0 : random_below(n);
        random_distribution(codec->vocab_size, codec->resolution, n, ids,
                            counts);
        used += n;
    }
}
