"""Mistakes of loops in public code: their distributions, and the advice."""

from __future__ import annotations

import math
from collections import defaultdict
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqs_codec.testing._toy import DRAFT, LENGTH, PROMPT, ROWS, TARGET, VOCAB, row_after

P = NDArray[Any]
"""Probabilities of the token after each row of the toys, [..., ROWS, VOCAB]."""

MISTAKES = {
    "another q": "tokens are sampled from a truncated, tempered or rounded q, but "
    "accepted with the q before that. Pass on the q that you sampled from.",
    "dense q": "tokens are sampled from the dense q, but the truncated or quantized q "
    "is sent and accepted with. Sample from the q that you send.",
    "target temperature": "the loop tempers or truncates the target's distribution. "
    "Give the target temperature 1 and no truncation, as the reference has them.",
    "draft's own": "the output has the draft's distribution. Look for swapped p and q, "
    "for q in the place of p, or for drafted tokens that are never rejected.",
    "q/p": "tokens are accepted with probability q/p. Accept with min(1, p/q).",
    "too lenient": "tokens are accepted more often than with min(1, p/q), for example "
    "by a factor, a threshold or typical acceptance. Accept with min(1, p/q).",
    "greedy": "the target's most probable token is accepted or replaces, as at "
    "temperature 0. Accept with min(1, p/q), and sample what follows.",
    "residual of logits": "the replacement of a rejected token is sampled from a "
    "difference of logits. Sample it from max(0, p - q) of probabilities, normalized.",
    "replaced from p": "the replacement of a rejected token is sampled from p. Sample "
    "it from max(0, p - q), normalized.",
    "one seed": "the random numbers that drafted a token also verify it. Give the "
    "draft and the verifier independent generators.",
    "one noise": "the exponential or Gumbel noise that drafted a token also accepts "
    "it. Draw new noise.",
    "shifted row": "each drafted token is verified with the target's distribution one "
    "position later. Verify token i with the one after i drafted tokens.",
    "bonus token": "the bonus token is sampled from the distribution that verified the "
    "last drafted token. Sample it from the one after all drafted tokens.",
    "one number twice": "the random number that rejected a token also samples its "
    "replacement. Draw a new one.",
    "prompt returned": "the text begins with the prompt, or with its last token. "
    "Return only the tokens after the prompt.",
}


def ratio(a: P, b: P) -> P:
    """Return a / b, where 0 / 0 is 0."""
    return np.divide(a, np.maximum(b, 1e-30))


def normalized(p: P) -> P:
    """Return normalized distributions; rows of zeros stay zeros."""
    return ratio(p, p.sum(-1, keepdims=True))


def residual(p: P, q: P) -> P:
    """Return the distribution that replaces a rejected token."""
    return normalized(np.maximum(p - q, 0))


def kept(q: P) -> P:
    """Return q truncated to the k most probable tokens, for each k."""
    above = np.argsort(np.argsort(-q))
    return np.array([normalized(q * (above < k)) for k in range(1, VOCAB + 1)])


def quantized(q: P, resolution: int) -> P:
    """Return the nearest distributions of counts with the sum `resolution`."""
    counts = np.floor(resolution * q)
    missing = resolution - counts.sum(-1, keepdims=True)
    order = np.argsort(np.argsort(counts - resolution * q))
    probs: P = (counts + (order < missing)) / resolution
    return probs


def shifted(q: P, place: int) -> P:
    """Return distributions of loops that verify a token with the row after it."""
    p, tokens = TARGET.rows, np.arange(VOCAB)
    after = row_after(tokens, len(PROMPT) + place + 1)
    kept = np.minimum(q, p[after, tokens])
    lost = (q - kept) @ np.eye(ROWS)[after]
    over = np.stack([residual(row, q) for row in p], -2)
    probs: P = kept + (lost[..., None] * over).sum(-2)
    return probs


def late(accepted: P) -> P:
    """Return distributions of tokens by the row before, [N, LENGTH, ROWS, VOCAB]."""
    found, begins = [np.broadcast_to(TARGET.rows, accepted.shape)], np.eye(ROWS)[:1]
    for i in range(1, LENGTH):
        goes = accepted @ np.eye(ROWS)[row_after(np.arange(VOCAB), len(PROMPT) + i)]
        goes = goes * begins[..., None]
        found.append(normalized(goes.swapaxes(-1, -2) @ TARGET.rows))
        begins = goes.sum(-2)
    return np.stack(found, 1)


def verified(q: P, drawn: Any = None, accepted: Any = None, rest: Any = None) -> P:
    """Return the distribution of a draft once accepted or replaced (default: q)."""
    drawn = q if drawn is None else drawn
    accepted = ratio(TARGET.rows, q) if accepted is None else accepted
    taken = drawn * np.minimum(accepted, 1)
    rest = residual(TARGET.rows, q) if rest is None else rest
    probs: P = taken + (drawn - taken).sum(-1, keepdims=True) * rest
    return probs[:, None]


def single_mistakes(whole: P) -> dict[str, list[P]]:
    """Return distributions of loops that truncate correctly and make one mistake."""
    q, p = kept(whole), TARGET.rows
    right, rest, of = np.minimum(1, ratio(p, q)), residual(p, q), partial(verified, q)
    ends, u = np.cumsum(q, -1), right[..., None]
    same = ratio(np.clip(right, ends - q, ends) - (ends - q), q)
    high = np.cumsum(rest, -1)[..., None, :]
    again = q[..., None] * (high - u.clip(high - rest[..., None, :], high))  # as u > r
    log = np.log(p + 1e-9) - np.log(q + 1e-9)
    typical = 0.3 * np.exp((p * np.log(p + 1e-9)).sum(-1, keepdims=True))
    best = np.eye(VOCAB)[p.argmax(-1)]
    lenient = [x * ratio(p, q) for x in (1.1, 1.2, 1.5, 2, 3)]
    lenient += [np.maximum(right, x) for x in (0.1, 0.2, 0.3, 0.5)]
    lenient += [1.0 * (p >= x) for x in (0.05, 0.1, np.minimum(0.09, typical))]
    power = right ** np.minimum(ratio(np.ones_like(q), q), 1e9)
    logits = normalized(np.maximum(log, 0)), normalized(np.exp(log))
    return {
        "another q": [verified(x, q) for x in (DRAFT.rows, whole)],
        "draft's own": [q[:, None]],
        "q/p": [of(accepted=ratio(q, p))],
        "too lenient": [of(accepted=x) for x in lenient],
        "greedy": [of(accepted=best, rest=best), of(rest=best)],
        "residual of logits": [of(rest=x) for x in logits],
        "replaced from p": [of(rest=p)],
        "one seed": [of(accepted=same)],
        "one noise": [of(accepted=power)],
        "dense q": [of(whole), of(whole, right * (q > 0))],
        "shifted row": [np.stack([shifted(q, i) for i in range(LENGTH)], 1)],
        "bonus token": [late(q * right)],
        "one number twice": [of(rest=normalized(again.sum(-2)))],
    }


@cache
def ways() -> dict[str, P]:
    """Return what each mistake adds, in N degrees, [1 or LENGTH, ROWS, N, VOCAB]."""
    found: dict[str, list[P]] = defaultdict(list)
    p, q = TARGET.rows, DRAFT.rows
    for t in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.5, 2):  # usual temperatures
        for name, each in single_mistakes(normalized(q ** (1 / t))).items():
            found[name] += each
        found["target temperature"] += [kept(normalized(p ** (1 / t)))[1:, None]]
    cut, half = kept(q), q.astype(np.float16).astype(float)
    found["dense q"].append(verified(half[None], q))
    for resolution in (8, 16, 32, 50, 64, 100, 128, 200, 255, 256, 512, 1000, 1024):
        sent = quantized(cut, resolution)
        drawn = q, cut, normalized(q * (sent > 0))
        found["dense q"] += [verified(sent, x) for x in drawn]
    return {
        name: np.concatenate(each).transpose(1, 2, 0, 3) - p[:, None]
        for name, each in found.items()
    }


def name_of(texts: NDArray[Any], weights: NDArray[Any], *, counted: bool) -> str | None:
    """Return the mistake that fits texts [N, LENGTH], if exactly one does."""
    for end in (PROMPT, PROMPT[-1:]):
        if (texts[:, : len(end)] == end).all():
            return "prompt returned"
    seen, i = np.zeros((LENGTH, ROWS, VOCAB)), np.arange(LENGTH)
    place = i, row_after(np.roll(texts, 1, 1), len(PROMPT) + i), texts
    each = np.where(texts < 0, 0, weights[:, None] * (1 if counted else 20_000))
    np.add.at(seen, place, each)
    number = seen.sum(-1, keepdims=True)
    expected = number * TARGET.rows
    off, weight = seen - expected, 2 / np.maximum(seen + expected, 1)
    total = (off**2 * weight).sum(-1, keepdims=True)
    left = {}
    for name, way in ways().items():
        along = (way @ (number * off * weight)[..., None])[..., 0]
        whole = (way**2 @ (number**2 * weight)[..., None])[..., 0]
        share = (along / np.maximum(whole, 1e-9)).clip(0, 1)
        share[0] = np.rint(share[0])
        apart = total - 2 * share * along + share**2 * whole
        left[name] = apart.sum(0).min(-1).sum()
    noise = np.count_nonzero(expected > 1) if counted else 0
    excess, spread = total.sum() - noise, math.sqrt(2 * noise)
    (best, name), (second, _) = sorted((x, name) for name, x in left.items())[:2]
    fits = best - noise + 2 * spread < excess * (0.02 if counted else 0.001)
    return name if fits and second - best > excess / 1000 + 6 * spread else None
