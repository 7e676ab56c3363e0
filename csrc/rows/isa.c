/*
 * isa.c - finds the machine's instruction sets, and chooses kernels.
 */
#include "rows/kernels.h"

#ifdef SQS_HAS_X86
#include <cpuid.h>

/* Bits of XCR0: the registers that the operating system saves per thread.
 * macOS sets those of ZMM only after a thread has used them, so AVX2 is chosen
 * there. */
#define SAVES_YMM 0x06u /* XMM and YMM */
#define SAVES_ZMM 0xe6u /* XMM, YMM, opmasks, and ZMM in two parts */

static uint32_t saved_state(void)
{
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* __builtin_cpu_supports would do this, but zig's runtime never initializes
 * it. Leaf 7 exists if XSAVE does, as that has leaf 13. */
static sqs_isa find_best(void)
{
    const uint32_t basic = bit_OSXSAVE | bit_FMA | bit_F16C | bit_POPCNT;
    const uint32_t avx2 = bit_AVX2 | bit_BMI;
    const uint32_t avx512 =
        bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    uint32_t a, b, c, d;
    __cpuid(1, a, b, c, d);
    if ((c & basic) != basic)
        return SQS_SCALAR;
    uint32_t saved = saved_state();
    __cpuid_count(7, 0, a, b, c, d);
    if ((b & avx2) != avx2 || (saved & SAVES_YMM) != SAVES_YMM)
        return SQS_SCALAR;
    if ((b & avx512) != avx512 || (saved & SAVES_ZMM) != SAVES_ZMM)
        return SQS_AVX2;
    return SQS_AVX512;
}
#elif defined SQS_HAS_NEON
static sqs_isa find_best(void)
{
    return SQS_NEON;
}
#else
static sqs_isa find_best(void)
{
    return SQS_SCALAR;
}
#endif

sqs_isa sqs_find_isa(sqs_isa isa)
{
    if (isa == SQS_SCALAR)
        return isa;
    sqs_isa best = find_best();
    if (isa == SQS_ISA_BEST)
        return best;
    bool has = isa == best || (isa == SQS_AVX2 && best == SQS_AVX512);
    return has ? isa : SQS_ISA_BEST;
}

const sqs_kernels *sqs_find_kernels(const sqs_rows *rows)
{
    const sqs_kernels *kernels = sqs_kernels_scalar;
    switch (rows->isa == SQS_ISA_BEST ? sqs_find_isa(SQS_ISA_BEST)
                                      : (sqs_isa)rows->isa) {
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
    return &kernels[rows->dtype];
}
