/*
 * philox.h - counter-based random numbers: Philox4x32-10 (Salmon et al.,
 * SC11).
 *
 * Ten rounds turn a counter and a key into four words. Each position in a text
 * has a key of its own, and several streams of words. Any word can be computed
 * directly. 16 counters give 64 words, and word 16 w + l is the w-th of
 * counter l. So a vector of counters gives four vectors of words in order.
 */
#ifndef SQS_PHILOX_H
#define SQS_PHILOX_H

#include <stdint.h>
#include <string.h>

#define SQS_WORDS 64u /* words of 16 counters */

#define SQS_PHILOX_ROUNDS 10u
#define SQS_PHILOX_M0 0xd2511f53u
#define SQS_PHILOX_M1 0xcd9e8d57u
#define SQS_PHILOX_W0 0x9e3779b9u /* the golden ratio */
#define SQS_PHILOX_W1 0xbb67ae85u /* sqrt(3) - 1 */

/* The random numbers of a position: a key, and the upper half of counters. */
typedef struct sqs_numbers {
    uint32_t key[2], high[2];
} sqs_numbers;

static inline void sqs_philox(uint32_t c[4], uint32_t k0, uint32_t k1)
{
    for (uint32_t i = 0; i < SQS_PHILOX_ROUNDS; i++) {
        uint64_t p = (uint64_t)SQS_PHILOX_M0 * c[0];
        uint64_t q = (uint64_t)SQS_PHILOX_M1 * c[2];
        c[0] = (uint32_t)(q >> 32) ^ c[1] ^ k0;
        c[2] = (uint32_t)(p >> 32) ^ c[3] ^ k1;
        c[1] = (uint32_t)q;
        c[3] = (uint32_t)p;
        k0 += SQS_PHILOX_W0;
        k1 += SQS_PHILOX_W1;
    }
}

static inline sqs_numbers sqs_numbers_at(const uint32_t key[4],
                                         uint64_t position)
{
    uint32_t c[4] = {(uint32_t)position, (uint32_t)(position >> 32), key[2],
                     key[3]};
    sqs_philox(c, key[0], key[1]);
    return (sqs_numbers){{c[0], c[1]}, {c[2], c[3]}};
}

static inline uint32_t sqs_word(const sqs_numbers *numbers, uint32_t stream,
                                uint32_t k)
{
    uint32_t c[4] = {k / 64 * 16 + k % 16, stream, numbers->high[0],
                     numbers->high[1]};
    sqs_philox(c, numbers->key[0], numbers->key[1]);
    return c[k / 16 % 4];
}

#endif /* SQS_PHILOX_H */
