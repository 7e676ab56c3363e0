/*
 * fuzz.c - packets that libFuzzer makes, against the decoders, and rows.
 *
 * fuzz.h says how it chooses codec and kind, attack.h what is asserted of
 * packets. Those of a stream meet the memory that those before them left.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Cuts the next packet off and moves it to the end of a heap block. */
static packet cut(kind k, const uint8_t **data, size_t *size)
{
    static block room;
    size_t length = *size;
    if (k == STREAM && *size > 0) {
        length = *(*data)++;
        --*size;
        length = length < *size ? length : *size;
    }
    packet p = {length, take(&room, length)};
    memcpy(p.bytes, *data, length);
    *data += length;
    *size -= length;
    return p;
}

static void check(sqs_status status, const char *wrong)
{
    if (wrong == NULL)
        return;
    fprintf(stderr, "FINDING: %s, %s\n", sqs_status_text(status), wrong);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static content got;
    kind k;
    if (size < FUZZ_HEADER)
        return 0;
    if (data[0] >= FUZZ_ROW) {
        check(SQS_OK, attack_row(data, size));
        return 0;
    }
    sqs_codec codec = get_header(data, &k);
    data += FUZZ_HEADER;
    size -= FUZZ_HEADER;
    sqs_memory memory = {.size = 0};
    do {
        packet p = cut(k, &data, &size);
        sqs_status status;
        sqs_memory before = memory;
        bool stream = k == STREAM;
        const char *wrong = attack(&codec, k, stream ? &memory : NULL, &p,
                                   &got, &status);
        if (wrong == NULL && status == SQS_OK)
            wrong = attack_around(&codec, k, stream ? &before : NULL, &p,
                                  &got);
        check(status, wrong);
    } while (size > 0);
    return 0;
}
