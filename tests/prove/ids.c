/*
 * Weights of ids without a prior: every id is in a bucket, and R(x) falls by
 * the weight of x from x to x + 1, so that it is above 0 for every id.
 */
#include "any.h"

#include "entropy/ids.c"

void buckets(void)
{
    uint32_t id = any_within(0, SQS_MAX_VOCAB - 1);
    uint32_t bucket = bucket_of(id);
    assert(bucket < SQS_ID_BUCKETS);
    assert(bucket_start(bucket) <= id);
    uint64_t below = sqs_bucket_weight_below(id);
    uint64_t weight = sqs_id_weights[bucket];
    assert(weight > 0 && below + weight <= SQS_ID_TOTAL);
    assert(id + 1 == SQS_MAX_VOCAB ||
           sqs_bucket_weight_below(id + 1) == below + weight);
}

/* Any sum of weights, even one that no id has, leads to an id. */
void search(void)
{
    uint64_t below = nondet_uint64();
    uint32_t start = any_within(0, SQS_MAX_VOCAB - 1);
    assume(below <= 2 * (uint64_t)SQS_ID_TOTAL);
    uint32_t id = bucket_id(below, start);
    assert(id >= start);
    assert(below >= SQS_ID_TOTAL || id < SQS_MAX_VOCAB);
}
