"""Mistakes of loops, as found in public code: their laws, and what to do about them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqs_codec.testing._toy import (
    DRAFT,
    LENGTH,
    PROMPT,
    ROWS,
    TARGET,
    VOCAB,
    row_after,
    rows_of,
)

__all__ = ["MISTAKES", "laws", "name_of"]

Law = NDArray[Any]
"""Probabilities of the token after each row of the toys, [..., ROWS, VOCAB]."""

MISTAKES = {
    "another q": "tokens are drawn from a truncated, cooled or rounded q, and accepted "
    "by the q before that. Hand on the distribution that is drawn from.",
    "q/p": "tokens are accepted with probability q/p. Accept with min(1, p/q).",
    "too lenient": "tokens are accepted more often than with min(1, p/q): by a factor, "
    "a threshold or a typical acceptance. Accept with min(1, p/q).",
    "greedy": "the target's most probable token decides or replaces, as if nothing "
    "were drawn. Accept with min(1, p/q), and draw what replaces and what follows.",
    "residual of logits": "what replaces a rejected token is drawn by a difference of "
    "logits. Draw it from max(0, p - q) of probabilities, normalised.",
    "replaced from p": "what replaces a rejected token is drawn from p. Draw it from "
    "max(0, p - q), normalised.",
    "one seed": "the numbers that drew the draft decide about it, too. Give both ends "
    "generators that are independent.",
    "one noise": "the noise of the race or of Gumbel's that drew the draft draws what "
    "replaces it, or accepts it, too. Take other noise.",
    "off the support": "tokens to which the q that is sent gives no probability are "
    "drawn, and accepted. Draw from what is sent, after its truncation.",
    "shifted row": "each drafted token is verified by the target's row after it. Row i "
    "is what follows the text and i drafted tokens.",
    "bonus token": "the token after an accepted draft comes from the row of the last "
    "drafted one. Draw it from the row after them all.",
    "one number twice": "a token that replaces a rejected one is drawn by the number "
    "that rejected. Draw it by a new one.",
    "prompt returned": "the text begins with the prompt, or its end. Return what comes "
    "after the prompt alone.",
}

# How a draft may be truncated by right: after each temperature by each of these.
TEMPERATURES = (1.0, 0.7, 0.5, 1.5)
TRUNCATIONS: list[tuple[str, float]] = [
    *(("top-p", mass) for mass in (0.9, 0.95, 0.8)),
    *(("top-k", k) for k in (VOCAB, 50, 20, 10, 5, 3, 2, 1)),
    *(("min-p", share) for share in (0.05, 0.1, 0.2)),
]


def truncated(q: Law, kind: str, setting: float) -> Law:
    """Return what a usual truncation makes of distributions."""
    above = np.argsort(np.argsort(-q))  # how many tokens are more probable
    if kind == "top-k":
        keep = above < setting
    elif kind == "min-p":
        keep = q >= setting * q.max(-1, keepdims=True)
    else:
        before = np.cumsum(-np.sort(-q), -1) + np.sort(-q)
        keep = np.take_along_axis(before, above, -1) < setting
    return normalised(q * keep)


def normalised(p: Law) -> Law:
    """Return distributions, or zeros where there is nothing."""
    total: Law = p.sum(-1, keepdims=True)
    return np.divide(p, np.maximum(total, 1e-300))


def ratio(a: Law, b: Law) -> Law:
    """Return a / b, where 0 / 0 is 0."""
    return np.where(b > 0, a / np.maximum(b, 1e-300), np.where(a > 0, np.inf, 0.0))


def residual(p: Law, q: Law) -> Law:
    """Return what is to replace a rejected token."""
    over = np.maximum(p - q, 0)
    return normalised(np.where(over.any(-1, keepdims=True), over, p))


def overlap(low: Law, high: Law, low2: Any, high2: Law) -> Law:
    """Return how much intervals have in common."""
    return np.maximum(np.minimum(high, high2) - np.maximum(low, low2), 0)


def by_one_noise(q: Law, r: Law) -> Law:
    """Return what a race by r draws with the noise of one by q, if r lacks its winner.

    Token y wins with r_y times the integral of 1 / M(t)^2 from t = q_y / r_y on, where
    M(t) = sum(max(q, r t)) is linear between the ratios of all tokens.
    """
    t = np.where(r > 0, ratio(q, r), 0)
    order = np.argsort(t, -1)
    t = np.take_along_axis(t, order, -1)
    m = np.maximum(q[..., None, :], r[..., None, :] * t[..., None]).sum(-1)
    parts = np.diff(t) / (m[..., :-1] * m[..., 1:])
    parts = np.concatenate([parts, 1 / m[..., -1:]], -1)
    wins = np.empty_like(t)
    np.put_along_axis(wins, order, np.cumsum(parts[..., ::-1], -1)[..., ::-1], -1)
    return normalised(r * wins)


def shifted(q: Law, place: int) -> Law:
    """Return the law of what is verified by the row after it, [N, ROWS, VOCAB]."""
    p, tokens = TARGET.rows, np.arange(VOCAB)
    after = row_after(tokens, len(PROMPT) + place + 1)
    kept = np.minimum(q, p[after, tokens])
    return kept + sum(
        ((q - kept) * (after == row)).sum(-1, keepdims=True) * residual(p[row], q)
        for row in range(1, ROWS)
    )


@cache
def laws() -> dict[str, Law]:
    """Return the laws of drafted tokens, [N, LENGTH or 1, ROWS, VOCAB].

    Of each mistake in several degrees, beside each right way to truncate the draft:
    the first is top-p 0.9. Of "bonus token" it is the law of what follows them.
    """
    warm = [normalised(DRAFT.rows ** (1 / t)) for t in TEMPERATURES]
    pairs = [(truncated(q, *way), q) for q in warm for way in TRUNCATIONS]
    (q, before), p = np.array(pairs).swapaxes(0, 1), TARGET.rows
    right, rest = np.minimum(1, ratio(p, q)), residual(p, q)
    ends, rests = np.cumsum(q, -1), np.cumsum(rest, -1)[..., None, :]
    log = np.log(p + 1e-9) - np.log(q + 1e-9)
    entropy = -(p * np.log(p + 1e-9)).sum(-1, keepdims=True)
    best = np.eye(VOCAB)[p.argmax(-1)]
    power = np.minimum(ratio(np.ones_like(q), q), 1e9)

    def of(accepted: Law = right, replaces: Law = rest, drawn: Law = q) -> Law:
        kept = drawn * accepted
        law: Law = kept + (drawn - kept).sum(-1, keepdims=True) * replaces
        return law

    def sent(q: Law, drawn: Law) -> Law:
        """Return what is accepted by another q."""
        accepted = np.where(q > 0, np.minimum(1, ratio(p, q)), p > 0)
        return of(accepted, residual(p, q), drawn)

    def again(weights: Law, low: Law, high: Law) -> Law:
        """Return what is replaced by a number of [low, high), which depends on x."""
        parts = overlap(
            low[..., None], high[..., None], rests - rest[..., None, :], rests
        )
        return of(replaces=normalised((weights[..., None] * parts).sum(-2)))

    first, others = p[:1] + 0 * p, p[1:].mean(0) + 0 * p
    bonus = np.array([p, first, *[others] * (LENGTH - 2)])
    found = {
        "another q": [sent(DRAFT.rows, q), sent(before, q)],
        "q/p": [of(np.minimum(1, ratio(q, p)))],
        "too lenient": [
            *(of(np.minimum(1, x * ratio(p, q))) for x in (1.25, 1.5, 2, 3, 1e9)),
            of(right**0.5),
            *(of(np.maximum(right, p >= x)) for x in (0.01, 0.03, 0.1)),
            *(of(1.0 * (p >= x)) for x in (0.01, 0.03, 0.1)),
            *(of(1.0 * (right >= x)) for x in (0.3, 0.5, 0.7)),
            of(1.0 * (p >= np.minimum(0.09, 0.3 * np.exp(-entropy)))),
        ],
        "greedy": [
            *(of(best, x) for x in (best, rest, p)),
            *(of(right, np.eye(VOCAB)[x.argmax(-1)]) for x in (rest, p)),
        ],
        "residual of logits": [
            of(replaces=normalised(x))
            for x in (np.maximum(log, 0), np.exp(np.maximum(log, 0)), np.exp(log))
        ],
        "replaced from p": [of(replaces=p)],
        "one seed": [
            of(ratio(overlap(ends - q, ends, 0, right), q)),
            again(1 - right, ends - q, ends),
        ],
        "one noise": [
            of(replaces=by_one_noise(q, rest)),
            of(right**power),
            of(1 - (1 - right) ** power),
        ],
        "off the support": [sent(q, before)],
        "shifted row": [np.stack([shifted(q, i) for i in range(LENGTH)], 1)],
        "bonus token": [bonus[None]],
        "one number twice": [again(q, right, np.ones_like(q))],
    }
    return {
        name: np.concatenate([x if x.ndim == 4 else x[:, None] for x in of_it])
        for name, of_it in found.items()
    }


def name_of(texts: NDArray[np.int64], weights: NDArray[np.float64]) -> str | None:
    """Return the mistake that fits texts, [N, LENGTH], if one does.

    After each row some tokens have the mistake, and the others the target's law: those
    after a draft, or of the prompt's pass.
    """
    for end in (PROMPT, PROMPT[-1:]):
        if (texts[:, : len(end)] == end).all():
            return "prompt returned"
    place = np.arange(LENGTH) * ROWS + rows_of(texts)
    here, size = texts >= 0, LENGTH * ROWS * VOCAB
    each = np.where(here, weights[:, None] * (20_000 / weights.sum()), 0)
    seen = np.bincount((place * VOCAB + texts)[here], each[here], size)
    seen = seen.reshape(LENGTH, ROWS, VOCAB)
    expected = seen.sum(-1, keepdims=True) * TARGET.rows
    off, weight = seen - expected, 2 / np.maximum(seen + expected, 1)
    apart = {}
    for name, each in laws().items():
        way = seen.sum(-1, keepdims=True) * each - expected
        share = (way * off * weight).sum(-1, keepdims=True)
        share /= np.maximum((way * way * weight).sum(-1, keepdims=True), 1e-9)
        left = (off - way * share.clip(0, 1)) ** 2 * weight
        apart[name] = left.sum((1, 2, 3)).min()
    noise = np.count_nonzero(expected > 1)
    name = min(apart, key=lambda name: apart[name])
    return name if apart[name] - noise < ((off**2 * weight).sum() - noise) / 2 else None
