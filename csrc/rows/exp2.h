/*
 * exp2.h - sqs_exp2_f32 of each lane, of the operations of an instruction
 * set.
 */

/* The same operations in the same order, but that adding to the exponent
 * stands for multiplying by 2^n. That is the same, as p is in [1/sqrt(2),
 * sqrt(2)] and n at least -100. The sum t + 1.5 * 2^23 has n in its lowest
 * bits. */
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
