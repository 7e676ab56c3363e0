/*
 * codec.c - the limits of codec.h.
 */
#include "codec.h"

#include "bits.h"

uint32_t sqs_max_survivors(const sqs_codec *codec)
{
    return sqs_lesser(codec->vocab_size, codec->resolution);
}

uint32_t sqs_max_packet_survivors(const sqs_codec *codec)
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
