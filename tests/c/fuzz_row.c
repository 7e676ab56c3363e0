/*
 * fuzz_row.c - rows that libFuzzer makes; see fuzz.h.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

typedef struct request {
    sqs_codec codec;
    sqs_rows row;
    sqs_keep keep;
    double temperature;
    bool unbiased;
    uint64_t number; /* for that */
} request;

static const uint32_t sizes[] = {
    [SQS_F16] = 2, [SQS_F32] = 4, [SQS_F64] = 8, [SQS_BF16] = 2};

/* The first few, those from a level on, or both. */
static sqs_keep get_keep(uint8_t rule, uint8_t parameter)
{
    return (sqs_keep){rule % 4 == 1 ? UINT32_MAX : 1u + parameter,
                      rule % 4 == 0 ? 0 : parameter / 255.0};
}

static request get_request(const uint8_t *data, size_t size)
{
    static const double temperatures[] = {0,   1e-9, 0.1,  0.7,
                                          1.0, 1.3,  1e10, 1e300};
    kind k;
    request r = {.codec = get_header(data, &k)};
    r.row.dtype = data[0] % (SQS_BF16 + 1);
    r.row.n = 1;
    r.row.width = (uint32_t)(size - FUZZ_HEADER) / sizes[r.row.dtype];
    r.codec.vocab_size = r.row.width;
    r.codec.resolution = ((uint32_t)data[4] << 8 | data[5]) + 1;
    r.keep = get_keep(data[1], data[2]);
    r.temperature = temperatures[data[3] % 8];
    r.unbiased = data[1] / 4 % 2;
    r.number = data[2] * (UINT64_MAX / 255);
    return r;
}

/* What the core answers, in memory that lasts until the next row. */
typedef struct answer {
    sqs_status status;
    uint32_t *ids, *counts, survivors;
    double dropped;
    block blocks[3];
} answer;

static void quantize(const request *r, answer *a)
{
    size_t room = sqs_max_survivors(&r->codec) * sizeof(uint32_t);
    void *scratch = malloc(sqs_quantize_scratch(&r->codec));
    if (scratch == NULL)
        abort();
    a->ids = take(&a->blocks[0], room);
    a->counts = take(&a->blocks[1], room);
    a->survivors = 0;
    a->dropped = 0;
    sqs_sparse_room to = {a->ids, a->counts, &a->survivors, 0};
    a->status = r->unbiased
                    ? sqs_quantize_unbiased(&r->codec, &r->row, r->temperature,
                                            &r->number, scratch, &to)
                    : sqs_quantize_logits(&r->codec, &r->row, r->temperature,
                                          &r->keep, scratch, &to, &a->dropped);
    free(scratch);
    if (to.done != (a->status == SQS_OK))
        abort();
}

static bool same(const answer *a, const answer *b)
{
    size_t size = a->survivors * sizeof(uint32_t);
    return a->status == b->status &&
           (a->status != SQS_OK ||
            (a->survivors == b->survivors && a->dropped == b->dropped &&
             memcmp(a->ids, b->ids, size) == 0 &&
             memcmp(a->counts, b->counts, size) == 0));
}

/* Encodes what the row was quantized to, which the encoder checks. */
static const char *encode(const request *r, answer *a)
{
    size_t size, bound = sqs_encode_bound(&r->codec, a->survivors);
    uint8_t *bytes = take(&a->blocks[2], bound);
    sqs_status status = sqs_encode(&r->codec, a->ids, a->counts, a->survivors,
                                   bytes, bound, &size);
    return status == SQS_OK || status == SQS_LARGE_SUPPORT
               ? NULL
               : "it has no packet";
}

const char *attack_row(const uint8_t *data, size_t size)
{
    static block values;
    static answer a, b;
    request r = get_request(data, size);
    if (r.codec.vocab_size < SQS_MIN_VOCAB)
        return NULL;
    size_t row_size = (size_t)r.codec.vocab_size * sizes[r.row.dtype];
    void *row = take(&values, row_size);
    r.row.values = memcpy(row, data + FUZZ_HEADER, row_size);
    quantize(&r, &a);
    for (int isa = SQS_SCALAR; isa <= SQS_NEON; isa++) {
        r.row.isa = (sqs_isa)isa;
        if (sqs_find_isa((sqs_isa)isa) == SQS_ISA_BEST)
            continue;
        quantize(&r, &b);
        if (!same(&a, &b))
            return "instruction sets differ";
    }
    return a.status == SQS_OK ? encode(&r, &a) : NULL;
}
