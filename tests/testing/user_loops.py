"""Speculative loops as users of the package write them: 6 wrong and 3 right ones.

They were written before the checker could name any of their mistakes. Each function
returns a new loop, because some loops keep state between calls. "state" marks a mistake
that needs an earlier call.
"""

import numpy as np

import sqs_codec as sqs


def softmax(logits, temperature=1.0):
    weights = np.exp((logits - logits.max()) / temperature)
    return weights / weights.sum()


def pick(probs, rng):
    return int(rng.choice(len(probs), p=probs))


def leftover(p, q):
    rest = np.clip(p - q, 0, None)
    return rest / rest.sum() if rest.sum() > 0 else p


def propose(prompt, draft, rng, count):
    """Draft tokens from the dense q."""
    tokens, qs = [], []
    for _ in range(count):
        q = draft([*prompt, *tokens])
        tokens.append(pick(q, rng))
        qs.append(q)
    return tokens, qs


def verify(tokens, qs, ps, rng):
    """Verify drafted tokens with len(tokens) + 1 target distributions."""
    for i, (x, q, p) in enumerate(zip(tokens, qs, ps, strict=False)):
        if rng.random() >= p[x] / q[x]:
            return [*tokens[:i], pick(leftover(p, q), rng)]
    return [*tokens, pick(ps[len(tokens)], rng)]


def target_rows(prompt, tokens, target):
    return [target([*prompt, *tokens[:i]]) for i in range(len(tokens) + 1)]


# Wrong loops.


def sends_float16():
    """Sample from float64 probabilities and send them as float16."""

    def decode(prompt, draft, target, rng):
        tokens, qs = propose(prompt, draft, rng, 1)
        sent = [q.astype(np.float16).astype(float) for q in qs]
        return verify(tokens, sent, target_rows(prompt, tokens, target), rng)

    return decode


def cache_by_length():
    """Keep target distributions of earlier calls by the length of their text."""
    cache = {}

    def decode(prompt, draft, target, rng):
        tokens, qs = propose(prompt, draft, rng, 1)
        ps = [
            cache.setdefault(len(prompt) + i, target([*prompt, *tokens[:i]]))
            for i in range(2)
        ]
        return verify(tokens, qs, ps, rng)

    return decode


def temperature_of_both():
    """Sample and verify at 0.8, while the target is meant to decode at 1."""

    def decode(prompt, draft, target, rng):
        tokens, qs = [], []
        for _ in range(2):
            qs.append(softmax(draft.logits([*prompt, *tokens]), 0.8))
            tokens.append(pick(qs[-1], rng))
        texts = [[*prompt, *tokens[:i]] for i in range(3)]
        ps = [softmax(target.logits(text), 0.8) for text in texts]
        return verify(tokens, qs, ps, rng)

    return decode


def dense_sample_of_a_packet():
    """Send a packet, and sample from the softmax until a token is in it."""
    codec = sqs.Codec(64, 100)

    def decode(prompt, draft, target, rng):
        dense = draft(prompt)
        sent = codec.quantize_probs(dense, sqs.TopK(16))
        x = pick(dense, rng)
        while sent.prob(x) == 0:
            x = pick(dense, rng)
        round_ = codec.decode_round(codec.encode_round([sent], [x]))
        ps = np.array(target_rows(prompt, [x], target))
        verdict = sqs.verify(round_, ps, rng)
        return [*round_.tokens[: verdict.accepted], verdict.token]

    return decode


def integers_up_to():
    """Accept a byte up to and including 256 p/q."""

    def decode(prompt, draft, target, rng):
        tokens, qs = propose(prompt, draft, rng, 1)
        p, q, x = target(prompt), qs[0], tokens[0]
        if rng.integers(256) <= int(256 * p[x] / q[x]):
            return tokens
        return [pick(leftover(p, q), rng)]

    return decode


def lenience_that_grows():
    """Accept more after each rejection, in this call and all later ones."""
    factor = 1.0

    def decode(prompt, draft, target, rng):
        nonlocal factor
        p, q = target(prompt), draft(prompt)
        x = pick(q, rng)
        if rng.random() < factor * p[x] / q[x]:
            return [x]
        factor = min(factor * 1.5, 100)
        return [pick(leftover(p, q), rng)]

    return decode


# Right loops.


def cache_by_text():
    """Keep target distributions of earlier calls by their whole text, and count."""
    cache, calls = {}, []

    def decode(prompt, draft, target, rng):
        calls.append(len(prompt))
        tokens, qs = propose(prompt, draft, rng, 1)
        ps = []
        for i in range(2):
            text = (*prompt, *tokens[:i])
            if text not in cache:
                cache[text] = target(text)
            ps.append(cache[text])
        return verify(tokens, qs, ps, rng)

    return decode


def drafts_as_accepted():
    """Draft one more token after an accepted round, and one less after a rejection."""
    length = 2

    def decode(prompt, draft, target, rng):
        nonlocal length
        tokens, qs = propose(prompt, draft, rng, length)
        out = verify(tokens, qs, target_rows(prompt, tokens, target), rng)
        length = min(length + 1, 3) if len(out) > length else max(length - 1, 1)
        return out

    return decode


def cooling_draft():
    """Cool the draft from call to call, and verify with what was sampled from."""
    calls = 0

    def decode(prompt, draft, target, rng):
        nonlocal calls
        calls += 1
        q = softmax(draft.logits(prompt), 0.5 + 0.5 / calls)
        x = pick(q, rng)
        return verify([x], [q], target_rows(prompt, [x], target), rng)

    return decode


WRONG = {
    sends_float16: "dense q",
    cache_by_length: "state",
    temperature_of_both: "target temperature",
    dense_sample_of_a_packet: "dense q",
    integers_up_to: "too lenient",
    lenience_that_grows: "state",
}
"""The name of each mistake: the checker may also give none, but no other one."""

UNNOTICED = {dense_sample_of_a_packet: 0.0058, integers_up_to: 0.002}
"""Wrong loops that aren't summed, by a total variation that 20,000 texts don't show."""

RIGHT = {
    cache_by_text: "sum",
    drafts_as_accepted: "chi2",
    cooling_draft: "chi2",
}
"""How the checker can find that each of them is right."""
