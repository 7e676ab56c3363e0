/*
 * big.h - non-negative integers as wide as a rank, and no wider.
 *
 * Schoolbook arithmetic on limbs of 64 bits if the compiler has a 128-bit
 * product, otherwise 32. Values don't depend on that. Nothing here checks for
 * overflow: index.c derives SQS_BIG_BITS so that none can occur.
 *
 * Functions write their first argument only. Limbs above `size` mean nothing.
 */
#ifndef SQS_BIG_H
#define SQS_BIG_H

#include <stdbool.h>
#include <stdint.h>

#if defined(__SIZEOF_INT128__) && !defined(SQS_LIMB32)
typedef uint64_t sqs_limb;
__extension__ typedef unsigned __int128 sqs_wide;
#define SQS_LIMB_BITS 64u
#else
typedef uint32_t sqs_limb;
typedef uint64_t sqs_wide;
#define SQS_LIMB_BITS 32u
#endif

/* The widest number of index.c, as derived there, and one limb. */
#define SQS_BIG_BITS (28096u + 64u)
#define SQS_BIG_LIMBS (SQS_BIG_BITS / SQS_LIMB_BITS)

/* Little-endian limbs; limb[size - 1] != 0, and zero has size 0. */
typedef struct sqs_big {
    uint32_t size;
    sqs_limb limb[SQS_BIG_LIMBS];
} sqs_big;

void sqs_big_set(sqs_big *a, uint32_t value);
void sqs_big_copy(sqs_big *a, const sqs_big *b);

/* The position of the highest set bit, plus one; 0 for zero. */
uint32_t sqs_big_length(const sqs_big *a);

/* < 0, 0 or > 0 as a is less than, equal to or greater than b. */
int sqs_big_compare(const sqs_big *a, const sqs_big *b);

/* a += b */
void sqs_big_add(sqs_big *a, const sqs_big *b);

/* a -= b, for b <= a */
void sqs_big_subtract(sqs_big *a, const sqs_big *b);

/* a *= factor */
void sqs_big_scale(sqs_big *a, sqs_limb factor);

/* a /= divisor, rounded down; divisor > 0. */
void sqs_big_shrink(sqs_big *a, sqs_limb divisor);

/* product = a * b, where product is neither a nor b. */
void sqs_big_multiply(sqs_big *product, const sqs_big *a, const sqs_big *b);

/* Bits [at, at + n) of a as a number, n <= 16. */
uint32_t sqs_big_bits(const sqs_big *a, uint32_t at, uint32_t n);

/* a = a * 2^n + low, low < 2^n, n <= 16. */
void sqs_big_append(sqs_big *a, uint32_t low, uint32_t n);

#endif /* SQS_BIG_H */
