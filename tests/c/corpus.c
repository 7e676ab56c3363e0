/*
 * corpus.c - inputs for fuzz.c to begin with, one of each kind and codec.
 *
 *   corpus FOLDER
 */
#include <stdio.h>
#include <stdlib.h>

#include "fuzz.h"
#include "valid.h"

static const sqs_codec codecs[] = {
    {2, 1, SQS_BITPACK},
    {49152, 100, SQS_BITPACK},
    {37, 65536, SQS_BITPACK},
    {16, 16, SQS_ENUMERATIVE},
    {49152, 100, SQS_ENUMERATIVE},
    {1u << 20, 8, SQS_ENUMERATIVE},
    {2, 1, SQS_ENTROPY},
    {16, 16, SQS_ENTROPY},
    {300, 300, SQS_ENTROPY},
    {49152, 100, SQS_ENTROPY},
    {1u << 20, 65536, SQS_ENTROPY},
    {16, SQS_VARIABLE, SQS_ENTROPY},
    {49152, SQS_VARIABLE, SQS_ENTROPY},
};

#define STREAM_ROUNDS 3u

static void write_bytes(FILE *file, const uint8_t *bytes, size_t size)
{
    if (fwrite(bytes, 1, size, file) != size) {
        perror("corpus");
        exit(1);
    }
}

/* Writes a packet; in a stream, one whose size fits the byte before it. */
static void write_valid(FILE *file, const sqs_codec *codec, kind k,
                        sqs_memory *memory)
{
    static content made;
    static block room;
    uint32_t most = sqs_max_survivors(codec);
    shape looks = {most < 12 ? most : 12, 3, false};
    sqs_memory before = *memory;
    packet p;
    do {
        *memory = before;
        random_content(codec, k, &looks, &made);
        size_t bound = packet_bound(codec, k, &made);
        p.bytes = take(&room, bound);
        sqs_status status =
            write_packet(codec, k, k == STREAM ? memory : NULL, &made,
                         p.bytes, bound, &p.size);
        if (status != SQS_OK) {
            fprintf(stderr, "corpus: %s\n", sqs_status_text(status));
            exit(1);
        }
    } while (k == STREAM && p.size > UINT8_MAX);
    if (k == STREAM)
        write_bytes(file, &(uint8_t){(uint8_t)p.size}, 1);
    write_bytes(file, p.bytes, p.size);
}

static void write_input(const char *folder, size_t i, kind k)
{
    char name[4096];
    uint8_t header[FUZZ_HEADER];
    int length = snprintf(name, sizeof name, "%s/%zu-%u", folder, i,
                          (unsigned)k);
    FILE *file = (size_t)length < sizeof name ? fopen(name, "wb") : NULL;
    if (file == NULL) {
        perror(folder);
        exit(1);
    }
    put_header(&codecs[i], k, header);
    write_bytes(file, header, sizeof header);
    sqs_memory memory = {.size = 0};
    for (uint32_t n = 0; n < (k == STREAM ? STREAM_ROUNDS : 1); n++)
        write_valid(file, &codecs[i], k, &memory);
    if (fclose(file) != 0) {
        perror(name);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: corpus FOLDER\n");
        return 2;
    }
    random_start(1);
    for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++)
        for (kind k = DISTRIBUTION; k <= TOKENS; k++)
            write_input(argv[1], i, k);
    return 0;
}
