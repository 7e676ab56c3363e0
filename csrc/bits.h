/*
 * bits.h - widths and wide products of integers, and bit fields, written most
 * significant bit first.
 */
#ifndef SQS_BITS_H
#define SQS_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* log2(x), rounded down; x > 0. */
static inline uint32_t sqs_floor_log2(uint64_t x)
{
#ifdef __GNUC__
    return 63u - (uint32_t)__builtin_clzll(x);
#else
    uint32_t log = 0;
    while (x >>= 1)
        log++;
    return log;
#endif
}

static inline uint32_t sqs_lesser(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* The number of bits that hold the values 0 .. most. */
static inline uint32_t sqs_width(uint32_t most)
{
    uint32_t width = 0;
    for (; most != 0; most >>= 1)
        width++;
    return width;
}

/* The upper half of a product. */
static inline uint64_t sqs_multiply_high(uint64_t a, uint64_t b)
{
#if defined __SIZEOF_INT128__ && !defined SQS_LIMB32
    __extension__ typedef unsigned __int128 wide;
    return (uint64_t)((wide)a * b >> 64);
#else
    const uint64_t half = UINT32_MAX;
    uint64_t low = (a & half) * (b & half);
    uint64_t middle = (a >> 32) * (b & half) + (low >> 32);
    uint64_t other = (a & half) * (b >> 32) + (middle & half);
    return (a >> 32) * (b >> 32) + (middle >> 32) + (other >> 32);
#endif
}

/* A writer into `capacity` bytes. Further bytes are dropped, but
 * sqs_writer_size counts them. */
typedef struct sqs_writer {
    uint8_t *bytes;
    size_t capacity;
    uint64_t bits;
} sqs_writer;

/* Writes the lowest `width` bits of a value; width <= 32. */
static inline void sqs_put(sqs_writer *w, uint32_t value, uint32_t width)
{
    while (width > 0) {
        size_t at = (size_t)(w->bits / 8);
        uint32_t room = 8 - (uint32_t)(w->bits % 8);
        uint32_t n = width < room ? width : room;
        width -= n;
        w->bits += n;
        if (at >= w->capacity)
            continue;
        if (room == 8)
            w->bytes[at] = 0;
        uint32_t part = value >> width & ((1u << n) - 1);
        w->bytes[at] |= (uint8_t)(part << (room - n));
    }
}

/* The size in bytes, including zero padding in the last one. */
static inline uint64_t sqs_writer_size(const sqs_writer *w)
{
    return (w->bits + 7) / 8;
}

typedef struct sqs_reader {
    const uint8_t *bytes;
    uint64_t size; /* in bits, as is `at` */
    uint64_t at;
} sqs_reader;

/* Bits left to read. */
static inline uint64_t sqs_left(const sqs_reader *r)
{
    return r->size - r->at;
}

/* Reads a value; width <= 32 and width <= sqs_left(r). */
static inline uint32_t sqs_get(sqs_reader *r, uint32_t width)
{
    uint32_t value = 0;
    while (width > 0) {
        uint32_t room = 8 - (uint32_t)(r->at % 8);
        uint32_t n = width < room ? width : room;
        uint32_t part = (uint32_t)r->bytes[r->at / 8] >> (room - n);
        value = value << n | (part & ((1u << n) - 1));
        width -= n;
        r->at += n;
    }
    return value;
}

#endif /* SQS_BITS_H */
