/*
 * draft.c - sampling the drafted token, and updating the threshold of C-SQS.
 */
#include <math.h>
#include <stdbool.h>

#include "rows/softmax.h" /* turns floating-point contraction off */
#include "sqs.h"

uint32_t sqs_sample(const uint32_t *counts, uint32_t survivors,
                    uint32_t number)
{
    uint32_t position = 0;
    while (position + 1 < survivors && number >= counts[position])
        number -= counts[position++];
    return position;
}

static bool is_share(double x)
{
    return x >= 0 && x <= 1;
}

sqs_status sqs_conformal_update(sqs_keep *keep, double alpha, double eta,
                                double dropped_mass)
{
    if (!isfinite(keep->least) || keep->least > 1)
        return SQS_BAD_KEEP;
    if (!is_share(alpha) || !is_share(eta) || eta == 0 ||
        !is_share(dropped_mass))
        return SQS_BAD_ARGUMENT;
    double least = keep->least - eta * (dropped_mass - alpha);
    keep->least = least < 1 ? least : 1;
    return SQS_OK;
}
