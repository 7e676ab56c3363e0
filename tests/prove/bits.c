/*
 * sqs_get reads no byte outside its packet, and what sqs_put has written; and
 * sqs_put leaves alone what is written before, and bytes beyond its capacity.
 */
#include "any.h"
#include "bits.h"

#define BYTES 8u

void read_anywhere(void)
{
    size_t size = nondet_uint64();
    assume(size <= MOST_BYTES);
    sqs_reader r = {any_bytes(size), 8 * size, nondet_uint64()};
    assume(r.at <= r.size);
    uint32_t width = any_within(0, 32);
    assume(width <= sqs_left(&r));
    uint64_t at = r.at;
    uint64_t value = sqs_get(&r, width);
    assert(r.at == at + width);
    assert(value >> width == 0);
}

/* A field after another one, where the room may end anywhere. */
void write_and_read(void)
{
    size_t capacity = any_within(0, BYTES);
    sqs_writer w = {any_bytes(capacity), capacity, 0};
    uint32_t before = any_within(0, 31), width = any_within(0, 32);
    uint32_t first = nondet_uint32(), value = nondet_uint32();
    assume(first >> before == 0 && (uint64_t)value >> width == 0);
    sqs_put(&w, first, before);
    sqs_put(&w, value, width);
    assert(w.bits == before + width);
    if (sqs_writer_size(&w) > capacity)
        return;
    sqs_reader r = {w.bytes, w.bits, 0};
    assert(sqs_get(&r, before) == first);
    assert(sqs_get(&r, width) == value);
}
