/*
 * priors.h - priors made by a formula, and files that may be none.
 */
#ifndef PRIORS_H
#define PRIORS_H

#include "attack.h"

/* A prior and its file. All zero before the first use. */
typedef struct holder {
    const sqs_prior *prior;
    packet file;
    block room;   /* of the file */
    void *memory; /* of the prior */
} holder;

/* Makes a prior whose weights are as large as they may be or very small, and
 * loads it. */
const sqs_prior *make_prior(uint32_t vocab_size, uint32_t classes,
                            uint32_t seed, holder *to);

/* Loads a prior; `to` has its file already. */
sqs_status load_prior(holder *to);

/* Ends a file with the check that it should have, if it has room for one. */
void seal_prior(const packet *file);

/* Loads a file, and holds that to this:
 *
 *  - It is refused if, and only if, it breaks a rule.
 *  - With the prior, any packet is an attack as attack.h says; those tried are
 *    made of the file's last bytes.
 *
 * Returns null, or what was wrong. */
const char *attack_prior(const packet *file, sqs_status *status);

#endif /* PRIORS_H */
