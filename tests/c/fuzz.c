/*
 * fuzz.c - packets that libFuzzer makes, against the decoders, and rows.
 *
 * fuzz.h says how it chooses codec and kind, attack.h what is asserted of
 * packets.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(sqs_status status, const char *wrong)
{
    if (wrong == NULL)
        return;
    fprintf(stderr, "FINDING: %s, %s\n", sqs_status_text(status), wrong);
    abort();
}

/* Makes the header say what there is: as many ids as the size leaves room for,
 * or one if that is none. */
static void fit_header(const packet *file)
{
    const size_t fixed = 14 + 4;
    if (file->size < fixed)
        return;
    memcpy(file->bytes, "sqsprior\1", 9);
    uint32_t classes = 1 + file->bytes[9] % SQS_MAX_PRIOR_CLASSES;
    uint32_t room = (uint32_t)(file->size - fixed);
    while (classes > 1 && classes * (classes + 257) >= room)
        classes--;
    uint32_t used = classes * (classes + 257);
    uint32_t vocab_size = room > used ? room - used : 1;
    file->bytes[9] = (uint8_t)classes;
    for (uint32_t i = 0; i < 4; i++)
        file->bytes[10 + i] = (uint8_t)(vocab_size >> 8 * i);
}

static void try_file(const uint8_t *data, size_t size)
{
    static block room;
    packet file = {size - 1, take(&room, size - 1)};
    memcpy(file.bytes, data + 1, size - 1);
    if (data[0] % 4 > 0)
        fit_header(&file);
    seal_prior(&file);
    sqs_status status;
    const char *wrong = attack_prior(&file, &status);
    check(status, wrong);
}

static sqs_codec get_codec(const uint8_t *data, kind *k)
{
    static holder h;
    sqs_codec codec = get_header(data, k);
    if (has_prior(data))
        add_prior(&codec, &h);
    return codec;
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
    if (data[0] >= FUZZ_PRIOR) {
        try_file(data, size);
        return 0;
    }
    sqs_codec codec = get_codec(data, &k);
    static block room; /* at whose end the packet lies */
    packet p = {size - FUZZ_HEADER, take(&room, size - FUZZ_HEADER)};
    memcpy(p.bytes, data + FUZZ_HEADER, p.size);
    sqs_status status;
    const char *wrong = attack(&codec, k, &p, &got, &status);
    if (wrong == NULL && status == SQS_OK)
        wrong = attack_around(&codec, k, &p, &got);
    check(status, wrong);
    return 0;
}
