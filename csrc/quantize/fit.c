/*
 * fit.c - which lattice point to take, where there is a choice.
 *
 * The lattice of resolution l moves the n tokens kept by n / 4l in total
 * variation at most, and in practice by about half of that; twice the
 * resolution takes about one bit more for each survivor. Two rules trade one
 * for the other.
 *
 * Balance. Sparsification has moved the row by its dropped mass already, and
 * that is what the caller chose to lose. The coarsest power of two at which
 * quantization moves no more than that is fine enough: with a coarser one it
 * would be what limits the draft, and a finer one hardly brings the draft
 * nearer to the row. Where next to nothing is dropped, an error that the
 * caller calls small enough takes its place. This bounds the error of every
 * row, at a price: fewest bits for a given mean error is another matter.
 *
 * Rate and distortion. A coarser lattice saves bits and so does every token
 * left out, and how much either of them moves depends on the row. A Lagrange
 * multiplier makes the choices comparable: bits_per_tv = mu is what a total
 * variation of 1 is worth, and a point with the least
 *
 *     J = bits + mu TV
 *
 * is one such that no other has fewer bits and less TV. With one mu for all
 * rows their means are such a point too: bits are spent on the rows where they
 * count most. TV is that to the whole row, dropped mass included: what the
 * counts give any token beyond its probability, summed.
 *
 * The search starts from a plain lattice point: that of the codec's resolution
 * or the best of the powers of two up to mu. Beyond these all that is left to
 * gain, mu n / 4l, is less than a quarter of a bit for each token kept, and the
 * next step would take about a bit for each. Then it
 * offers to drop survivors, one at a time, the smallest counts first and of
 * these the highest ids, which cost most; J decides. The others are rounded
 * anew, as if nothing but them had been kept. To hand its units to whichever
 * token lacks most would move the draft less, but real targets accept fewer
 * tokens of such drafts: it is the ratios between tokens that they agree with.
 *
 * Greedy is enough for rows as peaked as language models', as dropping one
 * token changes little for the next: what each costs and has stays nearly the
 * same. On flat rows, where only dropping many at once would pay, it stops
 * early; MOST_TRIALS bounds its time there.
 */
#include <math.h>

#include "entropy/modes.h"
#include "quantize/sparsify.h"
#include "rows/softmax.h"

#define MOST_TRIALS 64u

/* What points are compared by. */
typedef struct objective {
    uint32_t vocab_size;
    double bits_per_tv;
    double total; /* of the weights of all tokens kept */
    double mass;  /* the probability of them all */
} objective;

sqs_status sqs_check_fit(const sqs_codec *codec, const sqs_fit *fit)
{
    double mu = fit->bits_per_tv;
    bool error_ok = codec->resolution != SQS_VARIABLE ||
                    (fit->error > 0 && fit->error <= 1);
    bool mu_ok = mu == 0 || (codec->coding == SQS_ENTROPY && mu > 0 &&
                             mu < INFINITY);
    return error_ok && mu_ok ? SQS_OK : SQS_BAD_FIT;
}

static void round_weights(sqs_point *p, uint32_t resolution,
                          sqs_ranked *heap)
{
    p->resolution = resolution;
    sqs_lattice(p->weights, p->n, resolution, heap, p->counts);
}

/* Copies the tokens whose count isn't 0; in place too. */
static void gather(const sqs_point *from, sqs_point *to)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < from->n; i++) {
        if (from->counts[i] == 0)
            continue;
        to->ids[n] = from->ids[i];
        to->weights[n] = from->weights[i];
        to->counts[n++] = from->counts[i];
    }
    to->n = n;
    to->resolution = from->resolution;
}

/* The total variation to a row in which weights that sum to `total` have the
 * probability `mass`, and tokens that are not in the point have the rest. */
static double variation(const sqs_point *p, double total, double mass)
{
    double sum = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        double more = (double)p->counts[i] / p->resolution -
                      p->weights[i] / total * mass;
        if (more > 0)
            sum += more;
    }
    return sum;
}

/* The coarsest resolution at which quantization moves `most` at most. Finer
 * lattices can be a little farther from a row; bisection overlooks that. */
static uint32_t balance(sqs_point *kept, double most, sqs_ranked *heap)
{
    double total = sqs_sum(kept->weights, kept->n);
    uint32_t low = 0, high = SQS_MAX_EXPONENT;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        round_weights(kept, 1u << middle, heap);
        if (variation(kept, total, 1) <= most)
            high = middle;
        else
            low = middle + 1;
    }
    return 1u << low;
}

/* J of a point without counts of 0. */
static double price(const objective *o, const sqs_point *p)
{
    sqs_cost cost = sqs_entropy_cost(o->vocab_size, p->resolution, p->ids,
                                     p->counts, p->n);
    return (double)cost.bits / 0x1p32 +
           o->bits_per_tv * variation(p, o->total, o->mass);
}

/* Tries all resolutions that can pay. */
static uint32_t cheapest(const objective *o, sqs_point *kept,
                         sqs_point *found, sqs_ranked *heap)
{
    uint32_t best = 1;
    double least = INFINITY;
    for (uint32_t e = 0; e <= SQS_MAX_EXPONENT; e++) {
        if (e > 0 && !(1u << e <= o->bits_per_tv))
            break;
        round_weights(kept, 1u << e, heap);
        gather(kept, found);
        double j = price(o, found);
        if (j < least) {
            least = j;
            best = 1u << e;
        }
    }
    return best;
}

/* Lists the ids of the smallest counts, in the order of the trials. */
static uint32_t list_trials(const sqs_point *p, uint32_t ids[MOST_TRIALS])
{
    sqs_ranked order[MOST_TRIALS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        sqs_ranked item = {-(double)p->counts[i], UINT32_MAX - p->ids[i]};
        sqs_heap_offer(order, &n, MOST_TRIALS, item);
    }
    sqs_heap_sort(order, n);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = UINT32_MAX - order[i].id;
    return n;
}

/* Copies all tokens but one; false if that is none, or not there. */
static bool leave_out(const sqs_point *from, uint32_t id, sqs_point *to)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < from->n; i++) {
        if (from->ids[i] == id)
            continue;
        to->ids[n] = from->ids[i];
        to->weights[n++] = from->weights[i];
    }
    to->n = n;
    return 0 < n && n < from->n;
}

static void drop_what_pays(const objective *o, sqs_point *found,
                           sqs_point *trial, sqs_ranked *heap)
{
    uint32_t ids[MOST_TRIALS];
    uint32_t n = list_trials(found, ids);
    double least = price(o, found);
    for (uint32_t i = 0; i < n; i++) {
        if (!leave_out(found, ids[i], trial))
            continue;
        round_weights(trial, found->resolution, heap);
        gather(trial, trial);
        double j = price(o, trial);
        if (j < least) {
            least = j;
            gather(trial, found);
        }
    }
}

void sqs_fit_point(const sqs_codec *codec, const sqs_fit *fit,
                   double dropped_mass, sqs_point *kept, sqs_point *found,
                   sqs_ranked *heap)
{
    bool variable = codec->resolution == SQS_VARIABLE;
    bool priced = fit->bits_per_tv > 0;
    objective o = {codec->vocab_size, fit->bits_per_tv,
                   sqs_sum(kept->weights, kept->n), 1 - dropped_mass};
    double most = fit->error > dropped_mass ? fit->error : dropped_mass;
    uint32_t resolution = !variable ? codec->resolution
                          : priced  ? cheapest(&o, kept, found, heap)
                                    : balance(kept, most, heap);
    round_weights(kept, resolution, heap);
    gather(kept, found);
    if (priced)
        drop_what_pays(&o, found, kept, heap);
}
