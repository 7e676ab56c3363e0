/*
 * codec.h - what a codec allows, beyond what sqs.h says of it.
 */
#ifndef SQS_CODEC_H
#define SQS_CODEC_H

#include <stdbool.h>

#include "sqs.h"

/* The largest support that this codec's packets can name: that of
 * sqs_max_survivors, and in SQS_ENUMERATIVE at most
 * SQS_MAX_ENUMERATIVE_SUPPORT. */
uint32_t sqs_max_packet_survivors(const sqs_codec *codec);

/* Counts the survivors of a round towards its coding's limit. `load` is 0
 * before the first distribution. Each call adds a distribution of k survivors,
 * and returns false if the round then has too many. */
bool sqs_within_round(const sqs_codec *codec, uint32_t *load, uint32_t k);

#endif /* SQS_CODEC_H */
