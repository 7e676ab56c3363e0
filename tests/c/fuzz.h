/*
 * fuzz.h - what an input of fuzz.c is: six bytes, then a packet or a row.
 *
 *   1  kind (DISTRIBUTION for one that the coding lacks), plus 4 times the
 *      coding (3 is SQS_ENTROPY with a prior), plus 16 times a shift
 *   3  vocab_size - SQS_MIN_VOCAB, modulo how many there can be
 *   2  resolution - 1
 *
 * The most significant byte comes first, and both numbers are shifted to the
 * right. So any six bytes are a codec, and as often a small as a large one.
 * What follows is one packet.
 *
 * With a prior there can be FUZZ_PRIOR_VOCABS values of vocab_size, and the
 * number of classes follows from it.
 *
 * A shift of 14 means a prior file instead, which follows the first byte. Its
 * check is made right; and, if the kind isn't 0, so are its magic and what its
 * header says of its size.
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

#include "priors.h"

#define FUZZ_HEADER 6u

#define FUZZ_PRIOR 0xe0u /* for the first byte */
#define FUZZ_ROW 0xf0u

#define FUZZ_PRIOR_VOCABS 3000u
#define FUZZ_PRIOR_CODING 3u

#define FUZZ_VOCABS (SQS_MAX_VOCAB - SQS_MIN_VOCAB + 1u)

/* Does not shift. */
static inline void put_header(const sqs_codec *codec, kind k,
                              uint8_t header[FUZZ_HEADER])
{
    uint32_t vocab = codec->vocab_size - SQS_MIN_VOCAB;
    uint32_t resolution = codec->resolution - 1;
    uint32_t coding = codec->prior ? FUZZ_PRIOR_CODING : codec->coding;
    header[0] = (uint8_t)(4 * coding + k);
    header[1] = (uint8_t)(vocab >> 16);
    header[2] = (uint8_t)(vocab >> 8);
    header[3] = (uint8_t)vocab;
    header[4] = (uint8_t)(resolution >> 8);
    header[5] = (uint8_t)resolution;
}

/* Whether such a header's codec has a prior, which get_header leaves out. */
static inline bool has_prior(const uint8_t header[FUZZ_HEADER])
{
    return header[0] / 4 % 4 == FUZZ_PRIOR_CODING;
}

/* Gives a codec such a prior. */
static inline void add_prior(sqs_codec *codec, holder *h)
{
    uint32_t past = (codec->vocab_size - SQS_MIN_VOCAB) % FUZZ_PRIOR_VOCABS;
    codec->vocab_size = SQS_MIN_VOCAB + past;
    codec->prior =
        make_prior(codec->vocab_size, 1 + past % SQS_MAX_PRIOR_CLASSES, 1, h);
}

static inline sqs_codec get_header(const uint8_t header[FUZZ_HEADER], kind *k)
{
    uint32_t coding = header[0] / 4 % 4;
    uint32_t vocab = (uint32_t)header[1] << 16 | (uint32_t)header[2] << 8 |
                     (uint32_t)header[3];
    uint32_t resolution = (uint32_t)header[4] << 8 | (uint32_t)header[5];
    uint32_t shift = header[0] / 16;
    sqs_codec codec = {SQS_MIN_VOCAB + (vocab >> shift) % FUZZ_VOCABS,
                       (resolution >> shift) + 1,
                       coding > SQS_ENTROPY ? SQS_ENTROPY : coding, NULL};
    *k = (kind)(header[0] % 4u % kinds_of(&codec));
    return codec;
}

/* Quantizes and encodes the row of an input that has one, by all instruction
 * sets, which must agree. Returns null, or what was wrong. */
const char *attack_row(const uint8_t *data, size_t size);

#endif /* FUZZ_H */
