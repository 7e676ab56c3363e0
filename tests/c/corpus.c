/*
 * corpus.c - inputs for fuzz.c to begin with: one of each kind and codec, the
 * same with priors, a row of each type, and a few priors.
 *
 *   corpus FOLDER
 */
#include <stdio.h>
#include <stdlib.h>

#include "fuzz.h"
#include "valid.h"

static const sqs_codec codecs[] = {
    {2, 1, SQS_BITPACK, NULL},
    {49152, 100, SQS_BITPACK, NULL},
    {37, 65536, SQS_BITPACK, NULL},
    {16, 16, SQS_ENUMERATIVE, NULL},
    {49152, 100, SQS_ENUMERATIVE, NULL},
    {1u << 20, 8, SQS_ENUMERATIVE, NULL},
    {2, 1, SQS_ENTROPY, NULL},
    {16, 16, SQS_ENTROPY, NULL},
    {300, 300, SQS_ENTROPY, NULL},
    {49152, 100, SQS_ENTROPY, NULL},
    {1u << 20, 65536, SQS_ENTROPY, NULL},
};

#define ROW_BYTES 320u

static void write_bytes(FILE *file, const uint8_t *bytes, size_t size)
{
    if (fwrite(bytes, 1, size, file) != size) {
        perror("corpus");
        exit(1);
    }
}

static void write_valid(FILE *file, const sqs_codec *codec, kind k)
{
    static content made;
    static block room;
    uint32_t most = sqs_max_survivors(codec);
    shape looks = {most < 12 ? most : 12, 3, false};
    packet p;
    random_content(codec, k, &looks, &made);
    size_t bound = packet_bound(codec, k, &made);
    p.bytes = take(&room, bound);
    sqs_status status = write_packet(codec, k, &made, p.bytes, bound, &p.size);
    if (status != SQS_OK) {
        fprintf(stderr, "corpus: %s\n", sqs_status_text(status));
        exit(1);
    }
    write_bytes(file, p.bytes, p.size);
}

static FILE *open_input(const char *folder, size_t i, unsigned k)
{
    char name[4096];
    int length = snprintf(name, sizeof name, "%s/%zu-%u", folder, i, k);
    FILE *file = (size_t)length < sizeof name ? fopen(name, "wb") : NULL;
    if (file == NULL) {
        perror(folder);
        exit(1);
    }
    return file;
}

static void close_input(FILE *file)
{
    if (fclose(file) != 0) {
        perror("corpus");
        exit(1);
    }
}

static void write_input(const char *folder, size_t i, const sqs_codec *codec,
                        kind k)
{
    uint8_t header[FUZZ_HEADER];
    FILE *file = open_input(folder, i, (unsigned)k);
    put_header(codec, k, header);
    write_bytes(file, header, sizeof header);
    write_valid(file, codec, k);
    close_input(file);
}

static void write_prior(const char *folder, size_t i, uint32_t classes)
{
    static holder h;
    make_prior(100, classes, classes, &h);
    FILE *file = open_input(folder, i, classes);
    write_bytes(file, &(uint8_t){FUZZ_PRIOR}, 1);
    write_bytes(file, h.file.bytes, h.file.size);
    close_input(file);
}

/* A row of random bytes, which are values of all sizes; few are NaN. */
static void write_row(const char *folder, size_t i, sqs_dtype dtype)
{
    uint8_t bytes[FUZZ_HEADER + ROW_BYTES];
    for (size_t j = 0; j < sizeof bytes; j++)
        bytes[j] = (uint8_t)random_below(0x70);
    bytes[0] = (uint8_t)(FUZZ_ROW + (SQS_BF16 + 1u) * (i % 4) + dtype);
    FILE *file = open_input(folder, i, (unsigned)dtype);
    write_bytes(file, bytes, sizeof bytes);
    close_input(file);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: corpus FOLDER\n");
        return 2;
    }
    random_start(1);
    const size_t n = sizeof codecs / sizeof *codecs;
    size_t at = 0;
    for (size_t i = 0; i < 2 * n; i++, at++) {
        static holder prior;
        sqs_codec codec = codecs[i % n];
        if (i >= n) {
            codec.coding = SQS_ENTROPY;
            add_prior(&codec, &prior);
        }
        for (kind k = DISTRIBUTION; k < kinds_of(&codec); k++)
            write_input(argv[1], at, &codec, k);
    }
    for (uint32_t i = 0; i < 4; i++, at++)
        for (sqs_dtype dtype = SQS_F16; dtype <= SQS_BF16; dtype++)
            write_row(argv[1], at, dtype);
    for (uint32_t classes = 1; classes <= 3; classes++)
        write_prior(argv[1], at, classes);
    return 0;
}
