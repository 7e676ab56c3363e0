/*
 * isa.c - which instruction sets this machine has, and the kernels of each.
 */
#include "rows/kernels.h"

#ifdef SQS_HAS_X86
#if defined __clang__ || __GNUC__ < 11 /* __builtin_cpu_supports lacks f16c */
#include <cpuid.h>

static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#else
static bool has_f16c(void)
{
    return __builtin_cpu_supports("f16c");
}
#endif

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("popcnt") &&
           has_f16c();
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

static bool has(sqs_isa isa)
{
    switch (isa) {
    case SQS_SCALAR:
        return true;
#ifdef SQS_HAS_X86
    case SQS_AVX2:
        return has_avx2();
    case SQS_AVX512:
        return has_avx512();
#endif
#ifdef SQS_HAS_NEON
    case SQS_NEON:
        return true;
#endif
    default:
        return false;
    }
}

sqs_isa sqs_find_isa(sqs_isa isa)
{
    if (isa != SQS_ISA_BEST)
        return has(isa) ? isa : SQS_ISA_BEST;
    const sqs_isa by_speed[] = {SQS_NEON, SQS_AVX512, SQS_AVX2};
    for (uint32_t i = 0; i < sizeof by_speed / sizeof *by_speed; i++)
        if (has(by_speed[i]))
            return by_speed[i];
    return SQS_SCALAR;
}

const sqs_kernels *sqs_find_kernels(sqs_isa isa, sqs_dtype dtype)
{
    const sqs_kernels *kernels = sqs_kernels_scalar;
    switch (isa == SQS_ISA_BEST ? sqs_find_isa(isa) : isa) {
#ifdef SQS_HAS_X86
    case SQS_AVX2:
        kernels = sqs_kernels_avx2;
        break;
    case SQS_AVX512:
        kernels = sqs_kernels_avx512;
        break;
#endif
#ifdef SQS_HAS_NEON
    case SQS_NEON:
        kernels = sqs_kernels_neon;
        break;
#endif
    default:
        break;
    }
    return &kernels[dtype];
}
