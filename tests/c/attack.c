/*
 * attack.c - see attack.h.
 */
#include "attack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *take(block *b, size_t size)
{
    if (size >= b->size) {
        size_t more = (size | 7) + 1; /* keeps the end aligned */
        free(b->start);
        *b = (block){calloc(more, 1), more};
    }
    if (b->start == NULL) {
        fprintf(stderr, "out of memory\n");
        exit(2);
    }
    return b->start + (b->size - size);
}

/* Contents. */

void make_room(content *c, size_t length, size_t total)
{
    const size_t items = length * sizeof(uint32_t);
    sqs_sparse_room *r = &c->round;
    r->survivors = take(&c->blocks[0], items);
    c->positions = take(&c->blocks[1], items);
    r->token_ids = take(&c->blocks[2], total * sizeof(uint32_t));
    r->counts = take(&c->blocks[3], total * sizeof(uint32_t));
}

sqs_sparse_rows view(const content *c)
{
    const sqs_sparse_room *r = &c->round;
    return (sqs_sparse_rows){r->done, r->token_ids, r->counts, r->survivors};
}

uint32_t survivors_of(const content *c)
{
    uint32_t total = 0;
    for (uint32_t i = 0; i < c->round.done; i++)
        total += c->round.survivors[i];
    return total;
}

static bool equal(const uint32_t *a, const uint32_t *b, size_t n)
{
    return memcmp(a, b, n * sizeof *a) == 0;
}

bool same_content(const content *a, const content *b)
{
    const sqs_sparse_room *x = &a->round, *y = &b->round;
    if (x->done != y->done || !equal(x->survivors, y->survivors, x->done))
        return false;
    uint32_t total = survivors_of(a);
    bool drafted = a->positions != NULL && b->positions != NULL;
    return (!drafted || equal(a->positions, b->positions, x->done)) &&
           equal(x->token_ids, y->token_ids, total) &&
           equal(x->counts, y->counts, total);
}

/* Packets. */

uint32_t kinds_of(const sqs_codec *codec)
{
    return codec->coding == SQS_ENTROPY ? KINDS : (uint32_t)SEQUENCE;
}

/* An upper bound of the survivors in a packet of `size` bytes. */
static uint32_t content_bound(const sqs_codec *codec, kind k, size_t size)
{
    switch (k) {
    case DISTRIBUTION:
        return sqs_max_survivors(codec);
    case SEQUENCE:
        return SQS_MAX_ENTROPY_SURVIVORS;
    case ROUND:
        break;
    }
    return sqs_max_round_survivors(codec, size);
}

size_t packet_bound(const sqs_codec *codec, kind k, const content *c)
{
    switch (k) {
    case DISTRIBUTION:
        return sqs_encode_bound(codec, c->round.survivors[0]);
    case SEQUENCE:
        return sqs_encode_sequence_bound(c->round.done, survivors_of(c));
    case ROUND:
        break;
    }
    return sqs_encode_round_bound(codec, c->round.done, survivors_of(c));
}

sqs_status write_packet(const sqs_codec *codec, kind k, const content *c,
                        uint8_t *bytes, size_t capacity, size_t *size)
{
    const sqs_sparse_rows r = view(c);
    switch (k) {
    case DISTRIBUTION:
        return sqs_encode(codec, r.token_ids, r.counts, r.survivors[0], bytes,
                          capacity, size);
    case SEQUENCE:
        return sqs_encode_sequence(codec, &r, bytes, capacity, size);
    case ROUND:
        break;
    }
    return sqs_encode_round(codec, &r, c->positions, bytes, capacity, size);
}

/* `most` is the receiver's limit. */
static sqs_status read_packet(const sqs_codec *codec, kind k, const packet *p,
                              uint32_t most, content *c)
{
    sqs_sparse_room *r = &c->round;
    if (k == SEQUENCE) {
        make_room(c, most < SQS_MAX_SEQUENCE ? most : SQS_MAX_SEQUENCE, most);
        c->positions = NULL;
        return sqs_decode_sequence(codec, p->bytes, p->size, SQS_MAX_SEQUENCE,
                                   most, r);
    }
    make_room(c, SQS_MAX_ROUND, most);
    memset(c->positions, 0, SQS_MAX_ROUND * sizeof *c->positions);
    r->done = 1;
    if (k == DISTRIBUTION)
        return sqs_decode(codec, p->bytes, p->size, most, r->token_ids,
                          r->counts, r->survivors);
    return sqs_decode_round(codec, p->bytes, p->size, most, r, c->positions);
}

/* Promises. */

uint64_t checksum;

void note(uint64_t value)
{
    checksum = (checksum ^ value) * 1099511628211u; /* FNV-1a's prime */
}

void note_all(const uint32_t *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        note(values[i]);
}

static void note_content(const content *c)
{
    const sqs_sparse_room *r = &c->round;
    uint32_t total = survivors_of(c);
    note(r->done);
    note_all(r->survivors, r->done);
    if (c->positions != NULL)
        note_all(c->positions, r->done);
    note_all(r->token_ids, total);
    note_all(r->counts, total);
}

#define BIT(status) (1u << (status))
#define ENDING                                                                \
    (BIT(SQS_OK) | BIT(SQS_TRUNCATED) | BIT(SQS_TRAILING_BYTES) |             \
     BIT(SQS_PADDING))
#define FIELDS (BIT(SQS_TOKEN_ID) | BIT(SQS_TOKEN_ORDER) | BIT(SQS_COUNTS))

static bool can_cause(const sqs_codec *codec, kind k, sqs_status status)
{
    static const uint32_t of_distributions[] = {
        [SQS_BITPACK] = ENDING | BIT(SQS_SUPPORT_SIZE) | FIELDS,
        [SQS_ENUMERATIVE] = ENDING | BIT(SQS_SUPPORT_SIZE) | BIT(SQS_RANK),
        [SQS_ENTROPY] = ENDING};
    static const uint32_t of_rounds_too[] = {
        [SQS_BITPACK] = BIT(SQS_TOKEN_POSITION),
        [SQS_ENUMERATIVE] = BIT(SQS_TOKEN_POSITION) | BIT(SQS_ROUND_SUPPORT),
        [SQS_ENTROPY] = BIT(SQS_ROUND_SUPPORT)};
    uint32_t statuses = of_distributions[codec->coding];
    if (k != DISTRIBUTION)
        statuses |= of_rounds_too[codec->coding];
    return statuses >> status & 1;
}

/*
 * Whether sqs_bits agrees with the size that a distribution was encoded to.
 * The range coder has spent 8 s + 56 - log2(range) bits when it ends. As then
 * 2^48 < range <= 2^56, that is at least 8 s and less than 8 s + 8. The packet
 * has s + 1 bytes, and sqs_bits is off by one bit at most.
 */
static bool bits_fit(const sqs_codec *codec, const content *c, size_t size)
{
    uint32_t bits;
    sqs_status status = sqs_bits(codec, c->round.token_ids, c->round.counts,
                                 c->round.survivors[0], &bits);
    if (status != SQS_OK)
        return false;
    if (codec->coding != SQS_ENTROPY)
        return size == (bits + 7) / 8;
    return 8 * (size - 1) <= (uint64_t)bits + 1 && bits <= 8 * size + 1;
}

static sqs_status write_again(const sqs_codec *codec, kind k, const content *c,
                              size_t capacity, block *b, packet *p)
{
    p->bytes = take(b, capacity);
    return write_packet(codec, k, c, p->bytes, capacity, &p->size);
}

static bool same_packet(const packet *a, const packet *b)
{
    return a->size == b->size && memcmp(a->bytes, b->bytes, a->size) == 0;
}

/* The encoder has made another packet of what was read from one. */
static const char *attack_other(const sqs_codec *codec, kind k,
                                const content *got, const packet *other)
{
    static content again;
    static block bytes;
    packet repeated;
    uint32_t room = content_bound(codec, k, other->size);
    if (read_packet(codec, k, other, room, &again) != SQS_OK)
        return "what it encodes to does not decode";
    if (!same_content(got, &again))
        return "what it encodes to decodes to something else";
    if (write_again(codec, k, &again, other->size, &bytes, &repeated) !=
            SQS_OK ||
        !same_packet(other, &repeated))
        return "it encodes to one thing, and then to another";
    return NULL;
}

/* Encodes what was read from p, and tells the size of that. */
static const char *attack_encoder(const sqs_codec *codec, kind k,
                                  const packet *p, const content *got,
                                  size_t *size)
{
    static block tight, ample;
    packet again;
    size_t bound = packet_bound(codec, k, got);
    sqs_status status = write_again(codec, k, got, p->size, &tight, &again);
    *size = p->size;
    if (status == SQS_OK && same_packet(p, &again))
        return p->size <= bound ? NULL : "the bound is too low";
    if (codec->coding != SQS_ENTROPY)
        return "it does not encode to the same bytes";
    bool longer = status == SQS_NO_SPACE;
    status = write_again(codec, k, got, bound, &ample, &again);
    if (status != SQS_OK || again.size > bound)
        return "it does not encode within the bound";
    *size = again.size;
    if (longer != (again.size > p->size))
        return "the encoder misjudges its space";
    return attack_other(codec, k, got, &again);
}

/* A receiver's limit, mostly a small one, that follows from the packet. */
static uint32_t some_limit(const packet *p)
{
    uint32_t hash = 0;
    for (size_t i = 0; i < p->size; i++)
        hash = (hash ^ p->bytes[i]) * 2654435761u;
    hash >>= 8;
    return hash % 8 == 0 ? hash / 8 % 4096 : hash / 8 % 32;
}

/* Reads a packet again within a limit, where `got` is what it says if `status`
 * is SQS_OK. */
static const char *attack_limited(const sqs_codec *codec, kind k,
                                  const packet *p, sqs_status status,
                                  const content *got)
{
    static content c;
    uint32_t most = some_limit(p);
    sqs_status limited = read_packet(codec, k, p, most, &c);
    note(limited);
    if (status != SQS_OK && limited != status && limited != SQS_OVER_LIMIT)
        return "a limit changes what is wrong";
    if (status == SQS_OK && survivors_of(got) > most)
        return limited == SQS_OVER_LIMIT ? NULL : "a limit does not hold";
    if (status == SQS_OK && (limited != SQS_OK || !same_content(got, &c)))
        return "a limit changes what is read";
    return NULL;
}

const char *attack(const sqs_codec *codec, kind k, const packet *p,
                   content *got, sqs_status *status)
{
    *status = read_packet(codec, k, p, content_bound(codec, k, p->size), got);
    note(*status);
    if (!can_cause(codec, k, *status))
        return "such a packet cannot cause that";
    const char *wrong = attack_limited(codec, k, p, *status, got);
    if (wrong != NULL || *status != SQS_OK)
        return wrong;
    note_content(got);
    size_t size;
    wrong = attack_encoder(codec, k, p, got, &size);
    if (wrong != NULL)
        return wrong;
    if (k == DISTRIBUTION && !bits_fit(codec, got, size))
        return "sqs_bits misjudges the size";
    return NULL;
}

/*
 * Whether the packet that comes next in order must say something else. In the
 * entropy coding two packets may say the same in different modes. If they are
 * neighbors then, from there on one has the last value of each symbol and the
 * other one the first. So the one has the last ids, the other one the first,
 * which differ unless a support is all of the vocabulary. And a round ends
 * with `more` = 0, which is not the last value, unless it is left out. A class
 * of a prior may make some first values so unlikely that no packet of that
 * size has them: then neighbors may say the same in different classes.
 */
static bool next_differs(const sqs_codec *codec, kind k, const content *c)
{
    if (codec->coding != SQS_ENTROPY)
        return true;
    if (k == ROUND)
        return c->round.done < SQS_MAX_ROUND;
    bool sure = codec->prior == NULL;
    for (uint32_t i = 0; i < c->round.done; i++)
        sure = sure && c->round.survivors[i] < codec->vocab_size;
    return sure;
}

/* Tries receiver's limits on either side of what the packet has. */
static const char *attack_limit(const sqs_codec *codec, kind k,
                                const packet *p, const content *got)
{
    static content c;
    uint32_t total = survivors_of(got);
    if (read_packet(codec, k, p, total, &c) != SQS_OK ||
        !same_content(got, &c))
        return "it does not decode within its own size";
    if (read_packet(codec, k, p, total - 1, &c) != SQS_OVER_LIMIT)
        return "the receiver's limit does not hold";
    return NULL;
}

const char *attack_around(const sqs_codec *codec, kind k, const packet *p,
                          const content *got)
{
    static content c;
    static block longer, next;
    packet other = {p->size + 1, take(&longer, p->size + 1)};
    memcpy(other.bytes, p->bytes, p->size);
    other.bytes[p->size] = 0;
    uint32_t room = content_bound(codec, k, other.size);
    if (read_packet(codec, k, &other, room, &c) != SQS_TRAILING_BYTES)
        return "with a byte more it does not have trailing bytes";
    other = (packet){p->size, take(&next, p->size)};
    memcpy(other.bytes, p->bytes, p->size);
    if (++other.bytes[p->size - 1] != 0 && next_differs(codec, k, got) &&
        read_packet(codec, k, &other, room, &c) == SQS_OK &&
        same_content(got, &c))
        return "another last byte changes nothing";
    return attack_limit(codec, k, p, got);
}
