"""Speculative loops as users of the package write them: 17 wrong and 9 right ones.

They were written before the checker could name any of their mistakes. Each function
returns a new loop, because some loops keep state between calls. "none" marks a mistake
that the checker doesn't know, "state" one that needs an earlier call.
"""

import random

import numpy as np
import torch

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


def keeps_the_rejected_token():
    """Slice one token too far after a rejection."""

    def decode(prompt, draft, target, rng):
        tokens, qs = propose(prompt, draft, rng, 2)
        for i, q in enumerate(qs):
            p = target([*prompt, *tokens[:i]])
            if rng.random() > p[tokens[i]] / q[tokens[i]]:
                return [*tokens[: i + 1], pick(leftover(p, q), rng)]
        return tokens

    return decode


def absolute_residual():
    """Draw the replacement from |p - q|."""

    def decode(prompt, draft, target, rng):
        p, q = target(prompt), draft(prompt)
        x = pick(q, rng)
        if rng.random() <= min(1, p[x] / q[x]):
            return [x]
        rest = np.abs(p - q)
        return [pick(rest / rest.sum(), rng)]

    return decode


def residual_of_the_first_q():
    """Subtract the first draft distribution, whichever token was rejected."""

    def decode(prompt, draft, target, rng):
        tokens, qs = propose(prompt, draft, rng, 2)
        for i, x in enumerate(tokens):
            p = target([*prompt, *tokens[:i]])
            if rng.random() > p[x] / qs[i][x]:
                return [*tokens[:i], pick(leftover(p, qs[0]), rng)]
        return tokens

    return decode


def bonus_of_the_row_before():
    """Take the last row but one, as if the target had given one row less."""

    def decode(prompt, draft, target, rng):
        tokens, qs = propose(prompt, draft, rng, 2)
        ps = target_rows(prompt, tokens, target)
        return verify(tokens, qs, [*ps[:2], ps[-2]], rng)

    return decode


def sends_float16():
    """Sample from float64 probabilities and send them as float16."""

    def decode(prompt, draft, target, rng):
        tokens, qs = propose(prompt, draft, rng, 1)
        sent = [q.astype(np.float16).astype(float) for q in qs]
        return verify(tokens, sent, target_rows(prompt, tokens, target), rng)

    return decode


def sends_bfloat16_logits():
    """Sample from logits and send them as bfloat16."""

    def decode(prompt, draft, target, rng):
        logits = draft.logits(prompt)
        x = pick(softmax(logits), rng)
        q = torch.tensor(logits).bfloat16().double().softmax(-1).numpy()
        return verify([x], [q], target_rows(prompt, [x], target), rng)

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


def temperature_of_the_draft_only():
    """Sample the draft at 0.6, and verify with its untempered softmax."""

    def decode(prompt, draft, target, rng):
        tokens, qs = [], []
        for _ in range(2):
            logits = draft.logits([*prompt, *tokens])
            tokens.append(pick(softmax(logits, 0.6), rng))
            qs.append(softmax(logits))
        return verify(tokens, qs, target_rows(prompt, tokens, target), rng)

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


def top_k_of_the_target():
    """Verify with the target's ten most probable tokens."""

    def decode(prompt, draft, target, rng):
        tokens, qs = propose(prompt, draft, rng, 1)
        ps = []
        for p in target_rows(prompt, tokens, target):
            kept = p * (p >= np.sort(p)[-10])
            ps.append(kept / kept.sum())
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


def dense_sample_of_the_support():
    """Sample from the softmax over the support of a packet, and send its counts."""
    codec = sqs.Codec(64, 100)

    def decode(prompt, draft, target, rng):
        dense = draft(prompt)
        sent = codec.quantize_probs(dense, sqs.TopK(16))
        kept = np.where(sent.to_dense() > 0, dense, 0)
        x = pick(kept / kept.sum(), rng)
        q = sent.to_dense(np.float64)
        return verify([x], [q], target_rows(prompt, [x], target), rng)

    return decode


def tree_without_update():
    """Try two candidates, and verify the second as if the first had not been tried."""

    def decode(prompt, draft, target, rng):
        p, q = target(prompt), draft(prompt)
        for _ in range(2):
            x = pick(q, rng)
            if rng.random() < p[x] / q[x]:
                return [x, pick(target([*prompt, x]), rng)]
        return [pick(leftover(p, q), rng)]

    return decode


def batch_out_of_order():
    """Sort two requests by their first token, but not their draft distributions."""

    def decode(prompt, draft, target, rng):
        batch = [propose(prompt, draft, rng, 2) for _ in range(2)]
        order = sorted(range(2), key=lambda i: batch[i][0][0])
        place = order.index(0)
        tokens, qs = batch[order[place]][0], batch[place][1]
        for i, (x, q) in enumerate(zip(tokens, qs, strict=True)):
            p = target([*prompt, *tokens[:i]])
            if rng.random() * max(q[x], 1e-9) >= p[x]:
                return [*tokens[:i], pick(leftover(p, q), rng)]
        return tokens

    return decode


def both_ends_from_one_seed():
    """Start a generator of the standard library at both ends from one seed."""

    def decode(prompt, draft, target, rng):
        seed = int(rng.integers(2**32))
        edge, cloud = random.Random(seed), random.Random(seed)
        p, q = target(prompt), draft(prompt)
        x = edge.choices(range(64), q)[0]
        if cloud.random() < p[x] / q[x]:
            return [x]
        return [cloud.choices(range(64), leftover(p, q))[0]]

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


def quantized():
    """Sample from the distribution of the packet."""
    codec = sqs.Codec(64, 100)

    def decode(prompt, draft, target, rng):
        sent = codec.quantize_probs(draft(prompt), sqs.TopK(16))
        x = sent.sample(rng)
        q = sent.to_dense(np.float64)
        return verify([x], [q], target_rows(prompt, [x], target), rng)

    return decode


def half_at_both_ends():
    """Round q to float16 before sampling from it."""

    def decode(prompt, draft, target, rng):
        q = draft(prompt).astype(np.float16).astype(float)
        q /= q.sum()
        x = pick(q, rng)
        return verify([x], [q], target_rows(prompt, [x], target), rng)

    return decode


def residual_by_rejection():
    """Draw the replacement from p until max(0, 1 - q/p) keeps it."""

    def decode(prompt, draft, target, rng):
        p, q = target(prompt), draft(prompt)
        x = pick(q, rng)
        if rng.random() < p[x] / q[x]:
            return [x, pick(target([*prompt, x]), rng)]
        while True:
            y = pick(p, rng)
            if rng.random() < 1 - q[y] / p[y]:
                return [y]

    return decode


def gumbel_coupling():
    """Let both models take the maximum with one Gumbel noise; write the target's."""

    def decode(prompt, draft, target, rng):
        text = list(prompt)
        for _ in range(3):
            noise = rng.gumbel(size=64)
            guess = int(np.argmax(draft.logits(text) + noise))
            text.append(int(np.argmax(target.logits(text) + noise)))
            if text[-1] != guess:
                break
        return text[len(prompt) :]

    return decode


def recursive_rejection():
    """Verify a second candidate with what the first left of p."""

    def decode(prompt, draft, target, rng):
        p, q = target(prompt), draft(prompt)
        for _ in range(2):
            x = pick(q, rng)
            if rng.random() < p[x] / q[x]:
                return [x, pick(target([*prompt, x]), rng)]
            p = leftover(p, q)
        return [pick(p, rng)]

    return decode


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


def learning_rule():
    """Let a Conformal rule learn from every round of all calls."""
    codec, keep = sqs.Codec(64, 32), sqs.Conformal(alpha=0.2, eta=0.05)

    def decode(prompt, draft, target, rng):
        edge, text = sqs.Drafter(codec, keep, rng=rng, max_tokens=1), list(prompt)
        while (token := edge.push(draft.logits(text))) is not None:
            text.append(token)
        round_ = codec.decode_round(edge.finish())
        rows = target_rows(prompt, round_.tokens, target)
        verdict = sqs.verify(round_, np.array(rows), rng)
        edge.feedback(verdict)
        return [*round_.tokens[: verdict.accepted], verdict.token]

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
    keeps_the_rejected_token: "none",
    absolute_residual: "none",
    residual_of_the_first_q: "none",
    bonus_of_the_row_before: "bonus token",
    sends_float16: "dense q",
    sends_bfloat16_logits: "dense q",
    cache_by_length: "state",
    temperature_of_the_draft_only: "another q",
    temperature_of_both: "target temperature",
    top_k_of_the_target: "target temperature",
    dense_sample_of_a_packet: "dense q",
    dense_sample_of_the_support: "dense q",
    tree_without_update: "none",
    batch_out_of_order: "none",
    both_ends_from_one_seed: "one seed",
    integers_up_to: "too lenient",
    lenience_that_grows: "state",
}
"""The name of each mistake: the checker may also give none, but no other one."""

UNNOTICED = {dense_sample_of_a_packet: 0.0058, integers_up_to: 0.002}
"""Wrong loops that aren't summed, by a total variation that 20,000 texts don't show."""

RIGHT = {
    quantized: "sum",
    half_at_both_ends: "sum",
    residual_by_rejection: "chi2",
    gumbel_coupling: "chi2",
    recursive_rejection: "chi2",
    cache_by_text: "sum",
    drafts_as_accepted: "chi2",
    learning_rule: "chi2",
    cooling_draft: "chi2",
}
"""How the checker can find that each of them is right."""
