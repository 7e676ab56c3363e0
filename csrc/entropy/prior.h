/*
 * prior.h - the weights of ids in each class of a prior, sums of the weights
 * of all lower ids, their inverse, and the class that suits a support best.
 *
 * docs/format.md defines a prior's file. Classes are numbers below
 * prior->classes, and ids are below prior->vocab_size.
 */
#ifndef SQS_PRIOR_H
#define SQS_PRIOR_H

#include "entropy/fixed.h"
#include "sqs.h"

struct sqs_prior {
    uint32_t vocab_size, classes;
    uint32_t costs_stride, sums_stride; /* values per row */
    const uint64_t *costs;              /* a row for each kind */
    const uint64_t *chance_costs;       /* a row for each last class */
    const uint32_t *weights;            /* a row of 256 kinds for each class */
    const uint32_t *sums;               /* a row for each class */
    const uint16_t *starts;             /* a row for each last class */
    const uint16_t *guides;             /* a row for each class */
    const uint8_t *ratios;              /* a row of 256 kinds for each class */
    const uint8_t *kinds;               /* the kind of each id */
};

/* Ids per stored sum: larger blocks take less memory and more additions. */
#define SQS_PRIOR_BLOCK 16u

/* How many classes a distribution may name; 0 if its class isn't coded. */
static inline uint32_t sqs_coded_classes(const sqs_prior *p)
{
    return p != NULL && p->classes > 1 ? p->classes : 0;
}

/* A place in the vocabulary: an id, and the total weight of all lower ids in a
 * class. All zero is a place in every class. The functions below move the
 * place to their id, because the next id is often the same or next to it. */
typedef struct sqs_prior_place {
    uint32_t id, below;
} sqs_prior_place;

/* The total weight of a class: A_c of docs/format.md. */
static inline uint32_t sqs_prior_whole(const sqs_prior *p, uint32_t in_class)
{
    return p->sums[in_class * p->sums_stride + p->sums_stride - 1];
}

/* Moves any place to an id, and returns the total weight of all lower ids. */
uint32_t sqs_prior_seek(const sqs_prior *p, uint32_t in_class, uint32_t id,
                        sqs_prior_place *place);

/* The same, but fast if the place is there or next to it. */
static inline uint32_t sqs_prior_below(const sqs_prior *p, uint32_t in_class,
                                       uint32_t id, sqs_prior_place *place)
{
    const uint32_t *weights = p->weights + 256u * in_class;
    if (place->id + 1 == id)
        place->below += weights[p->kinds[place->id++]];
    else if (place->id == id + 1)
        place->below -= weights[p->kinds[--place->id]];
    return place->id == id ? place->below
                           : sqs_prior_seek(p, in_class, id, place);
}

/* Moves a place to the largest id such that all lower ids weigh at most
 * `below` in total, and returns that id. */
uint32_t sqs_prior_id(const sqs_prior *p, uint32_t in_class, uint64_t below,
                      sqs_prior_place *place);

/* An id near the one of sqs_prior_id, in much less time. */
uint32_t sqs_prior_id_about(const sqs_prior *p, uint32_t in_class,
                            uint64_t below);

/* A lower and an upper bound on the total weight of all lower ids. */
static inline const uint32_t *sqs_prior_bounds(const sqs_prior *p,
                                               uint32_t in_class, uint32_t id)
{
    return p->sums + in_class * p->sums_stride + id / SQS_PRIOR_BLOCK;
}

/* The memory's weight m of an id, scaled for a class: r of docs/format.md. */
static inline uint32_t sqs_prior_recent(const sqs_prior *p, uint32_t in_class,
                                        uint32_t id, uint32_t m)
{
    return p->classes > 1 ? m * p->ratios[256u * in_class + p->kinds[id]] / 16
                          : m;
}

/* Cumulative chances of the classes of a distribution after the class `last`;
 * the last value is the total. */
static inline const uint16_t *sqs_prior_starts(const sqs_prior *p,
                                               uint32_t last)
{
    return p->starts + last * (p->classes + 1);
}

/* The cost of class c out of n, given these cumulative chances, in units of
 * 2^-SQS_LOG_UNIT bits. */
static inline uint64_t sqs_prior_chance_cost(const uint16_t *starts,
                                             uint32_t n, uint32_t c)
{
    return sqs_log2(starts[n]) - sqs_log2(starts[c + 1] - starts[c]);
}

/* The class that an encoder chooses for k ids, about the cheapest; `last` is
 * the memory's. */
uint32_t sqs_prior_choose(const sqs_prior *p, uint32_t last,
                          const uint32_t *ids, uint32_t k);

#endif /* SQS_PRIOR_H */
