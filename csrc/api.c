/*
 * api.c - the functions of sqs.h: each checks its arguments and calls rank/ or
 * entropy/, depending on the coding. Only this file knows both.
 */
#include "bits.h"
#include "entropy/packet.h"
#include "entropy/prior.h"
#include "codec.h"
#include "quantize/quantize.h"
#include "rank/fields.h"
#include "rows/values.h"
#include "sqs.h"

static bool is_entropy(const sqs_codec *codec)
{
    return codec->coding == SQS_ENTROPY;
}

static bool prior_fits(const sqs_codec *codec)
{
    const sqs_prior *prior = codec->prior;
    return prior == NULL ||
           (is_entropy(codec) && prior->vocab_size == codec->vocab_size);
}

sqs_status sqs_check_codec(const sqs_codec *codec)
{
    bool ok =
        codec->vocab_size >= SQS_MIN_VOCAB &&
        codec->vocab_size <= SQS_MAX_VOCAB && codec->resolution >= 1 &&
        codec->resolution <= SQS_MAX_RESOLUTION &&
        (codec->coding == SQS_BITPACK || codec->coding == SQS_ENUMERATIVE ||
         codec->coding == SQS_ENTROPY) &&
        prior_fits(codec);
    return ok ? SQS_OK : SQS_BAD_CODEC;
}

/* Rows to distributions. */

static sqs_status check_rows(const sqs_codec *codec, const sqs_rows *rows,
                             double temperature, const sqs_keep *keep)
{
    if (sqs_check_keep(keep) != SQS_OK)
        return SQS_BAD_KEEP;
    sqs_status status = sqs_check_rows(rows, temperature);
    return status == SQS_OK && rows->width != codec->vocab_size
               ? SQS_BAD_ARGUMENT
               : status;
}

static sqs_status quantize_rows(sqs_quantizer *q, const sqs_rows *rows,
                                sqs_sparse_room *to, double *dropped_mass)
{
    sqs_outcome out = {.ids = to->token_ids, .counts = to->counts};
    while (to->done < rows->n) {
        if (dropped_mass)
            out.dropped_mass = dropped_mass + to->done;
        sqs_status status = sqs_quantize_row(q, rows, to->done, &out);
        if (status != SQS_OK)
            return status;
        to->survivors[to->done++] = out.survivors;
        out.ids += out.survivors;
        out.counts += out.survivors;
    }
    return SQS_OK;
}

sqs_status sqs_quantize_logits(const sqs_codec *codec, const sqs_rows *logits,
                               double temperature, const sqs_keep *keep,
                               void *scratch, sqs_sparse_room *to,
                               double *dropped_mass)
{
    to->done = 0;
    sqs_status status = check_rows(codec, logits, temperature, keep);
    if (status != SQS_OK)
        return status;
    sqs_quantizer q =
        sqs_make_quantizer(codec, logits, false, temperature, keep, scratch);
    return quantize_rows(&q, logits, to, dropped_mass);
}

sqs_status sqs_quantize_probs(const sqs_codec *codec, const sqs_rows *probs,
                              const sqs_keep *keep, void *scratch,
                              sqs_sparse_room *to, double *dropped_mass)
{
    to->done = 0;
    sqs_status status = check_rows(codec, probs, 1, keep);
    if (status != SQS_OK)
        return status;
    sqs_quantizer q = sqs_make_quantizer(codec, probs, true, 1, keep, scratch);
    return quantize_rows(&q, probs, to, dropped_mass);
}

/* Distributions. */

static sqs_status check_distribution(const sqs_codec *codec,
                                     const uint32_t *ids,
                                     const uint32_t *counts, uint32_t k)
{
    if (k == 0 || k > sqs_max_survivors(codec))
        return SQS_BAD_DISTRIBUTION;
    uint32_t left = codec->resolution;
    for (uint32_t i = 0; i < k; i++) {
        if (ids[i] >= codec->vocab_size || (i > 0 && ids[i] <= ids[i - 1]))
            return SQS_BAD_DISTRIBUTION;
        if (counts[i] == 0 || counts[i] > left)
            return SQS_BAD_DISTRIBUTION;
        left -= counts[i];
    }
    if (left > 0)
        return SQS_BAD_DISTRIBUTION;
    return k <= sqs_max_packet_survivors(codec) ? SQS_OK : SQS_LARGE_SUPPORT;
}

sqs_status sqs_bits(const sqs_codec *codec, const uint32_t *token_ids,
                    const uint32_t *counts, uint32_t survivors, uint32_t *bits)
{
    sqs_status status =
        check_distribution(codec, token_ids, counts, survivors);
    if (status == SQS_OK)
        *bits = is_entropy(codec)
                    ? sqs_entropy_bits(codec, token_ids, counts, survivors)
                    : sqs_fields_bits(codec, survivors);
    return status;
}

size_t sqs_encode_bound(const sqs_codec *codec, uint32_t survivors)
{
    return sqs_encode_round_bound(codec, 1, survivors);
}

sqs_status sqs_encode(const sqs_codec *codec, const uint32_t *token_ids,
                      const uint32_t *counts, uint32_t survivors,
                      uint8_t *packet, size_t capacity, size_t *size)
{
    sqs_status status =
        check_distribution(codec, token_ids, counts, survivors);
    if (status != SQS_OK)
        return status;
    return is_entropy(codec)
               ? sqs_entropy_encode(codec, token_ids, counts, survivors,
                                    packet, capacity, size)
               : sqs_fields_encode(codec, token_ids, counts, survivors, packet,
                                   capacity, size);
}

sqs_status sqs_decode(const sqs_codec *codec, const uint8_t *packet,
                      size_t size, uint32_t most, uint32_t *token_ids,
                      uint32_t *counts, uint32_t *survivors)
{
    return is_entropy(codec) ? sqs_entropy_decode(codec, packet, size, most,
                                                  token_ids, counts, survivors)
                             : sqs_fields_decode(codec, packet, size, most,
                                                 token_ids, counts, survivors);
}

sqs_status sqs_encode_rows(const sqs_codec *codec, const sqs_sparse_rows *rows,
                           uint8_t *packets, size_t capacity, size_t *sizes,
                           uint32_t *done)
{
    const uint32_t *ids = rows->token_ids, *counts = rows->counts;
    for (*done = 0; *done < rows->length; ++*done) {
        uint32_t k = rows->survivors[*done];
        size_t *size = &sizes[*done];
        sqs_status status =
            sqs_encode(codec, ids, counts, k, packets, capacity, size);
        if (status != SQS_OK)
            return status;
        ids += k;
        counts += k;
        packets += *size;
        capacity -= *size;
    }
    return SQS_OK;
}

sqs_status sqs_decode_rows(const sqs_codec *codec, const uint8_t *packets,
                           const size_t *sizes, uint32_t n, uint32_t most,
                           sqs_sparse_room *to)
{
    uint32_t *ids = to->token_ids, *counts = to->counts;
    for (to->done = 0; to->done < n; to->done++) {
        uint32_t *k = &to->survivors[to->done];
        size_t size = sizes[to->done];
        sqs_status status =
            sqs_decode(codec, packets, size, most, ids, counts, k);
        if (status != SQS_OK)
            return status;
        packets += size;
        ids += *k;
        counts += *k;
    }
    return SQS_OK;
}

/* Rounds. */

/* Checks a round or, if positions is null, a sequence. */
static sqs_status check_round(const sqs_codec *codec,
                              const sqs_sparse_rows *round,
                              const uint32_t *positions, uint32_t longest)
{
    const uint32_t *ids = round->token_ids, *counts = round->counts;
    if (round->length == 0 || round->length > longest)
        return SQS_BAD_ROUND;
    uint32_t load = 0;
    for (uint32_t i = 0; i < round->length; i++) {
        uint32_t k = round->survivors[i];
        sqs_status status = check_distribution(codec, ids, counts, k);
        if (status != SQS_OK)
            return status;
        if ((positions && positions[i] >= k) ||
            !sqs_within_round(codec, &load, k))
            return SQS_BAD_ROUND;
        ids += k;
        counts += k;
    }
    return SQS_OK;
}

size_t sqs_encode_round_bound(const sqs_codec *codec, uint32_t length,
                              uint32_t survivors)
{
    return is_entropy(codec) ? sqs_entropy_bound(length, survivors)
                             : sqs_fields_bound(codec, length, survivors);
}

sqs_status sqs_encode_round(const sqs_codec *codec,
                            const sqs_sparse_rows *round,
                            const uint32_t *positions, uint8_t *packet,
                            size_t capacity, size_t *size)
{
    sqs_status status = check_round(codec, round, positions, SQS_MAX_ROUND);
    if (status != SQS_OK)
        return status;
    return is_entropy(codec)
               ? sqs_entropy_encode_round(codec, round, positions, packet,
                                          capacity, size)
               : sqs_fields_encode_round(codec, round, positions, packet,
                                         capacity, size);
}

uint32_t sqs_max_round_survivors(const sqs_codec *codec, size_t size)
{
    if (!is_entropy(codec))
        return sqs_fields_most(codec, size);
    return sqs_lesser(SQS_MAX_ROUND * sqs_max_survivors(codec),
                      SQS_MAX_ENTROPY_SURVIVORS);
}

sqs_status sqs_decode_round(const sqs_codec *codec, const uint8_t *packet,
                            size_t size, uint32_t most, sqs_sparse_room *to,
                            uint32_t *positions)
{
    return is_entropy(codec) ? sqs_entropy_decode_round(codec, packet, size,
                                                        most, to, positions)
                             : sqs_fields_decode_round(codec, packet, size,
                                                       most, to, positions);
}

/* Sequences. */

size_t sqs_encode_sequence_bound(uint32_t length, uint32_t survivors)
{
    return sqs_entropy_bound(length, survivors);
}

sqs_status sqs_encode_sequence(const sqs_codec *codec,
                               const sqs_sparse_rows *sequence,
                               uint8_t *packet, size_t capacity, size_t *size)
{
    if (!is_entropy(codec))
        return SQS_BAD_ARGUMENT;
    sqs_status status = check_round(codec, sequence, NULL, SQS_MAX_SEQUENCE);
    if (status != SQS_OK)
        return status;
    return sqs_entropy_encode_sequence(codec, sequence, packet, capacity,
                                       size);
}

sqs_status sqs_decode_sequence(const sqs_codec *codec, const uint8_t *packet,
                               size_t size, uint32_t length, uint32_t most,
                               sqs_sparse_room *to)
{
    return is_entropy(codec) ? sqs_entropy_decode_sequence(codec, packet, size,
                                                           length, most, to)
                             : SQS_BAD_ARGUMENT;
}

uint32_t sqs_version_number(void)
{
    return SQS_VERSION_NUMBER;
}

const char *sqs_status_text(sqs_status status)
{
    static const char *const texts[] = {
        [SQS_OK] = "no error",
        [SQS_TRUNCATED] = "the packet ends inside a field",
        [SQS_TRAILING_BYTES] = "bytes follow the packet's last field",
        [SQS_PADDING] = "the last byte is not the one that an encoder writes",
        [SQS_SUPPORT_SIZE] = "the support is larger than the codec allows",
        [SQS_RANK] = "the rank is too large",
        [SQS_TOKEN_ID] = "a token id lies outside the vocabulary",
        [SQS_TOKEN_ORDER] = "the token ids do not ascend",
        [SQS_COUNTS] = "the counts exceed the resolution",
        [SQS_TOKEN_POSITION] = "a drafted token lies outside its support",
        [SQS_ROUND_SUPPORT] = "the sum of the support sizes is too large",
        [SQS_BAD_CODEC] =
            "a field of the codec is out of range, or its prior does not fit",
        [SQS_BAD_DISTRIBUTION] = "not a distribution of this codec",
        [SQS_LARGE_SUPPORT] = "the support is larger than the coding allows",
        [SQS_BAD_ROUND] = "not a round that the coding can hold",
        [SQS_BAD_PRIOR] = "not a prior file, or a damaged one",
        [SQS_BAD_KEEP] = "a number of the keep rule is out of range",
        [SQS_BAD_TEMPERATURE] = "the temperature is negative or not finite",
        [SQS_BAD_DTYPE] = "the function does not take this type of values",
        [SQS_BAD_ARGUMENT] =
            "an argument is out of range, or does not fit the others",
        [SQS_NO_SPACE] = "the buffer is too small",
        [SQS_OVER_LIMIT] = "more tokens than the receiver's limit",
        [SQS_NOT_FINITE] = "a value is NaN or infinite",
        [SQS_ALL_MASKED] = "every logit is -infinity",
        [SQS_NEGATIVE] = "a probability is negative",
        [SQS_SUM] = "the probabilities do not sum to 1",
    };
    bool is_known = (size_t)status < sizeof texts / sizeof *texts;
    return is_known ? texts[status] : "unknown status";
}
