/*
 * attack.h - one packet of any kind against its decoder, and what the decoder
 * must keep to whatever the bytes are.
 */
#ifndef ATTACK_H
#define ATTACK_H

#include <stdbool.h>

#include "sqs.h"

typedef enum kind {
    DISTRIBUTION,
    ROUND,
    SEQUENCE /* in SQS_ENTROPY only */
} kind;

#define KINDS 3u

/* How many kinds a codec's coding has, from DISTRIBUTION on. */
uint32_t kinds_of(const sqs_codec *codec);

typedef struct packet {
    size_t size;
    uint8_t *bytes;
} packet;

/* Memory that is used over and over. What is taken from it ends where its
 * heap block ends, so that AddressSanitizer sees any step beyond. */
typedef struct block {
    uint8_t *start;
    size_t size;
} block;

/* Room for `size` bytes, which last until the next call. Exits if there is
 * none. */
void *take(block *b, size_t size);

/* What packets of all kinds say. All zero before the first use. */
typedef struct content {
    sqs_sparse_room round;
    uint32_t *positions; /* null of a sequence that was read */
    block blocks[4];     /* where its arrays lie */
} content;

/* Makes room for `length` distributions of `total` survivors in all. */
void make_room(content *c, size_t length, size_t total);

/* The same for functions that read it. */
sqs_sparse_rows view(const content *c);

uint32_t survivors_of(const content *c);

/* Positions count if there are two. */
bool same_content(const content *a, const content *b);

/* An upper bound of what write_packet writes. */
size_t packet_bound(const sqs_codec *codec, kind k, const content *c);

sqs_status write_packet(const sqs_codec *codec, kind k, const content *c,
                        uint8_t *bytes, size_t capacity, size_t *size);

/*
 * Decodes a packet and holds the decoder to this:
 *
 *  - The status is one that such a packet can cause.
 *  - Within a receiver's limit it is the same, or SQS_OVER_LIMIT if the packet
 *    may have more survivors.
 *  - What decodes can be encoded, in no more bytes than the bound, and to
 *    the bytes that it came from. In the entropy coding the encoder may
 *    choose other modes and classes. Then its packet must decode to the same,
 *    and encode to the same again.
 *  - sqs_bits tells the size, in the entropy coding to within one bit.
 *
 * `got` is what was decoded, if the status is SQS_OK. Returns null, or what
 * was wrong.
 */
const char *attack(const sqs_codec *codec, kind k, const packet *p,
                   content *got, sqs_status *status);

/*
 * Holds the decoder to more, about a packet from which it read `got`:
 *
 *  - The same bytes and one more have trailing bytes.
 *  - With its last byte one higher it says something else, or isn't right.
 *  - A receiver's limit of its survivors lets it in, and one less keeps it
 *    out, with SQS_OVER_LIMIT.
 *
 * Returns null, or what was wrong.
 */
const char *attack_around(const sqs_codec *codec, kind k, const packet *p,
                          const content *got);

/* Of all that was noted, which is above all what decoders answered: equal for
 * equal packets in equal order, whatever the build. */
extern uint64_t checksum;

void note(uint64_t value);
void note_all(const uint32_t *values, size_t n);

#endif /* ATTACK_H */
