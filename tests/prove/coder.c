/* A symbol keeps a reader a reader (is_reader), from whatever state. */
#include "any.h"

/* Any part of the range which has the code in it and is wide enough: this is
 * what all other symbols ask of the coder. */
void narrow(void)
{
    sqs_coder c = any_reader();
    assume(c.shifts < c.size);
    uint64_t start = nondet_uint64(), range = nondet_uint64();
    assume(start <= c.code && range <= c.range - start &&
           range > c.code - start && range >= LEAST_RANGE >> SQS_POWER_UNIT);
    size_t shifts = c.shifts;
    sqs_coder_narrow(&c, start, range);
    assert(is_reader(&c));
    assert(c.shifts >= shifts && c.shifts - shifts <= SQS_CODER_MOST);
}

void bit(void)
{
    sqs_coder c = any_reader();
    bool over = c.truncated || c.shifts >= c.size;
    bool found = sqs_code_bit(&c, any_within(1, 255), nondet_bool());
    assert(is_reader(&c));
    assert(c.truncated == over);
    assert(!(found && over));
}

/* What follows the end of a packet is read as zeros. */
void start(void)
{
    size_t size = any_within(0, 16);
    sqs_coder c = sqs_coder_read(any_bytes(size), size);
    assert(is_reader(&c));
    assert(size > 2 || c.code % ((uint64_t)1 << 40) == 0);
}

/* Exactly one last byte is taken, and it is the one that a writer writes.
 * `low` is what the writer has, `number` what the packet's last byte, and a
 * carry into the bytes before, come to. */
void end(void)
{
    uint64_t low = nondet_uint64(), number = any_within(0, 256);
    assume(low < MOST_RANGE);
    uint8_t bytes[2] = {any_within(0, 254), 0};
    uint64_t before = bytes[0];
    sqs_coder w = sqs_coder_write(bytes, sizeof bytes);
    w.low = low;
    w.shifts = 1;
    assert(sqs_coder_finish(&w) == 2);
    uint64_t written = ((uint64_t)bytes[0] << 8 | bytes[1]) - before * 256;
    number <<= SQS_CODER_LEAST_BITS;
    assume(number >= low); /* or a reader would not have come here */
    sqs_coder c = {.mode = SQS_READ, .size = 2, .shifts = 1};
    c.code = number - low;
    bool taken = sqs_coder_check_end(&c) == SQS_OK;
    assert(taken == (number >> SQS_CODER_LEAST_BITS == written));
}
