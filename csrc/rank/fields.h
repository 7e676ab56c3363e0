/*
 * fields.h - packets of the codings bitpack and enumerative.
 *
 * Functions do what their namesakes in sqs.h do, but don't check arguments.
 * entropy/packet.h has the same for the entropy coding.
 */
#ifndef SQS_FIELDS_H
#define SQS_FIELDS_H

#include "sqs.h"

uint32_t sqs_fields_bits(const sqs_codec *codec, uint32_t survivors);

/* An upper bound on the bytes of a round. */
size_t sqs_fields_bound(const sqs_codec *codec, uint64_t length,
                        uint64_t survivors);

/* The largest sum of support sizes that a round of `size` bytes can have. */
uint32_t sqs_fields_most(const sqs_codec *codec, size_t size);

sqs_status sqs_fields_encode(const sqs_codec *codec, const uint32_t *token_ids,
                             const uint32_t *counts, uint32_t survivors,
                             uint8_t *packet, size_t capacity, size_t *size);

sqs_status sqs_fields_decode(const sqs_codec *codec, const uint8_t *packet,
                             size_t size, uint32_t most, uint32_t *token_ids,
                             uint32_t *counts, uint32_t *survivors);

sqs_status sqs_fields_encode_round(const sqs_codec *codec,
                                   const sqs_sparse_rows *round,
                                   const uint32_t *positions, uint8_t *packet,
                                   size_t capacity, size_t *size);

sqs_status sqs_fields_decode_round(const sqs_codec *codec,
                                   const uint8_t *packet, size_t size,
                                   uint32_t most, sqs_sparse_room *round,
                                   uint32_t *positions);

#endif /* SQS_FIELDS_H */
