/*
 * divide.c - the reciprocals of divide.h.
 */
#include "entropy/divide.h"

#define ONE(n) ((n) < 2 ? 0 : UINT64_MAX / ((n) < 2 ? 1 : (n)) + 1)
#define FOUR(n) ONE(n), ONE((n) + 1), ONE((n) + 2), ONE((n) + 3)
#define SIXTEEN(n) FOUR(n), FOUR((n) + 4), FOUR((n) + 8), FOUR((n) + 12)
#define SIXTY_FOUR(n)                                                         \
    SIXTEEN(n), SIXTEEN((n) + 16), SIXTEEN((n) + 32), SIXTEEN((n) + 48)

/* 2^64 / n rounded up is (2^64 - 1) / n rounded down, plus 1. */
const uint64_t sqs_reciprocals[SQS_MOST_RECIPROCAL + 1] = {
    SIXTY_FOUR(0), SIXTY_FOUR(64), SIXTY_FOUR(128), SIXTY_FOUR(192), ONE(256),
};
