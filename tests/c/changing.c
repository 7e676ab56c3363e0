/*
 * changing.c - a row that somebody writes while it is quantized, raced or
 * rounded without bias.
 *
 * Another thread's writes can't be timed, so a scan that changes the row at
 * its end stands in for them. The values are then such that their exponentials
 * are large and cancel out: all tokens have counts, more than there is room
 * for. AddressSanitizer sees any step beyond.
 */
#include "check.h"
#include "gumbel.c" /* for a race by kernels that are not its own */
#include "quantize/systematic.c" /* for the same */

#define VOCAB 4096u
#define RESOLUTION 10u
#define LN_2 0.69314718055994531

static double row[VOCAB];
static bool (*scan)(sqs_scanned *scanned);

static bool scan_and_change(sqs_scanned *scanned)
{
    bool finite = scan(scanned);
    for (uint32_t i = 0; i < VOCAB / 2; i++) {
        row[i] = 10 * LN_2;
        row[VOCAB / 2 + i] = 2058 * LN_2 - 0.0049; /* comes out as -2^9.99 */
    }
    return finite;
}

static void quantize(void)
{
    sqs_codec codec = {.vocab_size = VOCAB, .resolution = RESOLUTION};
    sqs_keep keep = {VOCAB, 0};
    sqs_rows rows = {row, SQS_F64, SQS_ISA_BEST, 1, VOCAB, VOCAB};
    uint32_t *ids = malloc(RESOLUTION * sizeof *ids);
    uint32_t *counts = malloc(RESOLUTION * sizeof *counts);
    void *scratch = malloc(sqs_quantize_scratch(&codec));
    sqs_outcome out = {.ids = ids, .counts = counts};
    sqs_quantizer q =
        sqs_make_quantizer(&codec, &rows, false, 1, &keep, scratch);
    sqs_kernels kernels = *q.row.kernels;
    scan = kernels.scan;
    kernels.scan = scan_and_change;
    q.row.kernels = &kernels;
    CHECK(sqs_quantize_row(&q, &rows, 0, &out) == SQS_OK);
    CHECK(out.survivors == RESOLUTION);
    free(ids);
    free(counts);
    free(scratch);
}

/* What all values become at the end of a race's scan. */
static double later;

static bool scan_blocks_and_change(sqs_scanned *scanned)
{
    bool finite = sqs_kernels_scalar[SQS_F64].scan_blocks(scanned);
    for (uint32_t i = 0; i < VOCAB; i++)
        row[i] = later;
    return finite;
}

static void run_race(double temperature)
{
    sqs_rows rows = {row, SQS_F64, SQS_ISA_BEST, 1, VOCAB, VOCAB};
    double *scratch = malloc(sqs_gumbel_scratch(&rows));
    sqs_kernels kernels = sqs_kernels_scalar[SQS_F64];
    kernels.scan_blocks = scan_blocks_and_change;
    race r = {.kernels = &kernels,
              .row = {.values = row, .n = VOCAB, .maxima = scratch},
              .dtype = SQS_F64,
              .scale = SQS_LOG2_E / temperature,
              .lows = (float *)(scratch + sqs_races(VOCAB)),
              .words =
                  (uint32_t *)(scratch + sqs_races(VOCAB)) + sqs_races(VOCAB),
              .best = {.most = SQS_MAX_GUESSES}};
    for (uint32_t i = 0; i < VOCAB; i++)
        row[i] = i % 7;
    sqs_status status = draw(&r, temperature);
    CHECK(status == SQS_OK || status == SQS_ALL_MASKED);
    for (uint32_t i = 0; i < r.best.n; i++)
        CHECK(r.best.ids[i] < VOCAB);
    free(scratch);
}

/* After the first block that is weighed all values are others. */
static double weigh_and_change(const sqs_scanned *scanned, float scale,
                               float *weights)
{
    double sum = sqs_kernels_scalar[SQS_F64].weigh(scanned, scale, weights);
    for (uint32_t i = 0; i < VOCAB; i++)
        row[i] = later;
    return sum;
}

static void round_without_bias(double temperature, uint64_t number)
{
    uint32_t *ids = malloc(RESOLUTION * sizeof *ids);
    uint32_t *counts = malloc(RESOLUTION * sizeof *counts);
    double maxima[VOCAB];
    uint64_t sums[VOCAB / SQS_BLOCK];
    sqs_kernels kernels = sqs_kernels_scalar[SQS_F64];
    kernels.weigh = weigh_and_change;
    sqs_outcome out = {.ids = ids, .counts = counts};
    line on = {.kernels = &kernels,
               .row = {.values = row, .n = VOCAB, .maxima = maxima},
               .dtype = SQS_F64,
               .scale = sqs_exponent_scale(temperature),
               .sums = sums};
    for (uint32_t i = 0; i < VOCAB; i++)
        row[i] = i % 7;
    CHECK(count_row(&on, temperature, RESOLUTION, number, &out) == SQS_OK);
    CHECK(out.survivors <= RESOLUTION);
    for (uint32_t i = 0; i < out.survivors; i++)
        CHECK(ids[i] < VOCAB && counts[i] <= RESOLUTION);
    free(ids);
    free(counts);
}

int main(void)
{
    const double values[] = {NAN, INFINITY, -INFINITY, 1e308, -1e308, 3};
    quantize();
    for (uint32_t i = 0; i < 6; i++) {
        later = values[i];
        run_race(0);
        run_race(1e-30);
        run_race(1);
        run_race(1e300);
        round_without_bias(1e-30, 0);
        round_without_bias(1, UINT64_MAX);
        round_without_bias(1e300, UINT64_MAX / 3);
    }
    return 0;
}
