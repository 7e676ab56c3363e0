"""Mistakes of loops, as found in public code: their laws, and what to do about them."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqs_codec.testing._toy import DRAFT, LENGTH, PROMPT, ROWS, TARGET, VOCAB, row_after

__all__ = ["MISTAKES", "controls", "name_of"]

Law = NDArray[Any]
"""Probabilities of each row of the toys and the token after it, [..., ROWS, VOCAB]."""

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

# How a draft may be truncated by right: after each temperature by each of these. A
# mistake beside it is found by its law with the one that is nearest.
TEMPERATURES = (1.0, 0.7, 0.5, 1.5)
TRUNCATIONS: dict[str, tuple[float, ...]] = {
    "top-k": (VOCAB, 50, 20, 10, 5, 3, 2, 1),
    "top-p": (0.95, 0.9, 0.8),
    "min-p": (0.05, 0.1, 0.2),
}


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


def cells(p: Law) -> tuple[Law, Law]:
    """Return where in [0, 1) a number draws each token."""
    ends = np.cumsum(p, -1)
    return ends - p, ends


def common(a: tuple[Law, Law], b: tuple[Law, Law]) -> Law:
    """Return how long the parts are that two intervals share."""
    length: Law = np.minimum(a[1], b[1]) - np.maximum(a[0], b[0])
    return length.clip(0)


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


class Kind(NamedTuple):
    """What loops with a mistake do, [N, ROWS, V]; each N truncates its own way.

    `drawn` is what the draft is drawn from; `accepted` is how probable it is that a
    token then is; `replaces` is what one that isn't is replaced from.
    """

    drawn: Law
    accepted: Law
    replaces: Law

    def first(self) -> Law:
        """Return the laws of the first token, [N, V]."""
        drawn, accepted, replaces = (x[:, 0] for x in self)
        kept = drawn * accepted
        first: Law = kept + (1 - kept.sum(-1, keepdims=True)) * replaces
        return first


@cache
def right_ways() -> tuple[Law, Law]:
    """Return drafts, cooled and truncated, and the same before they were truncated."""
    warm = [normalised(DRAFT.rows ** (1 / t)) for t in TEMPERATURES]
    ways = [(kind, x) for kind, settings in TRUNCATIONS.items() for x in settings]
    pairs = [(truncated(q, *way), q) for q in warm for way in ways]
    q, before = np.array(pairs).swapaxes(0, 1)
    return q, before


@cache
def kinds() -> dict[str, Kind]:
    """Return all mistakes in what is done with a row."""
    (q, before), p = right_ways(), TARGET.rows
    right, rest = np.minimum(1, ratio(p, q)), residual(p, q)
    best, log = np.eye(VOCAB)[p.argmax(-1)], np.log(p + 1e-9) - np.log(q + 1e-9)
    number, over, draws = cells(q), (right, np.ones_like(q)), cells(rest)
    lost = q * (1 - right)
    entropy = -(p * np.log(p + 1e-9)).sum(-1, keepdims=True)
    typical = np.minimum(0.09, 0.3 * np.exp(-entropy))  # as Medusa accepts

    def of(accepted: Law = right, replaces: Law = rest, drawn: Law = q) -> Kind:
        return Kind(*np.broadcast_arrays(drawn, accepted, replaces))

    def each(a: tuple[Law, Law], b: tuple[Law, Law]) -> Law:
        """Return what each a has in common with each b."""
        (low, high), (low2, high2) = a, b
        rows, columns = (..., None), (..., None, slice(None))
        return common((low[rows], high[rows]), (low2[columns], high2[columns]))

    def sent(q: Law, drawn: Law) -> Kind:
        """Return what is accepted by another q."""
        accepted = np.where(q > 0, np.minimum(1, ratio(p, q)), p > 0)
        return of(accepted, residual(p, q), drawn)

    variants = {
        "another q": [sent(DRAFT.rows, q), sent(before, q)],
        "q/p": [of(np.minimum(1, ratio(q, p)))],
        "too lenient": [
            *(of(np.minimum(1, x * ratio(p, q))) for x in (1.25, 1.5, 2, 3, 1e9)),
            of(right**0.5),
            *(of(np.maximum(right, p >= x)) for x in (0.01, 0.03, 0.1)),
            *(of(1.0 * (right >= x)) for x in (0.3, 0.5, 0.7)),
            of(1.0 * (p >= typical)),
        ],
        "greedy": [
            *(of(best, x) for x in (best, rest, p)),
            *(of(right, np.eye(VOCAB)[x.argmax(-1)]) for x in (rest, p)),
        ],
        "residual of logits": [
            of(replaces=normalised(x))
            for x in (np.maximum(log, 0), np.exp(np.maximum(log, 0)), np.exp(log))
        ],
        "replaced from p": [
            of(replaces=p + 0 * q),
            of(
                replaces=normalised(
                    p * ((lost / (1 - p)).sum(-1, keepdims=True) - lost / (1 - p))
                )
            ),
        ],
        "one seed": [
            of(ratio(common(number, (0 * q, right)), q)),
            of(
                replaces=normalised(
                    ((1 - right)[..., None] * each(number, draws)).sum(-2)
                )
            ),
        ],
        "one noise": [
            of(replaces=by_one_noise(q, rest)),
            of(right ** np.minimum(ratio(1 + 0 * q, q), 1e9)),
            of(1 - (1 - right) ** np.minimum(ratio(1 + 0 * q, q), 1e9)),
        ],
        "off the support": [sent(q, before)],
        "shifted row": [of()],
        "bonus token": [of()],
        "one number twice": [
            of(replaces=normalised((q[..., None] * each(over, draws)).sum(-2))),
        ],
    }
    return {
        name: Kind(*map(np.concatenate, zip(*of_it, strict=True)))
        for name, of_it in variants.items()
    }


def law(name: str, kind: Kind, drafted: int, *, whole: bool, first: bool = True) -> Law:
    """Return the laws of the tokens that a round, or round after round, writes.

    They begin with the target's token if `first` is false.

    Returns
    -------
    ndarray of float64, shape [N, LENGTH, ROWS, V]
        How probable it is that there is such a token, after such a row.
    """
    p, (q, accepted, replaces) = TARGET.rows, kind
    written = np.zeros((len(q), LENGTH, ROWS, VOCAB))
    # How probable it is that so many of a round are left, after which two rows.
    state = np.zeros((len(q), drafted + 1, ROWS, ROWS))
    state[:, drafted * first, 0, 0] = 1
    for i in range(LENGTH):
        after = row_after(np.arange(VOCAB), len(PROMPT) + i + 1)
        if name == "shifted row":
            own = p[after, np.arange(VOCAB)]
            accepted = np.minimum(1, ratio(own + 0 * q, q))
            lost = (kind.drawn * (1 - accepted)) @ np.eye(ROWS)[after]
            over = np.stack([residual(row, q) for row in p], 2)
            replaces = normalised((lost[..., None] * over).sum(2))
        kept = q * accepted
        lost = (1 - kept.sum(-1, keepdims=True)) * replaces
        goes = state[:, 1:].sum(2)[..., None] * kept[:, None]
        ends = state[:, 1:].sum((1, 2))[..., None] * lost
        bonus = state[:, 0].sum(1)[..., None] * p
        if name == "bonus token" and i:
            bonus = state[:, 0].swapaxes(1, 2) @ p
        ends = ends + bonus
        written[:, i] = goes.sum(1) + ends
        state = np.zeros_like(state)
        state[:, :-1] = goes @ np.eye(ROWS)[after]
        if whole:
            state[:, drafted] += ends @ np.eye(ROWS)[after]
    return written


@cache
def controls() -> dict[str, Law]:
    """Return laws of rounds with each mistake, as `law` gives them, of all of q."""
    return {name: law(name, plain(name), 2, whole=False) for name in kinds()}


def plain(name: str) -> Kind:
    """Return a mistake where nothing else is cut or cooled."""
    some = slice(None, None, len(right_ways()[0]))
    if name in ("another q", "off the support"):  # whose cuts are the mistake
        some = slice(1, sum(map(len, TRUNCATIONS.values())))
    return Kind(*(x[some] for x in kinds()[name]))


def name_of(seen: Law) -> str | None:
    """Return the mistake that fits counts of tokens, [LENGTH, ROWS, V], if one does."""

    def apart(laws: Law) -> Law:
        """Return how far laws are; a part of chi-square's where both have texts."""
        expected = normalised(laws + 1e-9 * TARGET.rows[: laws.shape[-2]])
        expected = expected * here.sum(-1, keepdims=True)
        off: Law = 2 * (here - expected) ** 2 / np.maximum(here + expected, 1e-9)
        return np.array(off.reshape(len(laws), -1).sum(-1))

    best: list[tuple[float, str]] = []
    for name, kind in kinds().items():
        here = seen[0, :1]
        near = apart(kind.first()[:, None]).argsort()[:8]
        here = seen
        few = Kind(*(x[near] for x in kind))
        for drafted, whole in itertools.product((1, 2, 3, 4), (False, True)):
            best.append((apart(law(name, few, drafted, whole=whole)).min(), name))
        for drafted in (1, 2, 3, 4):  # as where the prompt's pass gives a token
            laws = law(name, plain(name), drafted, whole=True, first=False)
            best.append((apart(laws).min(), name))
    noise = np.count_nonzero(seen.sum(-1, keepdims=True) * TARGET.rows > 1)
    off, name = min(best)
    return name if off - noise < (apart(0 * seen[None])[0] - noise) / 2 else None
