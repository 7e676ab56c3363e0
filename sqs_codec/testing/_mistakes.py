"""Loops with a mistake each, as found in public code, and what to do about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqs_codec.testing._toy import Toy

__all__ = ["MISTAKES", "Decode", "play"]

Decode = Callable[[Sequence[int], Toy, Toy, Any], Sequence[int]]

MISTAKES = {
    "another q": "tokens are drawn from a truncated, cooled or rounded q, and accepted "
    "by the q before that. Hand on the distribution that is drawn from.",
    "q/p": "tokens are accepted with probability q/p. Accept with min(1, p/q).",
    "residual of logits": "what replaces a rejected token is drawn by a difference of "
    "logits. Draw it from max(0, p - q) of probabilities, normalised.",
    "one seed": "the numbers that drew the draft decide about it, too. Give both ends "
    "generators that are independent.",
    "off the support": "tokens to which the q that is sent gives no probability are "
    "drawn, and accepted. Draw from what is sent, after its truncation.",
    "shifted row": "each drafted token is verified by the target's row after it. Row i "
    "is what follows the text and i drafted tokens.",
    "bonus token": "the token after an accepted draft comes from the row of the last "
    "drafted one. Draw it from the row after them all.",
    "one number twice": "a token that replaces a rejected one is drawn by the number "
    "that rejected. Draw it by a new one.",
}


def play(
    mistake: str | None,
    drafted: int,
    prompt: Sequence[int],
    draft: Toy,
    target: Toy,
    rng: Any,
) -> list[int]:
    """Return the tokens of a round, with a mistake or without."""
    text, sent, numbers = list(prompt), [], []
    for _ in range(drafted):
        q = draft(text)
        few = np.where(np.argsort(np.argsort(-q, kind="stable")) < 2, q, 0)
        sent.append(few / few.sum() if mistake == "off the support" else q)
        numbers.append(rng.random())
        drawn = few / few.sum() if mistake == "another q" else q
        text.append(_pick(drawn, numbers[-1]))
    tokens = text[len(prompt) :]
    rows = [target(text[: len(prompt) + i]) for i in range(drafted + 1)]
    for i, (token, q, number) in enumerate(zip(tokens, sent, numbers, strict=True)):
        p = rows[i + (mistake == "shifted row")]
        u = number if mistake == "one seed" else rng.random()
        above, under = (q, p) if mistake == "q/p" else (p, q)
        if u < above[token] / max(under[token], 1e-9):
            continue
        if mistake == "residual of logits":
            p, q = np.log(p + 1e-9), np.log(q + 1e-9)
        if mistake != "one number twice":
            u = rng.random()
        replaces = np.maximum(p - q, 0)
        return [*tokens[:i], _pick(replaces if replaces.any() else p, u)]
    return [*tokens, _pick(rows[-1 - (mistake == "bonus token")], rng.random())]


def _pick(p: NDArray[np.float64], u: Any) -> int:
    """Return the token whose part of [0, 1) has a number."""
    ends = np.cumsum(p / p.sum())
    ends[np.flatnonzero(p)[-1] :] = 2.0  # whatever the sum is rounded to
    return int(np.searchsorted(ends, u, "right"))
