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
 *  - Every function except sqs_check_codec expects a codec that sqs_check_codec
 *    accepts, and rows whose `isa` is SQS_ISA_BEST or what sqs_find_isa
 *    returned.
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
    /* A field of the codec is outside its limits, or the prior isn't for it. */
    SQS_BAD_CODEC = 11,
    /* Not a point of this codec's lattice. */
    SQS_BAD_DISTRIBUTION = 12,
    /* More survivors than this coding can hold. */
    SQS_LARGE_SUPPORT = 13,
    /* Not 1 to SQS_MAX_ROUND distributions, or SQS_MAX_SEQUENCE in a sequence,
     * a position outside its support, or more survivors than the coding can
     * hold together. */
    SQS_BAD_ROUND = 14,
    /* Not a prior file, or a damaged one. */
    SQS_BAD_PRIOR = 15,
    /* A number of a keep rule is out of range. */
    SQS_BAD_KEEP = 16,
    /* Negative, infinite or NaN. */
    SQS_BAD_TEMPERATURE = 17,
    /* Not a type of value that the function takes. */
    SQS_BAD_DTYPE = 18,
    /* Another argument is out of range, or doesn't fit the others. */
    SQS_BAD_ARGUMENT = 19,
    /* An output buffer is too small. */
    SQS_NO_SPACE = 20,
    /* A packet has more survivors than the receiver's limit. */
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

/* How a distribution becomes bits. */
typedef enum sqs_coding {
    /* Fixed-width fields; any support. */
    SQS_BITPACK = 0,
    /* Exact ranks; supports of at most SQS_MAX_ENUMERATIVE_SUPPORT survivors,
     * whose squares in a round sum to at most SQS_MAX_ENUMERATIVE_SQUARES,
     * which bounds the time for a packet. */
    SQS_ENUMERATIVE = 1,
    /* Modeled on real distributions; any support, at most
     * SQS_MAX_ENTROPY_SURVIVORS in a round. */
    SQS_ENTROPY = 2
} sqs_coding;

/*
 * The instruction sets that the loops over rows are compiled for. All give the
 * same results; SQS_ISA_BEST is the fastest one of this machine.
 * SQS_SCALAR is C without intrinsics, SQS_AVX2 x86-64 with FMA and F16C,
 * SQS_AVX512 has F, BW, DQ and VL, and SQS_NEON is AArch64.
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
 * build lacks it. Ask once and put the answer into sqs_rows: on x86-64 with
 * SQS_ISA_BEST every call asks the processor again, which takes eight
 * microseconds in a virtual machine. */
SQS_API
sqs_isa sqs_find_isa(sqs_isa isa);

/*
 * A prior: frequencies of a vocabulary's ids that both ends share. Contexts
 * fall into classes (a word begins, a word goes on, Chinese, ...), and in each
 * class every id has a weight. docs/format.md defines the file of a prior.
 *
 * Only sqs_load_prior writes to a prior, so any number of codecs and threads
 * may share one.
 */
#define SQS_MAX_PRIOR_CLASSES 32u

typedef struct sqs_prior sqs_prior;

/* Bytes of memory that sqs_load_prior needs for a file of `size` bytes, or 0
 * if the file begins with something that no prior file does. A prior of
 * 32 classes for 262 144 ids needs 2.6 MB. The header alone is believed: it
 * can ask for 10 MB, and sqs_load_prior checks the rest. */
SQS_API
size_t sqs_prior_memory(const uint8_t *file, size_t size);

/*
 * Makes a prior of exactly `size` bytes of a file, which may be hostile.
 *
 * memory  sqs_prior_memory(file, size) bytes, aligned as malloc aligns, in
 *         which the prior lies for as long as it is in use. The file isn't
 *         needed any more.
 *
 * Time is linear in the file's size, and in the number of ids times the number
 * of classes.
 *
 * Returns SQS_OK or SQS_BAD_PRIOR.
 */
SQS_API
sqs_status sqs_load_prior(const uint8_t *file, size_t size, void *memory,
                          const sqs_prior **prior);

/* The settings that both ends share. The coding is an sqs_coding. */
typedef struct sqs_codec {
    /* V, SQS_MIN_VOCAB .. SQS_MAX_VOCAB */
    uint32_t vocab_size;
    /* The sum of a distribution's counts, 1 .. SQS_MAX_RESOLUTION */
    uint32_t resolution;
    uint32_t coding;
    /* Null for none; SQS_ENTROPY only, and one of the same vocab_size. */
    const sqs_prior *prior;
} sqs_codec;

/* SQS_OK, or SQS_BAD_CODEC if a field is outside its limits, or the prior is
 * not for this codec. */
SQS_API
sqs_status sqs_check_codec(const sqs_codec *codec);

/*
 * The most survivors that a distribution of this codec can have, whatever its
 * coding: min(vocab_size, resolution), since each survivor counts at least 1.
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
 * their type, and the sqs_isa by which they are read. */
typedef struct sqs_rows {
    const void *values;
    uint32_t dtype;
    uint32_t isa;
    /* How many rows. */
    uint32_t n;
    /* Values of a row: the vocabulary's size, and that of the codec if the call
     * has one. */
    uint32_t width;
    /* Values from the start of one row to that of the next. */
    size_t stride;
} sqs_rows;

/*
 * Which tokens of a row to keep: those of probability `least` or more, and of
 * these the `most` most probable ones. The most probable token is always kept,
 * ties go to the lower token id, and masked tokens (probability 0) are never
 * kept. Every rule is a choice of the two numbers: {k, 0} keeps the k most
 * probable tokens, {UINT32_MAX, beta} those of probability beta or more.
 */
typedef struct sqs_keep {
    /* At least 1. */
    uint32_t most;
    /* Finite; at 0 or below no probability is looked at. */
    double least;
} sqs_keep;

/* Bytes of scratch that sqs_quantize_logits and sqs_quantize_probs need,
 * aligned as malloc aligns. Contents before and after a call mean nothing. */
SQS_API
size_t sqs_quantize_scratch(const sqs_codec *codec);

/*
 * Where distributions go, in memory of the caller's. For those of rows, the room
 * for ids and counts is, for each row, sqs_max_survivors(codec) values, or
 * keep->most if that is fewer; what decodes says its own.
 */
typedef struct sqs_sparse_room {
    /* The distributions one after the other, each ascending. */
    uint32_t *token_ids;
    /* All >= 1, those of a distribution summing to the codec's resolution. */
    uint32_t *counts;
    /* How many ids and counts each distribution has. */
    uint32_t *survivors;
    /* Written by the core: how many rows are done; if not all, the next one is
     * to blame for the status. */
    uint32_t done;
} sqs_sparse_room;

/*
 * Turns each row of logits into the nearest lattice point of the tokens kept
 * from softmax(logits / temperature).
 *
 * logits        -infinity masks a token.
 * temperature   0 gives the most probable token all counts.
 * scratch       sqs_quantize_scratch(codec) bytes.
 * dropped_mass  out, a value a row: the probability of the tokens not kept,
 *               before quantization, in [0, 1). Null if it isn't wanted, which
 *               saves most of the time if keep->least is 0.
 *
 * Returns SQS_OK, SQS_BAD_KEEP, SQS_BAD_TEMPERATURE, SQS_BAD_DTYPE,
 * SQS_BAD_ARGUMENT, SQS_NOT_FINITE or SQS_ALL_MASKED. The result may have more
 * survivors than an enumerative packet can hold.
 */
SQS_API
sqs_status sqs_quantize_logits(const sqs_codec *codec, const sqs_rows *logits,
                               double temperature, const sqs_keep *keep,
                               void *scratch, sqs_sparse_room *to,
                               double *dropped_mass);

/*
 * The same for rows of probabilities, which must be non-negative and sum to 1
 * within SQS_SUM_TOLERANCE; what remains of the error is normalized away.
 *
 * Returns SQS_OK, SQS_BAD_KEEP, SQS_BAD_DTYPE, SQS_BAD_ARGUMENT,
 * SQS_NOT_FINITE, SQS_NEGATIVE or SQS_SUM.
 */
SQS_API
sqs_status sqs_quantize_probs(const sqs_codec *codec, const sqs_rows *probs,
                              const sqs_keep *keep, void *scratch,
                              sqs_sparse_room *to, double *dropped_mass);

/*
 * Turns each row of logits into unbiased counts: over the random number, a
 * token's count has the mean l p, with l the resolution and p its probability,
 * however small, and is l p rounded up or down. No token is dropped first.
 *
 * p is that of sqs_verify_logits, but for exponentials that are rounded to
 * multiples of 2^-42 of the largest, which changes less than 2^-23 of the mass
 * of 2^20 tokens. The mean of what the tokens up to any one count together is
 * exactly l times their p, rounded down to a multiple of 2^-64.
 *
 * logits       -infinity masks a token.
 * temperature  0 gives the first of the largest logits all counts.
 * numbers      one for each row, independent and each of 2^64 as likely as the
 *              others
 * scratch      sqs_quantize_scratch(codec) bytes
 * to           room for sqs_max_survivors(codec) ids and counts a row
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
 * Draws a token from a distribution, exactly.
 *
 * number  from 0 up to, not including, the sum of the counts, each as likely
 *         as the others; independent of the draws of sqs_verify. (A remainder
 *         of random bits favors the smaller numbers.)
 *
 * Returns the token's position: the first one that, together with those before
 * it, has more counts than `number`.
 */
SQS_API
uint32_t sqs_sample(const uint32_t *counts, uint32_t survivors,
                    uint32_t number);

/*
 * C-SQS: lets the threshold of a keep rule learn from a drafted token,
 *
 *     least = min(1, least - eta * (dropped_mass - alpha)),
 *
 * so that in the long run the mean mass dropped is at most alpha, whatever the
 * distributions are (docs/theory.md says how soon).
 *
 * keep          its `least` is at most 1
 * alpha         in [0, 1]
 * eta           the step; in (0, 1]
 * dropped_mass  of the token's distribution, as sqs_quantize_logits tells it
 *
 * `least` is the whole state: to roll back, restore a copy of it. Only verified
 * positions may count in the end. If n of a round's L tokens are accepted
 * (sqs_verdict), these are the first min(n + 1, L), the resampled one included:
 * roll back to the value after that many updates. After an aborted round, roll
 * back to the value before it.
 *
 * Returns SQS_OK, SQS_BAD_KEEP, or SQS_BAD_ARGUMENT if any of the others is out
 * of range.
 */
SQS_API
sqs_status sqs_conformal_update(sqs_keep *keep, double alpha, double eta,
                                double dropped_mass);

/* One distribution to bytes and back. */

/* An upper bound in bytes of what sqs_encode writes for so many survivors. */
SQS_API
size_t sqs_encode_bound(const sqs_codec *codec, uint32_t survivors);

/*
 * The number of bits that a distribution takes, before padding to a byte. With
 * SQS_ENTROPY the number may be off by one, and the call takes 40 to 75 % of
 * the time of encoding for distributions of language models, as long as
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
 * Reads one distribution from exactly `size` bytes, which may be hostile. They
 * don't say what they hold: with SQS_ENTROPY many rounds of one token are read
 * here without an error, and sqs_decode_round reads many packets of sqs_encode
 * as rounds. docs/faq.md has figures.
 *
 * most               the receiver's limit: the most survivors that it takes
 * token_ids, counts  out, room for `most` values each, or for
 *                    sqs_max_survivors(codec) if that is less
 *
 * Time is linear in size and survivors, except that an enumerative rank takes
 * time cubic in its survivors, some 25 ms at SQS_MAX_ENUMERATIVE_SUPPORT; a
 * round may hold eight as slow. What has more than `most` survivors is refused
 * before that work is done.
 *
 * Returns SQS_OK, one of the statuses of the format, or SQS_OVER_LIMIT.
 */
SQS_API
sqs_status sqs_decode(const sqs_codec *codec, const uint8_t *packet,
                      size_t size, uint32_t most, uint32_t *token_ids,
                      uint32_t *counts, uint32_t *survivors);

/* Many distributions to bytes and back. */

/* Distributions to be read, one after the other in arrays of the caller's. */
typedef struct sqs_sparse_rows {
    uint32_t length;
    const uint32_t *token_ids;
    const uint32_t *counts;
    /* `length` sizes, which cut both arrays up. */
    const uint32_t *survivors;
} sqs_sparse_rows;

/*
 * Writes distributions as sqs_encode does, a packet each.
 *
 * packets  out, one after the other; a capacity of the sum of all
 *          sqs_encode_bound is enough
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
 * Reads n distributions as sqs_decode does, from packets that lie one after the
 * other and have the sizes given.
 *
 * most  the receiver's limit on each packet
 * to    out. token_ids and counts have room for n times what sqs_decode asks
 *       for
 *
 * Returns what sqs_decode returns.
 */
SQS_API
sqs_status sqs_decode_rows(const sqs_codec *codec, const uint8_t *packets,
                           const size_t *sizes, uint32_t n, uint32_t most,
                           sqs_sparse_room *to);

/* A round: 1 .. SQS_MAX_ROUND distributions and the tokens drawn from them. */

/* An upper bound in bytes of what sqs_encode_round writes for `length`
 * positions with `survivors` token_ids in all. */
SQS_API
size_t sqs_encode_round_bound(const sqs_codec *codec, uint32_t length,
                              uint32_t survivors);

/*
 * Writes a round. With SQS_ENTROPY each distribution is coded with what those
 * before it have left in a memory of recent supports, whose tokens are likely
 * to come again.
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

/* The most survivors, summed over its distributions, that a round of `size`
 * bytes can have. */
SQS_API
uint32_t sqs_max_round_survivors(const sqs_codec *codec, size_t size);

/*
 * Reads a round from exactly `size` bytes, which may be hostile. They must be
 * of sqs_encode_round: sqs_decode says what happens otherwise.
 *
 * most       the receiver's limit: the most survivors, in all, that it takes
 * to         out. token_ids and counts have room for `most` values each, or
 *            for sqs_max_round_survivors if that is less; survivors for
 *            SQS_MAX_ROUND values. `done` means nothing unless SQS_OK is
 *            returned.
 * positions  out, as in sqs_encode_round; room for SQS_MAX_ROUND values
 *
 * A packet is refused as soon as it is known to have more than `most`
 * survivors, before the work that they would take. A `most` above the format's
 * own limits doesn't lift those: with SQS_ENTROPY 72 bytes can name 2^20
 * survivors, which take 8 MB and about 0.1 s.
 *
 * Returns SQS_OK, a status of the format, or SQS_OVER_LIMIT.
 */
SQS_API
sqs_status sqs_decode_round(const sqs_codec *codec, const uint8_t *packet,
                            size_t size, uint32_t most, sqs_sparse_room *to,
                            uint32_t *positions);

/* A sequence: distributions one after the other, without drafted tokens, such
 * as those of a whole text. SQS_ENTROPY only, and coded as in a round. */

/* An upper bound in bytes of what sqs_encode_sequence writes for `length`
 * distributions with `survivors` token_ids in all. */
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
 *         for all. If the packet has more, what follows them isn't read.
 * most    the receiver's limit: the most survivors that it takes, in all
 *         distributions that are read
 * to      out. token_ids and counts have room for `most` values each, or for
 *         SQS_MAX_ENTROPY_SURVIVORS if that is less; survivors for `length`
 *         or `most` values, whichever is less.
 *
 * As with sqs_decode_round, a packet is refused as soon as it is known to have
 * more than `most` survivors.
 *
 * Returns SQS_OK, a status of the format, SQS_OVER_LIMIT, or SQS_BAD_ARGUMENT
 * for another coding.
 */
SQS_API
sqs_status sqs_decode_sequence(const sqs_codec *codec, const uint8_t *packet,
                               size_t size, uint32_t length, uint32_t most,
                               sqs_sparse_room *to);

/* What the cloud does with a round, for which it needs no codec. */

/* Bytes of scratch that sqs_verify and sqs_verify_logits need for such rows,
 * aligned as malloc aligns. SIZE_MAX, which nobody can allocate, if no codec
 * has their width, or no round so many. */
SQS_API
size_t sqs_verify_scratch(const sqs_rows *target);

/* What became of a round. */
typedef struct sqs_verdict {
    /* How many of its tokens, from the first on. */
    uint32_t accepted;
    /* The one that follows them. */
    uint32_t token;
    /* How many target rows are fit for use; if not all, the next one is to
     * blame for the status. */
    uint32_t done;
} sqs_verdict;

/*
 * Accepts a prefix of a round's tokens and draws the one after it. A token x
 * with count b of resolution l is accepted with probability min(1, p(x) l/b).
 * After the first rejection, the next token is drawn from the residual
 * max(0, p - b/l), normalized; if all tokens are accepted, from the last row.
 * The result is distributed as the target's tokens.
 *
 * round     as sqs_decode_round gives it, which isn't checked again, or one of
 *           length 0; the resolution of each distribution is what its counts
 *           sum to, whatever the codec's
 * positions also
 * target    length + 1 rows of probabilities, SQS_F32 or SQS_F64: row i is
 *           for the position of token i, the last row for the position after
 *           all tokens; non-negative, summing to 1 within SQS_SUM_TOLERANCE
 * draws     length + 1 numbers from [0, 1), which isn't checked: with others,
 *           such as NaN, the verdict means nothing; independent of those that
 *           drew the tokens. draws[i] decides about token i, and after n
 *           accepted ones draws[min(n + 1, length)] draws the next token
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
 * p is softmax(logits / temperature) in single precision, but for the sum: off
 * by some 2^-23 of itself for the likeliest tokens, by less than 2^-16 for all
 * others, and 0 for what is below 2^-100 of the largest. (So it is for logits
 * that differ by less than 2^127, at temperatures from 2^-100 to 2^100.) It is
 * the same p on every machine, and as with sqs_verify the result is distributed
 * as it says.
 *
 * target       length + 1 rows as for sqs_verify, but of any type; -infinity
 *              masks a token
 * temperature  the target's; at 0 it has the first of its largest logits and
 *              nothing else
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

/* What both ends draw by numbers that they share. */

#define SQS_MAX_GUESSES 8u

/* Bytes of scratch that sqs_gumbel needs, as for sqs_verify. */
SQS_API
size_t sqs_gumbel_scratch(const sqs_rows *logits);

/* Where the best tokens of rows go, in memory of the caller's, with room for
 * `most` ids and scores for each row. */
typedef struct sqs_guesses {
    /* The best first. */
    uint32_t *token_ids;
    /* Ascending; a token's chance to be what another distribution, that is
     * nearly this one, draws is about in proportion to 1 / score. */
    double *scores;
    /* For each row how many there are: fewer than `most` if fewer can be
     * drawn. The room of the others is left as it was. */
    uint32_t *found;
    /* Written by the core, as in sqs_sparse_room. */
    uint32_t done;
} sqs_guesses;

/*
 * Draws a token of softmax(logits / temperature), for each row, by numbers that
 * a key and a position determine, and names those that come next: what this
 * end guesses of what another end, with other logits, draws by the same
 * numbers. All ends draw alike, bit for bit, if their logits are alike.
 *
 * The law of the best token is within 2^-39 of the softmax of the logits as
 * given, in total variation, if there are 2^18 or fewer, and within 2^-37 in
 * any case. docs/theory.md, section 9, has the numbers and the proof.
 *
 * logits       rows of any type; -infinity masks a token
 * temperature  below 2^-100 the largest logits are the best, and scores are
 *              these with the other sign
 * key          four words that whoever may choose the text can't foresee
 * position     of the first row; row i has position + i. A key has numbers for
 *              2^64 positions, each to be used for one token of one text.
 * most         how many are wanted of a row, 1 to SQS_MAX_GUESSES
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
