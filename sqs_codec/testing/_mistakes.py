"""Mistakes of loops, as found in public code: their laws, and what to do about them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqs_codec.testing._toy import DRAFT, LENGTH, PROMPT, ROWS, TARGET, VOCAB, row_after

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


def ratio(a: Law, b: Law) -> Law:
    """Return a / b, where 0 / 0 is 0."""
    return np.divide(a, np.maximum(b, 1e-30))


def normalised(p: Law) -> Law:
    """Return distributions, or zeros where there is nothing."""
    return ratio(p, p.sum(-1, keepdims=True))


def residual(p: Law, q: Law) -> Law:
    """Return what is to replace a rejected token."""
    return normalised(np.maximum(p - q, 0))


def truncations(q: Law) -> list[Law]:
    """Return what usual truncations make of distributions; the first is top-p 0.9."""
    order = np.argsort(-q)
    above, falling = np.argsort(order), np.take_along_axis(q, order, -1)
    before = np.take_along_axis(np.cumsum(falling, -1) - falling, above, -1)
    keeps = [
        *(before < mass for mass in (0.9, 0.95, 0.8)),
        *(above < k for k in (VOCAB, 50, 20, 10, 5, 3, 2, 1)),
        *(q >= share * q.max(-1, keepdims=True) for share in (0.05, 0.1, 0.2)),
    ]
    return [normalised(q * keep) for keep in keeps]


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
    tails = np.cumsum(parts[..., ::-1], -1)[..., ::-1]
    return normalised(r * np.take_along_axis(tails, np.argsort(order), -1))


def shifted(q: Law, place: int) -> Law:
    """Return the law of what is verified by the row after it, [N, ROWS, VOCAB]."""
    p, tokens = TARGET.rows, np.arange(VOCAB)
    after = row_after(tokens, len(PROMPT) + place + 1)
    kept = np.minimum(q, p[after, tokens])
    lost = (q - kept) @ np.eye(ROWS)[after]
    over = np.stack([residual(row, q) for row in p], -2)
    law: Law = kept + (lost[..., None] * over).sum(-2)
    return law


def late() -> Law:
    """Return the laws of tokens by the row before theirs, [LENGTH, ROWS, VOCAB]."""
    p, found = TARGET.rows, [TARGET.rows]
    begins = np.eye(ROWS)[0]
    for i in range(1, LENGTH):
        goes = p @ np.eye(ROWS)[row_after(np.arange(VOCAB), len(PROMPT) + i)]
        goes *= begins[:, None]
        found.append(normalised(goes.T @ p))
        begins = goes.sum(0)
    return np.array(found)


@cache
def laws() -> dict[str, Law]:
    """Return the laws of drafted tokens, [N, LENGTH or 1, ROWS, VOCAB].

    Of each mistake in several degrees, beside each right way to truncate the draft:
    the first is top-p 0.9. Of "bonus token" it is the law of what follows them.
    """
    warm = [normalised(DRAFT.rows ** (1 / t)) for t in (1, 0.7, 0.5, 1.5)]
    pairs = [(cut, q) for q in warm for cut in truncations(q)]
    (q, before), p = np.array(pairs).swapaxes(0, 1), TARGET.rows
    right, rest = np.minimum(1, ratio(p, q)), residual(p, q)
    ends, u = np.cumsum(q, -1), right[..., None]
    same = ratio(np.clip(right, ends - q, ends) - (ends - q), q)
    # Drawn by the number that accepted the token before, or that rejected this one.
    low, high = (x[..., None, :] for x in (ends - q, ends))
    ahead = normalised((q[:, :1, :, None] * (u[:, :1].clip(low, high) - low)).sum(-2))
    high = np.cumsum(rest, -1)[..., None, :]
    again = normalised(
        (q[..., None] * (high - u.clip(high - rest[..., None, :], high))).sum(-2)
    )
    log = np.log(p + 1e-9) - np.log(q + 1e-9)
    typical = 0.3 * np.exp((p * np.log(p + 1e-9)).sum(-1, keepdims=True))
    best = np.eye(VOCAB)[p.argmax(-1)]
    power = np.minimum(ratio(np.ones_like(q), q), 1e9)

    def of(accepted: Law = right, replaces: Law = rest, drawn: Law = q) -> Law:
        kept = drawn * accepted
        law: Law = kept + (drawn - kept).sum(-1, keepdims=True) * replaces
        return law[:, None]

    def sent(q: Law, drawn: Law) -> Law:
        """Return what is accepted by another q."""
        return of(np.minimum(1, ratio(p, q)), residual(p, q), drawn)

    found = {
        "another q": [sent(DRAFT.rows, q)],
        "q/p": [of(np.minimum(1, ratio(q, p)))],
        "too lenient": [
            *(of(np.minimum(1, x * ratio(p, q))) for x in (1.5, 2, 1e9)),
            *(of(1.0 * (p >= x)) for x in (0.1, np.minimum(0.09, typical))),
        ],
        "greedy": [of(best, best), of(best)],
        "residual of logits": [
            of(replaces=normalised(x)) for x in (np.maximum(log, 0), np.exp(log))
        ],
        "replaced from p": [of(replaces=p)],
        "one seed": [of(same), of(drawn=ahead)],
        "one noise": [of(replaces=by_one_noise(q, rest)), of(right**power)],
        "off the support": [sent(q, before)],
        "shifted row": [np.stack([shifted(q, i) for i in range(LENGTH)], 1)],
        "bonus token": [late()[None]],
        "one number twice": [of(replaces=again)],
    }
    return {name: np.concatenate(each) for name, each in found.items()}


def name_of(texts: NDArray[np.int64], weights: NDArray[np.float64]) -> str | None:
    """Return the mistake that fits texts, [N, LENGTH], if one does.

    After each row some tokens have the mistake, and the others the target's law: those
    after a draft, or of the prompt's pass.
    """
    for end in (PROMPT, PROMPT[-1:]):
        if (texts[:, : len(end)] == end).all():
            return "prompt returned"
    i, before = np.arange(LENGTH), np.roll(texts, 1, 1)
    place = i * ROWS + row_after(before, len(PROMPT) + i)
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
