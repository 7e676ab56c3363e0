/*
 * divide.h - divisions by small numbers as multiplications.
 *
 * For x <= 2^56 and 2 <= n <= 256, let m be 2^64 / n rounded up, so that
 * m n = 2^64 + e with e < n. Then m x / 2^64 = x / n + (e / n) (x / 2^64),
 * where the error is below 2^-8 <= 1 / n. The next integer is at least 1 / n
 * above x / n, so both round down to the same.
 */
#ifndef SQS_DIVIDE_H
#define SQS_DIVIDE_H

#include <stdint.h>

#include "bits.h"

#define SQS_MOST_RECIPROCAL 256u

/* 2^64 / n, rounded up; 0 for n < 2. */
extern const uint64_t sqs_reciprocals[SQS_MOST_RECIPROCAL + 1];

/* x / n, rounded down, for x <= 2^56 and n > 0. */
static inline uint64_t sqs_divide(uint64_t x, uint32_t n)
{
    if (n - 2 <= SQS_MOST_RECIPROCAL - 2)
        return sqs_multiply_high(x, sqs_reciprocals[n]);
    return x / n;
}

#endif /* SQS_DIVIDE_H */
