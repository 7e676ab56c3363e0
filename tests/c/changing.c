/*
 * changing.c - a row that somebody writes while it is quantized.
 *
 * Another thread's writes can't be timed, so a scan that changes the row at
 * its end stands in for them. The values are then such that their exponentials
 * are large and cancel out: all tokens have counts, more than there is room
 * for. AddressSanitizer sees any step beyond.
 */
#include "check.h"
#include "quantize/quantize.h"

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

int main(void)
{
    sqs_codec codec = {.vocab_size = VOCAB, .resolution = RESOLUTION};
    sqs_keep keep = {SQS_TOP_K, VOCAB};
    sqs_rows rows = {row, SQS_F64, 1, VOCAB};
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
    return 0;
}
