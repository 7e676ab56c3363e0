/*
 * lattice.c - the nearest distribution whose probabilities are counts / l.
 *
 * Reznik (arXiv 1008.3597) calls these distributions types. Rounding each
 * l * q_i to the nearest integer gives the nearest point of Z^n, but the sum
 * may miss l by d. Let e_i = rounded - l * q_i, in [-1/2, 1/2]; the e_i sum to
 * d. To correct the sum with the smallest move, take one unit from each of the
 * d largest e_i (d > 0), or give one to each of the -d smallest (d < 0). No
 * count changes twice, and none becomes negative: if d > 0, at least 2d of the
 * e_i are positive, as each is at most 1/2; and where e_i is positive, l * q_i
 * was rounded up, to 1 or more.
 *
 * Between equal errors, the lower id keeps its unit or gets one.
 */
#include "quantize/lattice.h"

#include "rows/softmax.h"

static double scaled(double weight, double total, uint32_t resolution)
{
    return (double)resolution * (weight / total);
}

void sqs_lattice(const double *weights, uint32_t n, uint32_t resolution,
                 sqs_ranked *heap, uint32_t *counts)
{
    double total = sqs_sum(weights, n);
    int64_t excess = -(int64_t)resolution;
    for (uint32_t i = 0; i < n; i++) {
        counts[i] = (uint32_t)(scaled(weights[i], total, resolution) + 0.5);
        excess += counts[i];
    }
    if (excess == 0)
        return;
    uint32_t units = (uint32_t)(excess > 0 ? excess : -excess);
    uint32_t found = 0;
    for (uint32_t i = 0; i < n; i++) {
        double error =
            (double)counts[i] - scaled(weights[i], total, resolution);
        sqs_ranked item = {excess > 0 ? error : -error,
                           excess > 0 ? n - 1 - i : i};
        sqs_heap_offer(heap, &found, units, item);
    }
    for (uint32_t i = 0; i < found; i++) {
        if (excess > 0)
            counts[n - 1 - heap[i].id]--;
        else
            counts[heap[i].id]++;
    }
}
