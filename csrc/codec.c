/*
 * codec.c - what a codec allows.
 */
#include "codec.h"

#include "bits.h"

static bool takes_prior(const sqs_codec *codec, const sqs_prior *prior)
{
    return prior == NULL || (codec->coding == SQS_ENTROPY &&
                             prior->vocab_size == codec->vocab_size);
}

sqs_status sqs_check_codec(const sqs_codec *codec)
{
    bool ok =
        codec->vocab_size >= SQS_MIN_VOCAB &&
        codec->vocab_size <= SQS_MAX_VOCAB && codec->resolution >= 1 &&
        codec->resolution <= SQS_MAX_RESOLUTION &&
        (codec->coding == SQS_BITPACK || codec->coding == SQS_ENUMERATIVE ||
         codec->coding == SQS_ENTROPY) &&
        takes_prior(codec, codec->prior) &&
        codec->isa <= SQS_NEON && /* where enums are short, too */
        sqs_find_isa(codec->isa) != SQS_ISA_BEST;
    return ok ? SQS_OK : SQS_BAD_CODEC;
}

uint32_t sqs_max_survivors(const sqs_codec *codec)
{
    return sqs_lesser(codec->vocab_size, codec->resolution);
}

uint32_t sqs_max_support(const sqs_codec *codec)
{
    uint32_t most = sqs_max_survivors(codec);
    return codec->coding == SQS_ENUMERATIVE
               ? sqs_lesser(most, SQS_MAX_ENUMERATIVE_SUPPORT)
               : most;
}

bool sqs_within_round(const sqs_codec *codec, uint32_t *load, uint32_t k)
{
    switch (codec->coding) {
    case SQS_BITPACK:
        break;
    case SQS_ENUMERATIVE:
        *load += k * k;
        return *load <= SQS_MAX_ENUMERATIVE_SQUARES;
    case SQS_ENTROPY:
        *load += k;
        return *load <= SQS_MAX_ENTROPY_SURVIVORS;
    }
    return true;
}
