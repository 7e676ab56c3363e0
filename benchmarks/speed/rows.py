"""Rows of logits for any vocabulary, made from those of a source."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.sources import Source

HEAD = 1024
"""The most probable tokens, which no added token is taken from."""


def take(
    source: Source, n: int, group: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return n rows of the draft and of the target, or all if a source has fewer.

    They are consecutive rows in groups of `group`, from all sessions in turn.

    Shipped rows have one logit for all tokens of their tails. These are spread, each
    lowered by the absolute value of a normal deviate: so many ties, which no model
    gives, make `numpy.argpartition` take forty times as long.
    """
    longest = max(map(len, source.sessions))
    places = [
        (session, i)
        for start in range(0, longest, group)
        for session in source.sessions
        for i in range(start, min(start + group, len(session)))
    ][:n]
    draft = np.array([session.draft[i] for session, i in places], np.float32)
    target = np.array([session.target[i] for session, i in places], np.float32)
    for row in (*draft, *target):
        tail = np.flatnonzero(row == row.min())
        if len(tail) > row.size // 2:
            row[tail] -= np.abs(rng.normal(size=len(tail)))
    return draft, target


def resized(
    rows: NDArray[np.float32], vocab_size: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return rows of another vocabulary.

    A smaller one is the first tokens. The tokens that a larger one has more get
    logits drawn from all of the row but its `HEAD` largest: what is kept, and so what
    is coded, stays the row's own.
    """
    if vocab_size <= rows.shape[1]:
        return np.ascontiguousarray(rows[:, :vocab_size])
    more = vocab_size - rows.shape[1]
    tail = max(1, rows.shape[1] - HEAD)
    tails = np.partition(rows, tail - 1, axis=1)[:, :tail]
    return np.hstack([rows, rng.choice(tails, more, axis=1)])
