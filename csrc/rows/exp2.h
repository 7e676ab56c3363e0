/*
 * exp2.h - sqs_exp2_f32 of each lane. The file that includes this defines the
 * operations of the instruction set.
 */

/* The operations of sqs_exp2_f32 in the same order, except that this adds n to
 * the exponent of p, instead of multiplying p by 2^n. The result is the same:
 * p is in [1/sqrt(2), sqrt(2)] and n is at least -100, so the product is never
 * subnormal. The lowest bits of the sum t + 1.5 * 2^23 are those of n. */
TARGET static inline vec_type vec_exp2(vec_type t)
{
    vec_type shifted = vec_add(t, vec_set(SQS_ROUND_F32));
    vec_type f = vec_minus(t, vec_minus(shifted, vec_set(SQS_ROUND_F32)));
    vec_type p = vec_set(SQS_EXP2_F32_FIRST);
#define STEP(c) p = vec_add(vec_multiply(p, f), vec_set(c));
    SQS_EXP2_F32_REST(STEP)
#undef STEP
    return vec_zero_below(vec_add_exponent(p, shifted), t,
                          vec_set(SQS_MIN_EXPONENT_F32));
}
