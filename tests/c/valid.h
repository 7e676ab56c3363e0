/*
 * valid.h - random numbers, and what valid packets are made of.
 */
#ifndef VALID_H
#define VALID_H

#include "attack.h"

/* Random numbers follow from the seed alone. */
void random_start(uint64_t seed);
uint64_t random_bits(void);

/* Uniform in [0, n), but for a bias of n / 2^32. */
uint32_t random_below(uint32_t n);

/* What random packets say. Counts are flat or steep, and ids all over the
 * vocabulary or mostly low. */
typedef struct shape {
    uint32_t most;   /* survivors of a distribution */
    uint32_t length; /* positions of a round, at most */
    bool dense;      /* mostly as many survivors as can be */
} shape;

void random_content(const sqs_codec *codec, kind k, const shape *s,
                    content *c);

#endif /* VALID_H */
