/*
 * example.c - a round from logits to a verdict: the edge drafts and encodes,
 * the cloud decodes and verifies. A formula stands in for both models.
 */
#include <stdio.h>
#include <stdlib.h>

#include "sqs.h"

enum { VOCAB = 32000, LENGTH = 4, TOP = 64, MOST = LENGTH * TOP };

static float draft[LENGTH * VOCAB], target[(LENGTH + 1) * VOCAB];

static void check(sqs_status status)
{
    if (status == SQS_OK)
        return;
    fprintf(stderr, "%s\n", sqs_status_text(status));
    exit(1);
}

/* A random number in [0, 1). In a real program, the generators of both ends
 * must be independent; two seeds of this formula aren't. */
static double draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 11) * 0x1p-53;
}

static void make_logits(float *logits, uint32_t n, double peak)
{
    uint64_t state = 0;
    for (uint32_t i = 0; i < n; i++) /* a few tokens are likely */
        logits[i] = (float)(peak / (1 + 1000 * draw(&state)));
}

int main(void)
{
    const sqs_codec codec = {VOCAB, 100, SQS_ENTROPY, NULL};
    const sqs_isa isa = sqs_find_isa(SQS_ISA_BEST);
    check(sqs_check_codec(&codec));
    make_logits(draft, LENGTH * VOCAB, 18);
    make_logits(target, (LENGTH + 1) * VOCAB, 20);

    /* The edge quantizes, samples a token from each, and encodes the round. */
    sqs_keep keep = {TOP, 0};
    sqs_rows rows = {draft, SQS_F32, isa, LENGTH, VOCAB, VOCAB};
    uint32_t ids[MOST], counts[MOST], sizes[LENGTH], positions[LENGTH];
    sqs_sparse_room to = {ids, counts, sizes, 0};
    void *scratch = malloc(sqs_quantize_scratch(&codec));
    check(sqs_quantize_logits(&codec, &rows, 0.7, &keep, scratch, &to, NULL));
    free(scratch);
    uint64_t edge = 1, cloud = 2;
    const uint32_t *of_token = counts;
    for (uint32_t i = 0; i < LENGTH; of_token += sizes[i++]) {
        uint32_t number = (uint32_t)(draw(&edge) * codec.resolution);
        positions[i] = sqs_sample(of_token, sizes[i], number);
    }
    sqs_sparse_rows drafted = {LENGTH, ids, counts, sizes};
    size_t size = sqs_encode_round_bound(&codec, LENGTH, MOST);
    uint8_t *packet = malloc(size);
    check(sqs_encode_round(&codec, &drafted, positions, packet, size, &size));

    /* The cloud decodes the round and verifies it. */
    uint32_t their_ids[MOST], their_counts[MOST];
    uint32_t their_sizes[SQS_MAX_ROUND], their_positions[SQS_MAX_ROUND];
    sqs_sparse_room read = {their_ids, their_counts, their_sizes, 0};
    check(
        sqs_decode_round(&codec, packet, size, MOST, &read, their_positions));
    free(packet);
    double draws[LENGTH + 1];
    for (uint32_t i = 0; i <= LENGTH; i++)
        draws[i] = draw(&cloud);
    sqs_rows theirs = {target, SQS_F32, isa, LENGTH + 1, VOCAB, VOCAB};
    sqs_verdict v;
    if (read.done != LENGTH) /* rows and draws are for this length */
        return 1;
    sqs_sparse_rows got = {LENGTH, their_ids, their_counts, their_sizes};
    scratch = malloc(sqs_verify_scratch(&theirs));
    check(sqs_verify_logits(&got, their_positions, &theirs, 0.7, draws,
                            scratch, &v));
    free(scratch);
    printf("%zu bytes, %u of %d tokens accepted, then token %u\n", size,
           v.accepted, LENGTH, v.token);
    return 0;
}
