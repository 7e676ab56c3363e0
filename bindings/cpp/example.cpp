/*
 * example.cpp - a round from logits to a verdict, in C++. Target and draft
 * have the same logits, so only quantization causes rejections.
 */
#include <cmath>
#include <cstdio>
#include <random>
#include <string>

#include "sqs.hpp"

static void check(bool holds, const char *what)
{
    if (!holds)
        throw std::runtime_error(what);
}

template <class Call> static void invalid(const char *message, Call call)
{
    try {
        call();
    } catch (const std::invalid_argument &error) {
        check(std::string(error.what()) == message, error.what());
        return;
    }
    check(false, message);
}

template <class Call> static void refused(sqs_status status, Call call)
{
    try {
        call();
    } catch (const sqs::error &error) {
        check(error.status == status, error.what());
        return;
    }
    check(false, "a packet was accepted");
}

int main()
{
    const uint32_t vocab = 32000, length = 4;
    const sqs_keep keep{64, 0};
    sqs::codec codec(vocab, 100);
    std::mt19937 edge(1), cloud(2);
    std::uniform_int_distribution<uint32_t> number(0, codec.c.resolution - 1);

    std::vector<float> logits((length + 1) * vocab);
    for (float &x : logits) /* a few tokens are likely */
        x = 20 / (1 + 1000 * std::generate_canonical<float, 24>(edge));
    sqs::round drafted;
    for (uint32_t i = 0; i < length; i++) {
        sqs::distribution q = codec.quantize(&logits[i * vocab], keep, 0.7);
        drafted.push(q, q.sample(number(edge)));
    }
    sqs::bytes packet = codec.encode_round(drafted);

    sqs::round got = codec.decode_round(packet, length * 64);
    check(got.token_ids == drafted.token_ids && got.counts == drafted.counts &&
              got.survivors == drafted.survivors &&
              got.positions == drafted.positions,
          "the decoded round differs");
    std::vector<double> draws(length + 1);
    for (double &u : draws)
        u = std::generate_canonical<double, 53>(cloud);
    sqs_verdict verdict = codec.verify(got, logits.data(), 0.7, draws);
    check(verdict.accepted <= length && verdict.token < vocab, "bad verdict");
    std::printf("%zu bytes, %u of %u tokens accepted, then token %u\n",
                packet.size(), verdict.accepted, length, verdict.token);

    refused(SQS_TRUNCATED, [&] { codec.decode_round({}, length * 64); });

    /* Arguments that contradict each other. */
    sqs::round large;
    large.push({{vocab}, {100}}, 0);
    invalid("verify: a token id lies outside the vocabulary", [&] {
        codec.verify(large, logits.data(), 0.7, {0.5, 0.5});
    });
    for (double u : {-0.5, 1.0, std::nan("")})
        invalid("verify: draws must be in [0, 1)",
                [&] { codec.verify({}, logits.data(), 0.7, {u}); });
    invalid("push: the counts or the position don't fit the token ids", [&] {
        large.push({{0, 1}, {50, 50}}, 2);
    });
    invalid("push: the counts or the position don't fit the token ids", [&] {
        large.push({{0, 1}, {100}}, 0);
    });

    /* One distribution, without a drafted token. */
    sqs::distribution q = codec.quantize(logits.data(), keep, 0.7);
    packet = codec.encode(q);
    sqs::distribution same = codec.decode(packet, 64);
    check(same.token_ids == q.token_ids && same.counts == q.counts,
          "the decoded distribution differs");
    uint32_t fewer = uint32_t(q.counts.size()) - 1;
    refused(SQS_OVER_LIMIT, [&] { codec.decode(packet, fewer); });
    refused(SQS_TRUNCATED, [&] { codec.decode({}, 64); });
    q.token_ids.pop_back();
    refused(SQS_BAD_DISTRIBUTION, [&] { codec.encode(q); });
}
