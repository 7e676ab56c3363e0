/*
 * priors.c - see priors.h.
 */
#include "priors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER 14u
#define CODES 256u /* of a class */
#define CHECK 4u

static uint32_t crc32(const uint8_t *bytes, size_t size)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (uint32_t bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static void put_u32(uint8_t *to, uint32_t value)
{
    for (uint32_t i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static uint32_t get_u32(const uint8_t *from)
{
    uint32_t value = 0;
    for (uint32_t i = 0; i < 4; i++)
        value |= (uint32_t)from[i] << 8 * i;
    return value;
}

void seal_prior(const packet *file)
{
    if (file->size < CHECK)
        return;
    size_t end = file->size - CHECK;
    put_u32(file->bytes + end, crc32(file->bytes, end));
}

sqs_status load_prior(holder *to)
{
    const packet *f = &to->file;
    size_t needed = sqs_prior_memory(f->bytes, f->size);
    free(to->memory);
    to->memory = malloc(needed > 0 ? needed : 1);
    if (to->memory == NULL) {
        fprintf(stderr, "out of memory\n");
        exit(2);
    }
    return sqs_load_prior(f->bytes, f->size, to->memory, &to->prior);
}

/* Byte i of some noise. */
static uint32_t noise(uint32_t seed, uint32_t i)
{
    uint32_t hash = (seed + 1) * 2654435761u ^ (i + 1) * 2246822519u;
    hash = (hash ^ hash >> 15) * 3266489917u;
    return (hash ^ hash >> 13) >> 8 & 0xff;
}

/* The largest code whose weight is 2^31 / vocab_size or less. */
static uint32_t largest_code(uint32_t vocab_size)
{
    uint32_t bits = 0;
    while (1u << bits < vocab_size)
        bits++;
    return 8 * (31 - bits);
}

/* The place of the kinds. */
static size_t before_kinds(uint32_t classes)
{
    return HEADER + (classes + 1) * classes + CODES * classes;
}

const sqs_prior *make_prior(uint32_t vocab_size, uint32_t classes,
                            uint32_t seed, holder *to)
{
    uint32_t most = largest_code(vocab_size), at = HEADER;
    size_t codes = HEADER + (classes + 1) * classes;
    size_t kinds = before_kinds(classes), end = kinds + vocab_size;
    packet file = {end + CHECK, take(&to->room, end + CHECK)};
    memcpy(file.bytes, "sqsprior\1", 9);
    file.bytes[9] = (uint8_t)classes;
    put_u32(file.bytes + 10, vocab_size);
    for (; at < codes; at++)
        file.bytes[at] = (uint8_t)(noise(seed, at) | 1);
    for (; at < kinds; at++)
        file.bytes[at] = (uint8_t)(noise(seed, at) * (most + 1) / 256);
    for (; at < end; at++)
        file.bytes[at] = (uint8_t)noise(seed, at);
    seal_prior(&file);
    to->file = file;
    return load_prior(to) == SQS_OK ? to->prior : NULL;
}

/* Whether a file is one, by the letter of docs/format.md. */
static bool is_prior(const packet *file)
{
    const uint8_t *b = file->bytes;
    if (file->size < HEADER || memcmp(b, "sqsprior\1", 9) != 0 || b[9] < 1 ||
        b[9] > SQS_MAX_PRIOR_CLASSES)
        return false;
    uint32_t classes = b[9], vocab_size = get_u32(b + 10);
    size_t codes = HEADER + (classes + 1) * classes;
    size_t kinds = before_kinds(classes), end = kinds + vocab_size;
    if (vocab_size < SQS_MIN_VOCAB || vocab_size > SQS_MAX_VOCAB ||
        file->size != end + CHECK || get_u32(b + end) != crc32(b, end))
        return false;
    if (memchr(b + HEADER, 0, codes - HEADER) != NULL)
        return false;
    for (uint32_t c = 0; c < classes; c++) {
        uint64_t whole = 0;
        for (size_t i = kinds; i < end; i++) {
            uint8_t code = b[codes + CODES * c + b[i]];
            whole += ((uint64_t)(8 + code % 8) << code / 8) / 8;
        }
        if (whole > (uint64_t)1 << 31)
            return false;
    }
    return true;
}

#define TAIL 24u

const char *attack_prior(const packet *file, sqs_status *status)
{
    static holder h;
    static content got;
    static block room;
    h.file = *file;
    *status = load_prior(&h);
    note(*status);
    if ((*status == SQS_OK) != is_prior(file) ||
        (*status != SQS_OK && *status != SQS_BAD_PRIOR))
        return "the prior is misjudged";
    if (*status != SQS_OK)
        return NULL;
    sqs_codec codec = {get_u32(file->bytes + 10), 100, SQS_ENTROPY, h.prior};
    const char *wrong = NULL;
    for (kind k = DISTRIBUTION; k < KINDS && wrong == NULL; k++) {
        packet p = {TAIL, take(&room, TAIL)};
        memcpy(p.bytes, file->bytes + file->size - TAIL, TAIL);
        for (uint32_t i = 0; i < TAIL && wrong == NULL; i++, p.size--)
            wrong = attack(&codec, k, &p, &got, status);
    }
    *status = SQS_OK;
    return wrong;
}
