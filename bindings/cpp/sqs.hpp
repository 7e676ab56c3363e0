/*
 * sqs.hpp - the SQS codec core for C++17: containers own the memory, and any
 * status other than SQS_OK is thrown. sqs.h documents all functions.
 */
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "sqs.h"

namespace sqs
{
using bytes = std::vector<uint8_t>;
using numbers = std::vector<uint32_t>;

struct error : std::runtime_error {
    sqs_status status;
    explicit error(sqs_status s)
        : std::runtime_error(sqs_status_text(s)), status(s)
    {
    }
};

inline void check(sqs_status status)
{
    if (status != SQS_OK)
        throw error(status);
}

/* Memory aligned as malloc aligns. */
using scratch = std::unique_ptr<std::max_align_t[]>;
inline scratch allocate(size_t size)
{
    return scratch(new std::max_align_t[size / sizeof(std::max_align_t) + 1]);
}

struct distribution {
    numbers token_ids, counts;

    /* Samples a position; `number` is uniform below the sum of the counts. */
    uint32_t sample(uint32_t number) const
    {
        return sqs_sample(counts.data(), uint32_t(counts.size()), number);
    }
};

struct round {
    numbers token_ids, counts, survivors, positions;

    void push(const distribution &q, uint32_t position)
    {
        const numbers &ids = q.token_ids;
        if (ids.size() != q.counts.size() || position >= ids.size())
            throw std::invalid_argument(
                "push: the counts or the position don't fit the token ids");
        token_ids.insert(token_ids.end(), ids.begin(), ids.end());
        counts.insert(counts.end(), q.counts.begin(), q.counts.end());
        survivors.push_back(uint32_t(ids.size()));
        positions.push_back(position);
    }

    /* For functions of sqs.h, which take the positions separately. */
    sqs_sparse_rows view() const
    {
        return {uint32_t(survivors.size()), token_ids.data(), counts.data(),
                survivors.data()};
    }
};

/* A prior; it must outlive the codecs that use it. */
struct prior {
    scratch room;
    const sqs_prior *c;
    explicit prior(const bytes &file)
        : room(allocate(sqs_prior_memory(file.data(), file.size())))
    {
        check(sqs_load_prior(file.data(), file.size(), room.get(), &c));
    }
};

struct codec {
    sqs_codec c;
    uint32_t isa = uint32_t(sqs_find_isa(SQS_ISA_BEST));
    codec(uint32_t vocab_size, uint32_t resolution,
          sqs_coding coding = SQS_ENTROPY, const prior *known = nullptr)
        : c{vocab_size, resolution, uint32_t(coding),
            known ? known->c : nullptr}
    {
        check(sqs_check_codec(&c));
    }

    distribution quantize(const float *logits, const sqs_keep &keep,
                          double temperature) const
    {
        uint32_t most = sqs_max_survivors(&c), k;
        distribution q{numbers(most), numbers(most)};
        scratch s = allocate(sqs_quantize_scratch(&c));
        sqs_rows r = rows(logits, 1);
        sqs_sparse_room to{q.token_ids.data(), q.counts.data(), &k, 0};
        check(sqs_quantize_logits(&c, &r, temperature, &keep, s.get(), &to,
                                  nullptr));
        q.token_ids.resize(k);
        q.counts.resize(k);
        return q;
    }

    bytes encode(const distribution &q) const
    {
        if (q.token_ids.size() != q.counts.size())
            throw error(SQS_BAD_DISTRIBUTION);
        uint32_t k = uint32_t(q.counts.size());
        bytes packet(sqs_encode_bound(&c, k));
        size_t n = packet.size();
        check(sqs_encode(&c, q.token_ids.data(), q.counts.data(), k,
                         packet.data(), n, &n));
        packet.resize(n);
        return packet;
    }

    /* Reads a packet of `encode`, which may be hostile; `most` limits the
     * support size. */
    distribution decode(const bytes &b, uint32_t most) const
    {
        most = std::min(most, sqs_max_survivors(&c));
        uint32_t k;
        distribution q{numbers(most), numbers(most)};
        check(sqs_decode(&c, b.data(), b.size(), most, q.token_ids.data(),
                         q.counts.data(), &k));
        q.token_ids.resize(k);
        q.counts.resize(k);
        return q;
    }

    bytes encode_round(const round &r) const
    {
        sqs_sparse_rows v = r.view();
        uint32_t survivors = uint32_t(r.counts.size());
        bytes packet(sqs_encode_round_bound(&c, v.length, survivors));
        size_t n = packet.size();
        check(sqs_encode_round(&c, &v, r.positions.data(), packet.data(), n,
                               &n));
        packet.resize(n);
        return packet;
    }

    /* Reads a packet of `encode_round`, which may be hostile; `most` limits
     * the sum of support sizes. It also reads many packets of `encode`: see
     * sqs_decode in sqs.h. */
    round decode_round(const bytes &b, uint32_t most) const
    {
        most = std::min(most, sqs_max_round_survivors(&c, b.size()));
        numbers entries(most), items(SQS_MAX_ROUND);
        round r{entries, entries, items, items};
        sqs_sparse_room to{r.token_ids.data(), r.counts.data(),
                           r.survivors.data(), 0};
        check(sqs_decode_round(&c, b.data(), b.size(), most, &to,
                               r.positions.data()));
        r.survivors.resize(to.done);
        r.positions.resize(to.done);
        size_t k = std::accumulate(to.survivors, to.survivors + to.done, 0u);
        r.token_ids.resize(k);
        r.counts.resize(k);
        return r;
    }

    /* Takes one row of target logits and one draw per token of the round, and
     * one more of each. */
    sqs_verdict verify(const round &r, const float *logits, double temperature,
                       const std::vector<double> &draws) const
    {
        sqs_sparse_rows d = r.view();
        if (draws.size() != d.length + 1u)
            throw std::invalid_argument(
                "verify: needs one draw per token, and one more");
        for (double u : draws)
            if (!(u >= 0 && u < 1))
                throw std::invalid_argument("verify: draws must be in [0, 1)");
        for (uint32_t id : r.token_ids)
            if (id >= c.vocab_size)
                throw std::invalid_argument(
                    "verify: a token id lies outside the vocabulary");
        sqs_rows target = rows(logits, d.length + 1);
        scratch s = allocate(sqs_verify_scratch(&target));
        sqs_verdict v;
        check(sqs_verify_logits(&d, r.positions.data(), &target, temperature,
                                draws.data(), s.get(), &v));
        return v;
    }

    /* n rows of logits, one after the other. */
    sqs_rows rows(const float *logits, uint32_t n) const
    {
        return {logits, SQS_F32, isa, n, c.vocab_size, c.vocab_size};
    }
};
} // namespace sqs
