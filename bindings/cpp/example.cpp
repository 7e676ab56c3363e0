/*
 * example.cpp - a round from logits to a verdict, in C++. The target's logits
 * are the draft's, so that it rejects only for what the codec has left out.
 */
#include <cstdio>
#include <random>

#include "sqs.hpp"

static void check(bool holds, const char *what)
{
    if (!holds)
        throw std::runtime_error(what);
}

int main()
{
    const uint32_t vocab = 32000, length = 4;
    const sqs_keep keep{SQS_TOP_K, 64};
    sqs::codec codec(vocab, 100);
    std::mt19937 edge(1), cloud(2);
    std::uniform_int_distribution<uint32_t> number(0, codec.c.resolution - 1);

    std::vector<float> logits((length + 1) * vocab);
    for (float &x : logits) /* a few are likely */
        x = 20 / (1 + 1000 * std::generate_canonical<float, 24>(edge));
    sqs::round drafted;
    for (uint32_t i = 0; i < length; i++) {
        sqs::distribution q = codec.quantize(&logits[i * vocab], keep, 0.7);
        drafted.push(q, q.sample(number(edge)));
    }
    sqs::bytes packet = codec.encode(drafted);

    sqs::round got = codec.decode(packet, length * 64);
    check(got.token_ids == drafted.token_ids && got.counts == drafted.counts &&
              got.survivors == drafted.survivors &&
              got.positions == drafted.positions,
          "another round");
    std::vector<double> draws(length + 1);
    for (double &u : draws)
        u = std::generate_canonical<double, 53>(cloud);
    sqs_verdict verdict = codec.verify(got, logits.data(), 0.7, draws);
    check(verdict.accepted <= length && verdict.token < vocab, "no verdict");
    std::printf("%zu bytes, %u of %u tokens accepted, then token %u\n",
                packet.size(), verdict.accepted, length, verdict.token);

    try {
        codec.decode({}, length * 64);
        check(false, "nothing is taken for a round");
    } catch (const sqs::error &refused) {
        check(refused.status == SQS_TRUNCATED, refused.what());
    }
}
