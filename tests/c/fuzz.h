/*
 * fuzz.h - what an input of fuzz.c is: six bytes, then packets or a row.
 *
 *   1  kind, plus 4 times the coding (3 is SQS_ENTROPY too), plus 16 times a
 *      shift
 *   3  vocab_size - SQS_MIN_VOCAB, modulo how many there can be
 *   2  resolution - 1
 *
 * The most significant byte comes first, and both numbers are shifted to the
 * right. So any six bytes are a codec, and as often a small as a large one.
 * What follows is one packet or, if the kind is STREAM, several, each after a
 * byte that says its size. One that says more than there is means all of it.
 *
 * A shift of 15 means a row of logits instead, in the machine's byte order, as
 * many as there are. Then the kind is their type, and the numbers are
 *
 *   1  a keep rule
 *   1  its parameter
 *   1  a temperature
 *   2  resolution - 1, not shifted
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "attack.h"

#define FUZZ_HEADER 6u

#define FUZZ_ROW 0xf0u /* for the first byte */

#define FUZZ_VOCABS (SQS_MAX_VOCAB - SQS_MIN_VOCAB + 1u)

/* Does not shift. */
static inline void put_header(const sqs_codec *codec, kind k,
                              uint8_t header[FUZZ_HEADER])
{
    uint32_t vocab = codec->vocab_size - SQS_MIN_VOCAB;
    uint32_t resolution = codec->resolution - 1;
    header[0] = (uint8_t)(4 * codec->coding + k);
    header[1] = (uint8_t)(vocab >> 16);
    header[2] = (uint8_t)(vocab >> 8);
    header[3] = (uint8_t)vocab;
    header[4] = (uint8_t)(resolution >> 8);
    header[5] = (uint8_t)resolution;
}

static inline sqs_codec get_header(const uint8_t header[FUZZ_HEADER], kind *k)
{
    uint32_t coding = header[0] / 4 % 4;
    uint32_t vocab = (uint32_t)header[1] << 16 | (uint32_t)header[2] << 8 |
                     (uint32_t)header[3];
    uint32_t resolution = (uint32_t)header[4] << 8 | (uint32_t)header[5];
    uint32_t shift = header[0] / 16;
    *k = (kind)(header[0] % 4);
    return (sqs_codec){SQS_MIN_VOCAB + (vocab >> shift) % FUZZ_VOCABS,
                       (resolution >> shift) + 1,
                       coding > SQS_ENTROPY ? SQS_ENTROPY : (sqs_coding)coding,
                       SQS_ISA_BEST};
}

/* Quantizes and encodes the row of an input that has one, by all instruction
 * sets, which must agree. Returns null, or what was wrong. */
const char *attack_row(const uint8_t *data, size_t size);

#endif /* FUZZ_H */
