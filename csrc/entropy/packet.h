/*
 * packet.h - packets of the entropy coding.
 *
 * Functions do what their namesakes in sqs.h do, but don't check arguments.
 * rank/fields.h has the same for the other codings.
 */
#ifndef SQS_PACKET_H
#define SQS_PACKET_H

#include "sqs.h"

uint32_t sqs_entropy_bits(const sqs_codec *codec, const uint32_t *token_ids,
                          const uint32_t *counts, uint32_t survivors);

/* An upper bound on the bytes of a packet of any kind. */
size_t sqs_entropy_bound(uint64_t length, uint64_t survivors);

sqs_status sqs_entropy_encode(const sqs_codec *codec,
                              const uint32_t *token_ids,
                              const uint32_t *counts, uint32_t survivors,
                              uint8_t *packet, size_t capacity, size_t *size);

sqs_status sqs_entropy_decode(const sqs_codec *codec, const uint8_t *packet,
                              size_t size, uint32_t most, uint32_t *token_ids,
                              uint32_t *counts, uint32_t *survivors);

sqs_status sqs_entropy_encode_round(const sqs_codec *codec,
                                    const sqs_sparse_rows *round,
                                    const uint32_t *positions, uint8_t *packet,
                                    size_t capacity, size_t *size);

sqs_status sqs_entropy_decode_round(const sqs_codec *codec,
                                    const uint8_t *packet, size_t size,
                                    uint32_t most, sqs_sparse_room *round,
                                    uint32_t *positions);

sqs_status sqs_entropy_encode_sequence(const sqs_codec *codec,
                                       const sqs_sparse_rows *sequence,
                                       uint8_t *packet, size_t capacity,
                                       size_t *size);

sqs_status sqs_entropy_decode_sequence(const sqs_codec *codec,
                                       const uint8_t *packet, size_t size,
                                       uint32_t length, uint32_t most,
                                       sqs_sparse_room *sequence);

#endif /* SQS_PACKET_H */
