/*
 * message.h - packets of the entropy coding; packet.c decides for which codecs.
 *
 * The functions do what those of sqs.h do that are named alike. Arguments are
 * checked, but for the positions and the sizes of a round.
 */
#ifndef SQS_MESSAGE_H
#define SQS_MESSAGE_H

#include "sqs.h"

uint32_t sqs_message_bits(const sqs_codec *codec, const uint32_t *token_ids,
                          const uint32_t *counts, uint32_t survivors);

size_t sqs_message_bound(uint64_t length, uint64_t survivors);

size_t sqs_message_tokens_bound(uint64_t length);

sqs_status sqs_message_encode(const sqs_codec *codec,
                              const uint32_t *token_ids,
                              const uint32_t *counts, uint32_t survivors,
                              uint8_t *packet, size_t capacity, size_t *size);

sqs_status sqs_message_decode(const sqs_codec *codec, const uint8_t *packet,
                              size_t size, uint32_t *token_ids,
                              uint32_t *counts, uint32_t *survivors);

sqs_status sqs_message_encode_round(
    const sqs_codec *codec, sqs_memory *memory, uint32_t length,
    const uint32_t *token_ids, const uint32_t *counts,
    const uint32_t *survivors, const uint32_t *positions, uint8_t *packet,
    size_t capacity, size_t *size);

sqs_status sqs_message_decode_round(const sqs_codec *codec,
                                    sqs_memory *memory, const uint8_t *packet,
                                    size_t size, uint32_t *token_ids,
                                    uint32_t *counts, size_t capacity,
                                    uint32_t *survivors, uint32_t *positions,
                                    uint32_t *length);

sqs_status sqs_message_encode_tokens(const sqs_codec *codec, uint32_t length,
                                     const uint32_t *tokens,
                                     const uint32_t *counts,
                                     const uint32_t *resolutions,
                                     uint8_t *packet, size_t capacity,
                                     size_t *size);

sqs_status sqs_message_decode_tokens(const sqs_codec *codec,
                                     const uint8_t *packet, size_t size,
                                     uint32_t *tokens, uint32_t *counts,
                                     uint32_t *resolutions, uint32_t *length);

#endif /* SQS_MESSAGE_H */
