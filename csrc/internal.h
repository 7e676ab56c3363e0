/*
 * internal.h - what the stages know of each other:
 *
 *   sparsify -> fit -> lattice -> index -> packet
 *
 * sparsify.c  a row of logits or probabilities to the tokens kept
 * fit.c       which resolution, and which of them are worth their bits
 * lattice.c   their weights to counts
 * index.c     supports and counts to exact ranks, with the integers of big.c
 * entropy.c   the same to symbols of a range coder, by models of real drafts
 * message.c   the layout of the entropy coding's packets
 * packet.c    the fields of all others, and which is which
 * quantize.c  the way out from a row to counts
 */
#ifndef SQS_INTERNAL_H
#define SQS_INTERNAL_H

#include "heap.h"
#include "sqs.h"

/* A row and the tokens kept from it. */
typedef struct sqs_row {
    uint32_t size;
    const float *f32;  /* the values by which tokens are ranked: */
    const double *f64; /* one of the two, the other is null */
    double floor;      /* values at or below it are masked */
    double *terms;     /* probabilities up to a common factor */
    double total;      /* the sum of terms */
    uint32_t argmax;
    sqs_ranked *heap; /* room for `size` */
    uint32_t *kept;   /* room for `size` */
} sqs_row;

/* Fills in terms, total and argmax; the row holds logits. */
sqs_status sqs_row_softmax(sqs_row *row, double temperature);

/* The same for probabilities; row->terms are the values themselves. */
sqs_status sqs_row_probs(sqs_row *row);

sqs_status sqs_check_keep(const sqs_keep *keep);

/* Lists the tokens that the rule keeps, ascending; returns how many. */
uint32_t sqs_sparsify(sqs_row *row, const sqs_keep *keep);

/* The probability of the tokens outside the n in row->kept; exactly 0 if all
 * that have a term are inside. */
double sqs_dropped_mass(const sqs_row *row, uint32_t n);

/*
 * Rounds weights (up to a common factor) to n counts that sum to resolution,
 * some of them 0. heap has room for n.
 */
void sqs_lattice(const double *weights, uint32_t n, uint32_t resolution,
                 sqs_ranked *heap, uint32_t *counts);

/* Tokens, and their counts once they have been rounded. */
typedef struct sqs_point {
    uint32_t n;
    uint32_t *ids;   /* ascending */
    double *weights; /* up to a common factor */
    uint32_t *counts;
    uint32_t resolution;
} sqs_point;

sqs_status sqs_check_fit(const sqs_codec *codec, const sqs_fit *fit);

/*
 * Rounds the tokens kept as the codec and `fit` ask; found has no counts of 0.
 * heap and the arrays of both points have room for kept->n, but for the ids
 * and counts of found, which need it for sqs_max_survivors(codec) only. What
 * was in kept is lost.
 */
void sqs_fit_point(const sqs_codec *codec, const sqs_fit *fit,
                   double dropped_mass, sqs_point *kept, sqs_point *found,
                   sqs_ranked *heap);

#endif /* SQS_INTERNAL_H */
