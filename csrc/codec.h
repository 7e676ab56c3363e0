/*
 * codec.h - the limits that a codec sets for packets and rounds.
 */
#ifndef SQS_CODEC_H
#define SQS_CODEC_H

#include <stdbool.h>

#include "sqs.h"

/* The largest support that a packet of this codec can hold:
 * sqs_max_survivors, and with SQS_ENUMERATIVE at most
 * SQS_MAX_ENUMERATIVE_SUPPORT. */
uint32_t sqs_max_packet_survivors(const sqs_codec *codec);

/* Adds a distribution of k tokens to a round; false if the round then exceeds
 * its coding's limit. *load is 0 before the first distribution. */
bool sqs_within_round(const sqs_codec *codec, uint32_t *load, uint32_t k);

#endif /* SQS_CODEC_H */
