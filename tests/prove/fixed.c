/*
 * Logarithms and powers in integers: no index outside a table, no overflow,
 * and the ranges that sets.c builds on.
 */
#include "any.h"
#include "entropy/divide.h"

void log2_of(void)
{
    uint64_t x = nondet_uint64();
    assume(x > 0 && x >> 63 == 0);
    uint64_t whole = sqs_floor_log2(x), log = sqs_log2(x);
    assert(x >> whole == 1);
    assert(log >> SQS_LOG_UNIT == whole);
}

void log2_small(void)
{
    uint32_t x = any_within(1, 2 * SQS_LOG_KNOTS - 1);
    assert(sqs_log2_small(x) == sqs_log2(x));
}

void exp2_of(void)
{
    uint64_t t = nondet_uint64();
    uint64_t power = sqs_exp2(t);
    assert(power <= SQS_ONE >> sqs_lesser((uint32_t)(t >> 32), 32));
    assert(t > 0 || power == SQS_ONE);
}

/* Between two knots each function is a straight line, and so both are
 * monotone if their tables are. */
void tables(void)
{
    for (uint32_t i = 0; i < SQS_LOG_KNOTS; i++)
        assert(sqs_log2_table[i] < sqs_log2_table[i + 1]);
    assert(sqs_log2_table[0] == 0);
    assert(sqs_log2_table[SQS_LOG_KNOTS] == SQS_BIT);
    for (uint32_t i = 0; i < SQS_POWER_KNOTS; i++)
        assert(sqs_exp2_table[i] > sqs_exp2_table[i + 1]);
    assert(sqs_exp2_table[0] == SQS_ONE);
    assert(sqs_exp2_table[SQS_POWER_KNOTS] == SQS_ONE / 2);
}

/* In 64 bits: of 2^64 + e, this is e. */
static uint64_t m_times_n(uint64_t m, uint64_t n)
{
    return m * n;
}

/* What divide.h derives the rest from: m n = 2^64 + e with e < n. */
void reciprocals(void)
{
    for (uint64_t n = 2; n <= SQS_MOST_RECIPROCAL; n++) {
        uint64_t m = sqs_reciprocals[n];
        assert(sqs_multiply_high(m, n) == 1);
        assert(m_times_n(m, n) < n);
    }
}
