/*
 * sqs.h - the public interface of the SQS codec core.
 *
 * SQS (arXiv 2510.09942) truncates and quantizes the token distribution of a
 * draft model before it samples a token: it keeps a few tokens, and rounds
 * their probabilities to integer counts that sum to a fixed resolution. This
 * core does the integer work: logits to counts, counts to bytes, and back.
 *
 * Rules that hold for every function here:
 *
 *  - The core allocates nothing, keeps no state and touches no globals, so any
 *    number of threads may call it at once. The caller owns all memory; every
 *    buffer's size comes from a function of this header.
 *  - Identical input gives identical output on every machine and with every
 *    instruction set (see sqs_isa), provided that the core is compiled without
 *    floating-point contraction, which gcc and clang are told in the source
 *    (others take -ffp-contract=off or the like), and runs in the default
 *    floating-point environment (round to nearest, subnormals not flushed).
 *    In another one nothing is overrun either, and both ends still hold the
 *    same integers. Where subnormals are flushed, other tokens may be kept or
 *    accepted only if a row has values of type float, bfloat16 or double that
 *    are subnormal, if a temperature, parameter or draw is below 2^-100, or a
 *    temperature above 2^100.
 *  - A function that returns sqs_status writes its outputs completely when it
 *    returns SQS_OK. Otherwise their contents are meaningless, except for
 *    `done` where there is one, and nothing was written outside them.
 *  - Pointers must not be null and outputs must not overlap inputs. If another
 *    thread writes to a row during a call, the results are meaningless, but
 *    nothing is overrun.
 *  - Every function except sqs_check_codec expects a codec that
 *    sqs_check_codec accepts, and rows whose `isa` is SQS_ISA_BEST or what
 *    sqs_find_isa returned.
 *
 * docs/format.md defines the bytes.
 */
#ifndef SQS_H
#define SQS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Marks the exports of a shared library. Define SQS_SHARED to compile or use
 * one, and SQS_BUILD to compile it; a static library needs neither.
 */
#if !defined SQS_SHARED
#define SQS_API
#elif defined _WIN32 && defined SQS_BUILD
#define SQS_API __declspec(dllexport)
#elif defined _WIN32
#define SQS_API __declspec(dllimport)
#else
#define SQS_API __attribute__((visibility("default")))
#endif

/* The version of this core, and of the bytes that it writes and reads. */
#define SQS_VERSION_MAJOR 0
#define SQS_VERSION_MINOR 1
#define SQS_VERSION_PATCH 0
#define SQS_FORMAT_VERSION 1

/* For comparisons: 100 for 0.1.0, and 10203 for 1.2.3. */
#define SQS_VERSION_NUMBER                                                    \
    (10000 * SQS_VERSION_MAJOR + 100 * SQS_VERSION_MINOR + SQS_VERSION_PATCH)

/* SQS_VERSION_NUMBER of the library in use, which may differ from this
 * header's. */
SQS_API
uint32_t sqs_version_number(void);

/* Limits of the format. */
#define SQS_MIN_VOCAB 2u
#define SQS_MAX_VOCAB (1u << 20)
#define SQS_MAX_RESOLUTION (1u << 16)
#define SQS_MAX_ROUND 256u
#define SQS_MAX_SEQUENCE (1u << 16)
#define SQS_MAX_ENUMERATIVE_SUPPORT 1024u
/* Sums over a round or sequence: of k^2, and of k. */
#define SQS_MAX_ENUMERATIVE_SQUARES (8u << 20)
#define SQS_MAX_ENTROPY_SURVIVORS (1u << 20)

/* The largest distance from 1 of a row's sum of probabilities. */
#define SQS_SUM_TOLERANCE 1e-3

typedef enum sqs_status {
    SQS_OK = 0,

    /* Rules of the format that a packet breaks; sqs_status_text describes
     * them. */
    SQS_TRUNCATED = 1,
    SQS_TRAILING_BYTES = 2,
    SQS_PADDING = 3,
    SQS_SUPPORT_SIZE = 4,
    SQS_RANK = 5,
    SQS_TOKEN_ID = 6,
    SQS_TOKEN_ORDER = 7,
    SQS_COUNTS = 8,
    SQS_TOKEN_POSITION = 9,
    SQS_ROUND_SUPPORT = 10,

    /* Arguments that cannot be used. */
    /* A field of the codec is outside its limits, or its prior doesn't fit. */
    SQS_BAD_CODEC = 11,
    /* Not a point of this codec's lattice. */
    SQS_BAD_DISTRIBUTION = 12,
    /* The support is larger than this coding allows. */
    SQS_LARGE_SUPPORT = 13,
    /* A round has no or too many distributions, a drafted token outside its
     * support, or more tokens in all than the coding can hold. */
    SQS_BAD_ROUND = 14,
    /* Not a prior file, or a damaged one. */
    SQS_BAD_PRIOR = 15,
    /* A number of a keep rule is out of range. */
    SQS_BAD_KEEP = 16,
    /* Negative, infinite or NaN. */
    SQS_BAD_TEMPERATURE = 17,
    /* The function doesn't take values of this type. */
    SQS_BAD_DTYPE = 18,
    /* Another argument is out of range, or doesn't fit the others. */
    SQS_BAD_ARGUMENT = 19,
    /* An output buffer is too small. */
    SQS_NO_SPACE = 20,
    /* A packet holds more tokens than the receiver's limit. */
    SQS_OVER_LIMIT = 21,

    /* Rows that are not distributions. */
    /* NaN or infinite, except logits of -infinity. */
    SQS_NOT_FINITE = 22,
    /* Every logit is -infinity. */
    SQS_ALL_MASKED = 23,
    /* A probability is negative. */
    SQS_NEGATIVE = 24,
    /* Probabilities do not sum to 1 within SQS_SUM_TOLERANCE. */
    SQS_SUM = 25
} sqs_status;

/* A short English description of a status; never null, statically owned. */
SQS_API
const char *sqs_status_text(sqs_status status);

/* How a distribution is written as bits. */
typedef enum sqs_coding {
    /* Fixed-width fields; any support. */
    SQS_BITPACK = 0,
    /* Exact ranks; supports of at most SQS_MAX_ENUMERATIVE_SUPPORT tokens. The
     * squares of a round's support sizes sum to at most
     * SQS_MAX_ENUMERATIVE_SQUARES, which bounds the time for a packet. */
    SQS_ENUMERATIVE = 1,
    /* A model fitted to language models; any support, at most
     * SQS_MAX_ENTROPY_SURVIVORS tokens in a round. */
    SQS_ENTROPY = 2
} sqs_coding;

/*
 * The instruction sets that the loops over rows are compiled for. All give the
 * same results; SQS_ISA_BEST is the fastest one of this machine. SQS_SCALAR is
 * C without intrinsics, SQS_AVX2 includes FMA and F16C, SQS_AVX512 includes F,
 * BW, DQ and VL, and SQS_NEON is for AArch64.
 */
typedef enum sqs_isa {
    SQS_ISA_BEST = 0,
    SQS_SCALAR = 1,
    SQS_AVX2 = 2,
    SQS_AVX512 = 3,
    SQS_NEON = 4
} sqs_isa;

/* The instruction set that `isa` stands for on this machine: the fastest for
 * SQS_ISA_BEST, otherwise `isa` itself, or SQS_ISA_BEST if this machine or
 * build lacks it. Call it once and put the answer into sqs_rows: on x86-64,
 * every call with SQS_ISA_BEST queries the processor, which takes 8 us in a
 * virtual machine. */
SQS_API
sqs_isa sqs_find_isa(sqs_isa isa);

/*
 * A prior: token frequencies that both ends share. Contexts fall into classes
 * (a word begins, a word goes on, Chinese, ...), and each class gives every id
 * a weight. docs/format.md defines the file of a prior.
 *
 * Only sqs_load_prior writes to a prior, so any number of codecs and threads
 * may share one.
 */
#define SQS_MAX_PRIOR_CLASSES 32u

typedef struct sqs_prior sqs_prior;

/* Bytes of memory that sqs_load_prior needs for a file of `size` bytes, or 0
 * if the header isn't a prior file's. A prior of 32 classes for 262 144 ids
 * needs 2.6 MB. A damaged or hostile header can ask for 10 MB; only
 * sqs_load_prior checks the rest of the file. */
SQS_API
size_t sqs_prior_memory(const uint8_t *file, size_t size);

/*
 * Makes a prior from a file of exactly `size` bytes, which may be hostile.
 *
 * memory  sqs_prior_memory(file, size) bytes, aligned as malloc aligns. They
 *         hold the prior and must outlive it; the file may be freed.
 *
 * Takes time linear in the file's size and in ids times classes.
 *
 * Returns SQS_OK or SQS_BAD_PRIOR.
 */
SQS_API
sqs_status sqs_load_prior(const uint8_t *file, size_t size, void *memory,
                          const sqs_prior **prior);

/* The settings that both ends share. */
typedef struct sqs_codec {
    /* V, SQS_MIN_VOCAB .. SQS_MAX_VOCAB */
    uint32_t vocab_size;
    /* The sum of a distribution's counts, 1 .. SQS_MAX_RESOLUTION */
    uint32_t resolution;
    /* An sqs_coding. */
    uint32_t coding;
    /* Null, or with SQS_ENTROPY a prior of the same vocab_size. */
    const sqs_prior *prior;
} sqs_codec;

/* Returns SQS_OK, or SQS_BAD_CODEC if a field is outside its limits or the
 * prior isn't for this codec. */
SQS_API
sqs_status sqs_check_codec(const sqs_codec *codec);

/*
 * The largest support that a distribution of this codec can have, with any
 * coding: min(vocab_size, resolution), since each count is at least 1.
 */
SQS_API
uint32_t sqs_max_survivors(const sqs_codec *codec);

/* Logits or probabilities to a distribution. */

/* SQS_F16 is IEEE binary16, SQS_BF16 the upper half of a float. */
typedef enum sqs_dtype {
    SQS_F16 = 0,
    SQS_F32 = 1,
    SQS_F64 = 2,
    SQS_BF16 = 3
} sqs_dtype;

/* Rows of values of one sqs_dtype, in the machine's byte order and aligned for
 * their type, and the sqs_isa that reads them. */
typedef struct sqs_rows {
    const void *values;
    uint32_t dtype;
    uint32_t isa;
    /* Number of rows. */
    uint32_t n;
    /* Values per row: the vocabulary size, the codec's if the call has one. */
    uint32_t width;
    /* Values from the start of one row to the start of the next. */
    size_t stride;
} sqs_rows;

/*
 * Which tokens of a row to keep: the `most` most probable ones among those of
 * probability `least` or more. The most probable token is always kept, ties go
 * to the lower token id, and masked tokens (probability 0) are never kept.
 * {k, 0} keeps the k most probable tokens, and {UINT32_MAX, beta} the tokens
 * of probability beta or more.
 */
typedef struct sqs_keep {
    /* At least 1. */
    uint32_t most;
    /* Finite; 0 or below sets no threshold. */
    double least;
} sqs_keep;

/* Bytes of scratch that the sqs_quantize functions need, aligned as malloc
 * aligns. Contents before and after a call mean nothing. */
SQS_API
size_t sqs_quantize_scratch(const sqs_codec *codec);

/*
 * Where distributions are written, in the caller's memory. When quantizing,
 * token_ids and counts have room for sqs_max_survivors(codec) values per row,
 * or keep->most if that is fewer. Functions that decode state their own needs.
 */
typedef struct sqs_sparse_room {
    /* The distributions one after the other, each ascending. */
    uint32_t *token_ids;
    /* All >= 1; each distribution's sum to the codec's resolution. */
    uint32_t *counts;
    /* Each distribution's support size: how many ids and counts it has. */
    uint32_t *survivors;
    /* Written by the core: how many rows are done. If a call fails, `done` is
     * the number of the row that caused the status, unless an argument did. */
    uint32_t done;
} sqs_sparse_room;

/*
 * Turns each row of logits into the nearest lattice point of the tokens kept
 * from softmax(logits / temperature).
 *
 * logits        -infinity masks a token.
 * temperature   0 gives the most probable token all counts.
 * scratch       sqs_quantize_scratch(codec) bytes.
 * dropped_mass  out, one value per row: the probability of the tokens not
 *               kept, before quantization, in [0, 1). May be null, which saves
 *               most of the time if keep->least is 0.
 *
 * Returns SQS_OK, SQS_BAD_KEEP, SQS_BAD_TEMPERATURE, SQS_BAD_DTYPE,
 * SQS_BAD_ARGUMENT, SQS_NOT_FINITE or SQS_ALL_MASKED. The support may be
 * larger than an enumerative packet can hold.
 */
SQS_API
sqs_status sqs_quantize_logits(const sqs_codec *codec, const sqs_rows *logits,
                               double temperature, const sqs_keep *keep,
                               void *scratch, sqs_sparse_room *to,
                               double *dropped_mass);

/*
 * The same for rows of probabilities, which must be non-negative and sum to 1
 * within SQS_SUM_TOLERANCE. They are normalized.
 *
 * Returns SQS_OK, SQS_BAD_KEEP, SQS_BAD_DTYPE, SQS_BAD_ARGUMENT,
 * SQS_NOT_FINITE, SQS_NEGATIVE or SQS_SUM.
 */
SQS_API
sqs_status sqs_quantize_probs(const sqs_codec *codec, const sqs_rows *probs,
                              const sqs_keep *keep, void *scratch,
                              sqs_sparse_room *to, double *dropped_mass);

/*
 * Turns each row of logits into unbiased counts. A token of probability p,
 * however small, gets the count l p rounded up or down, where l is the
 * resolution, and the mean over the random number is l p. No token is dropped
 * first.
 *
 * p is the p of sqs_verify_logits, except that exponentials are rounded to
 * multiples of 2^-42 of the largest. That changes less than 2^-23 of the mass
 * of 2^20 tokens. The total count of the tokens up to any one has exactly the
 * mean l times their total p, rounded down to a multiple of 2^-64.
 *
 * logits       -infinity masks a token.
 * temperature  0 gives the first of the largest logits all counts.
 * numbers      one random number per row, independent and uniform
 * scratch      sqs_quantize_scratch(codec) bytes
 * to           room for sqs_max_survivors(codec) ids and counts per row
 *
 * Returns SQS_OK, SQS_BAD_TEMPERATURE, SQS_BAD_DTYPE, SQS_BAD_ARGUMENT,
 * SQS_NOT_FINITE or SQS_ALL_MASKED.
 */
SQS_API
sqs_status sqs_quantize_unbiased(const sqs_codec *codec,
                                 const sqs_rows *logits, double temperature,
                                 const uint64_t *numbers, void *scratch,
                                 sqs_sparse_room *to);

/*
 * Samples a token from a distribution, exactly.
 *
 * number  uniform in [0, sum of the counts), and independent of the draws of
 *         sqs_verify. (Random bits modulo the sum aren't uniform.)
 *
 * Returns the token's position: the first one at which the running sum of the
 * counts exceeds `number`.
 */
SQS_API
uint32_t sqs_sample(const uint32_t *counts, uint32_t survivors,
                    uint32_t number);

/*
 * C-SQS: updates the threshold of a keep rule after a drafted token,
 *
 *     least = min(1, least - eta * (dropped_mass - alpha)),
 *
 * so that in the long run the mean dropped mass is at most alpha, for any
 * distributions (docs/theory.md has the bound).
 *
 * keep          its `least` is at most 1
 * alpha         in [0, 1]
 * eta           the step; in (0, 1]
 * dropped_mass  of the token's distribution, from sqs_quantize_logits
 *
 * `least` is the whole state: to roll back, restore a copy of it. The
 * threshold must learn only from verified positions. If n of a round's L
 * tokens are accepted (sqs_verdict), roll back to the value after
 * min(n + 1, L) updates. If the round is aborted, roll back to the value
 * before it.
 *
 * Returns SQS_OK, SQS_BAD_KEEP, or SQS_BAD_ARGUMENT if another argument is out
 * of range.
 */
SQS_API
sqs_status sqs_conformal_update(sqs_keep *keep, double alpha, double eta,
                                double dropped_mass);

/* One distribution to bytes and back. */

/* An upper bound on the bytes that sqs_encode writes for this support size. */
SQS_API
size_t sqs_encode_bound(const sqs_codec *codec, uint32_t survivors);

/*
 * The number of bits that a distribution takes, before padding to a byte. With
 * SQS_ENTROPY the number may be off by one. The call takes 40 to 75 % of the
 * time of encoding for distributions of language models, and as long as
 * encoding for others.
 *
 * Returns SQS_OK, SQS_BAD_DISTRIBUTION or SQS_LARGE_SUPPORT.
 */
SQS_API
sqs_status sqs_bits(const sqs_codec *codec, const uint32_t *token_ids,
                    const uint32_t *counts, uint32_t survivors,
                    uint32_t *bits);

/*
 * Writes one distribution. token_ids strictly ascend below vocab_size, counts
 * are >= 1 and sum to resolution; both are checked.
 *
 * Returns SQS_OK, SQS_BAD_DISTRIBUTION, SQS_LARGE_SUPPORT, or SQS_NO_SPACE if
 * capacity is too small (sqs_encode_bound is always enough).
 */
SQS_API
sqs_status sqs_encode(const sqs_codec *codec, const uint32_t *token_ids,
                      const uint32_t *counts, uint32_t survivors,
                      uint8_t *packet, size_t capacity, size_t *size);

/*
 * Reads one distribution from exactly `size` bytes, which may be hostile.
 * Packets don't state their kind: with SQS_ENTROPY this function reads many
 * rounds of one token without an error, and sqs_decode_round reads many
 * packets of sqs_encode as rounds. docs/faq.md has figures.
 *
 * most               the receiver's limit on the support size
 * token_ids, counts  out, room for `most` values each, or for
 *                    sqs_max_survivors(codec) if that is less
 *
 * Takes time linear in `size` and the support size. An enumerative rank takes
 * cubic time, some 25 ms at SQS_MAX_ENUMERATIVE_SUPPORT, and a round may hold
 * eight of those. Larger supports than `most` are rejected before that work.
 *
 * Returns SQS_OK, a status of the format, or SQS_OVER_LIMIT.
 */
SQS_API
sqs_status sqs_decode(const sqs_codec *codec, const uint8_t *packet,
                      size_t size, uint32_t most, uint32_t *token_ids,
                      uint32_t *counts, uint32_t *survivors);

/* Many distributions to bytes and back. */

/* Distributions to read, one after the other in the caller's arrays. */
typedef struct sqs_sparse_rows {
    uint32_t length;
    const uint32_t *token_ids;
    const uint32_t *counts;
    /* `length` support sizes, which divide both arrays. */
    const uint32_t *survivors;
} sqs_sparse_rows;

/*
 * Writes each distribution as sqs_encode does, as a packet of its own.
 *
 * packets  out, one after the other; the sum of all sqs_encode_bound is enough
 *          capacity
 * sizes    out, the bytes of each packet
 * done     out, how many are written, as in sqs_sparse_room
 *
 * Returns what sqs_encode returns.
 */
SQS_API
sqs_status sqs_encode_rows(const sqs_codec *codec, const sqs_sparse_rows *rows,
                           uint8_t *packets, size_t capacity, size_t *sizes,
                           uint32_t *done);

/*
 * Reads n distributions as sqs_decode does, from packets of the given sizes,
 * one after the other.
 *
 * most  the receiver's limit on each support size
 * to    out. token_ids and counts have n times the room that sqs_decode needs
 *
 * Returns what sqs_decode returns.
 */
SQS_API
sqs_status sqs_decode_rows(const sqs_codec *codec, const uint8_t *packets,
                           const size_t *sizes, uint32_t n, uint32_t most,
                           sqs_sparse_room *to);

/* A round: 1 .. SQS_MAX_ROUND distributions and a token sampled from each. */

/* An upper bound on the bytes that sqs_encode_round writes for `length`
 * distributions of `survivors` tokens in all. */
SQS_API
size_t sqs_encode_round_bound(const sqs_codec *codec, uint32_t length,
                              uint32_t survivors);

/*
 * Writes a round. SQS_ENTROPY remembers the round's recent supports, because
 * their tokens are likely to come again.
 *
 * positions  of each drafted token among the token_ids of its distribution
 *
 * Returns what sqs_encode returns, or SQS_BAD_ROUND.
 */
SQS_API
sqs_status sqs_encode_round(const sqs_codec *codec,
                            const sqs_sparse_rows *round,
                            const uint32_t *positions, uint8_t *packet,
                            size_t capacity, size_t *size);

/* The largest sum of support sizes that a round of `size` bytes can have. */
SQS_API
uint32_t sqs_max_round_survivors(const sqs_codec *codec, size_t size);

/*
 * Reads a round from exactly `size` bytes, which may be hostile. sqs_decode
 * says what happens to a packet of another kind.
 *
 * most       the receiver's limit on the sum of support sizes
 * to         out. token_ids and counts have room for `most` values each, or
 *            for sqs_max_round_survivors if that is less; survivors for
 *            SQS_MAX_ROUND values. `done` means nothing unless SQS_OK is
 *            returned.
 * positions  out, as in sqs_encode_round; room for SQS_MAX_ROUND values
 *
 * A packet is rejected as soon as its tokens exceed `most`, before the work
 * that they would take. The format's own limits hold for any `most`: with
 * SQS_ENTROPY, 72 bytes can name 2^20 tokens, which take 8 MB and about 0.1 s.
 *
 * Returns SQS_OK, a status of the format, or SQS_OVER_LIMIT.
 */
SQS_API
sqs_status sqs_decode_round(const sqs_codec *codec, const uint8_t *packet,
                            size_t size, uint32_t most, sqs_sparse_room *to,
                            uint32_t *positions);

/* A sequence: distributions without drafted tokens, such as those of a whole
 * text. SQS_ENTROPY only, and coded as in a round. */

/* An upper bound on the bytes that sqs_encode_sequence writes for `length`
 * distributions of `survivors` tokens in all. */
SQS_API
size_t sqs_encode_sequence_bound(uint32_t length, uint32_t survivors);

/*
 * Writes a sequence.
 *
 * sequence  1 .. SQS_MAX_SEQUENCE distributions
 *
 * Returns what sqs_encode returns, SQS_BAD_ROUND, or SQS_BAD_ARGUMENT for
 * another coding.
 */
SQS_API
sqs_status sqs_encode_sequence(const sqs_codec *codec,
                               const sqs_sparse_rows *sequence,
                               uint8_t *packet, size_t capacity, size_t *size);

/*
 * Reads a sequence from exactly `size` bytes, which may be hostile.
 *
 * length  how many distributions to read, from the first on: SQS_MAX_SEQUENCE
 *         for all. The rest of the packet isn't read.
 * most    the receiver's limit on the sum of the support sizes read
 * to      out. token_ids and counts have room for `most` values each, or for
 *         SQS_MAX_ENTROPY_SURVIVORS if that is less; survivors for `length`
 *         or `most` values, whichever is less.
 *
 * As in sqs_decode_round, a packet is rejected as soon as its tokens exceed
 * `most`.
 *
 * Returns SQS_OK, a status of the format, SQS_OVER_LIMIT, or SQS_BAD_ARGUMENT
 * for another coding.
 */
SQS_API
sqs_status sqs_decode_sequence(const sqs_codec *codec, const uint8_t *packet,
                               size_t size, uint32_t length, uint32_t most,
                               sqs_sparse_room *to);

/* Verifying a round; this needs no codec. */

/* Bytes of scratch that sqs_verify and sqs_verify_logits need for these rows,
 * aligned as malloc aligns. SIZE_MAX, so that allocating fails, if no codec
 * has their width or no round has that many. */
SQS_API
size_t sqs_verify_scratch(const sqs_rows *target);

/* The result of verifying a round. */
typedef struct sqs_verdict {
    /* How many tokens are accepted, from the first on. */
    uint32_t accepted;
    /* The token that follows them. */
    uint32_t token;
    /* How many target rows are valid. If a call fails, `done` is the number of
     * the row that caused the status, unless an argument did. */
    uint32_t done;
} sqs_verdict;

/*
 * Accepts a prefix of a round's tokens and samples the token after it. A token
 * x with count b of resolution l is accepted with probability
 * min(1, p(x) l/b). After the first rejection, the next token is sampled from
 * the residual max(0, p - b/l), normalized; if all tokens are accepted, from
 * the last row. The output distribution is exactly the target's.
 *
 * round     a valid round, as from sqs_decode_round, or one of length 0. It
 *           isn't checked. The resolution of each distribution is the sum of
 *           its counts.
 * positions of the drafted tokens, also as from sqs_decode_round
 * target    length + 1 rows of probabilities, SQS_F32 or SQS_F64: row i is
 *           for the position of token i, the last row for the position after
 *           all tokens; non-negative, summing to 1 within SQS_SUM_TOLERANCE
 * draws     length + 1 random numbers in [0, 1), independent of those that
 *           sampled the tokens. They aren't checked: with NaN, for example,
 *           the verdict means nothing. draws[i] decides about token i, and
 *           after n accepted tokens draws[min(n + 1, length)] samples the next
 * scratch   sqs_verify_scratch(target) bytes
 *
 * Returns SQS_OK, SQS_BAD_DTYPE, SQS_BAD_ARGUMENT, SQS_NOT_FINITE,
 * SQS_NEGATIVE or SQS_SUM.
 */
SQS_API
sqs_status sqs_verify(const sqs_sparse_rows *round, const uint32_t *positions,
                      const sqs_rows *target, const double *draws,
                      void *scratch, sqs_verdict *verdict);

/*
 * The same for rows of the target's logits.
 *
 * p is softmax(logits / temperature) in single precision, except for the sum.
 * Its relative error is some 2^-23 for the most probable tokens and less than
 * 2^-16 for others, and p below 2^-100 of the largest is 0. (This holds for
 * logits that differ by less than 2^127, at temperatures from 2^-100 to
 * 2^100.) p is the same on every machine, and the output distribution is
 * exactly p.
 *
 * target       length + 1 rows as for sqs_verify, but of any type; -infinity
 *              masks a token
 * temperature  the target's; at 0, the first of the largest logits has
 *              probability 1
 * scratch      sqs_verify_scratch(target) bytes
 *
 * All rows are checked, but exponentials are computed only for those up to the
 * first rejection.
 *
 * Returns SQS_OK, SQS_BAD_TEMPERATURE, SQS_BAD_DTYPE, SQS_BAD_ARGUMENT,
 * SQS_NOT_FINITE or SQS_ALL_MASKED.
 */
SQS_API
sqs_status sqs_verify_logits(const sqs_sparse_rows *round,
                             const uint32_t *positions, const sqs_rows *target,
                             double temperature, const double *draws,
                             void *scratch, sqs_verdict *verdict);

/* Sampling with shared random numbers. */

#define SQS_MAX_GUESSES 8u

/* Bytes of scratch that sqs_gumbel needs, as for sqs_verify. */
SQS_API
size_t sqs_gumbel_scratch(const sqs_rows *logits);

/* Where the best tokens of each row are written, in the caller's memory, with
 * room for `most` ids and scores per row. */
typedef struct sqs_guesses {
    /* The best first. */
    uint32_t *token_ids;
    /* Ascending. The chance that a similar distribution yields this token is
     * about proportional to 1 / score. */
    double *scores;
    /* How many tokens each row has: fewer than `most` if fewer can be sampled.
     * The rest of the room is left as it was. */
    uint32_t *found;
    /* Written by the core, as in sqs_sparse_room. */
    uint32_t done;
} sqs_guesses;

/*
 * Samples a token of softmax(logits / temperature) for each row, with random
 * numbers that a key and a position determine, and lists the runners-up. They
 * are this end's guesses at the token that another end, with other logits,
 * samples with the same numbers. Ends with the same logits get the same
 * result, bit for bit.
 *
 * The distribution of the best token is within a total variation of 2^-39 of
 * the softmax for up to 2^18 logits, and within 2^-37 for more; section 9 of
 * docs/theory.md has the proof.
 *
 * logits       rows of any type; -infinity masks a token
 * temperature  below 2^-100, the largest logits are the best, and scores are
 *              the negated logits
 * key          four words that nobody who may choose the text can predict
 * position     of the first row; row i has position + i. Use each of a key's
 *              2^64 positions for one token of one text only.
 * most         how many tokens to list per row, 1 to SQS_MAX_GUESSES
 * scratch      sqs_gumbel_scratch(logits) bytes
 *
 * Ties go to the lower id.
 *
 * Returns SQS_OK, SQS_BAD_TEMPERATURE, SQS_BAD_DTYPE, SQS_BAD_ARGUMENT,
 * SQS_NOT_FINITE or SQS_ALL_MASKED.
 */
SQS_API
sqs_status sqs_gumbel(const sqs_rows *logits, double temperature,
                      const uint32_t key[4], uint64_t position, uint32_t most,
                      void *scratch, sqs_guesses *to);

#ifdef __cplusplus
}
#endif

#endif /* SQS_H */
