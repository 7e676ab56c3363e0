/*
 * internal.h - what the stages know of each other:
 *
 *   sparsify -> fit -> lattice -> index -> packet
 *
 * row_*.c     passes over a row of logits or probabilities, for each of the
 *             instruction sets between which isa.c chooses
 * sparsify.c  such a row to the tokens kept
 * fit.c       which resolution, and which of them are worth their bits
 * lattice.c   their weights to counts
 * index.c     supports and counts to exact ranks, with the integers of big.c
 * entropy.c   the same to symbols of a range coder: which model, at what cost
 * counts.c    counts as a partition and its arrangement
 * ids.c       what ids weigh; memory.c, the tokens of recent supports
 * sets.c      ids, and the cuts of compositions, as sets in order
 * divide.c    reciprocals, for divisions by small numbers
 * message.c   the layout of the entropy coding's packets
 * packet.c    the fields of all others, and which is which
 * quantize.c  the way out from rows to counts or packets
 * verify.c    what becomes of a round
 */
#ifndef SQS_INTERNAL_H
#define SQS_INTERNAL_H

#include "quantize/heap.h"
#include "rows/kernels.h"
#include "sqs.h"

/* A row, and the tokens kept from it. */
typedef struct sqs_row {
    const sqs_kernels *kernels;
    sqs_scanned scanned;
    bool probs;   /* otherwise logits */
    float scale;  /* of a logit, in its term's exponent */
    double total; /* the sum of terms, if sqs_row_total was called */
    sqs_taken kept;
    uint32_t n; /* tokens kept */
    sqs_ranked *heap; /* room for all */
} sqs_row;

/* Reads the row once and finds what no rule can do with. */
sqs_status sqs_row_logits(sqs_row *row, double temperature);
sqs_status sqs_row_probs(sqs_row *row);

/* Whether a rule looks at the sum of terms. */
bool sqs_needs_total(const sqs_keep *keep);
void sqs_row_total(sqs_row *row);

sqs_status sqs_check_keep(const sqs_keep *keep);

/* Takes the tokens that the rule keeps. */
void sqs_sparsify(sqs_row *row, const sqs_keep *keep);

/* The probability of the tokens that aren't kept; exactly 0 if all that have a
 * term are. */
double sqs_dropped_mass(const sqs_row *row);

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
