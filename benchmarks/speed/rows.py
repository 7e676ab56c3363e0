"""Rows of logits for any vocabulary, made from those of a source."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.sources import Source

HEAD = 1024
"""The most probable tokens, which no added token is taken from."""


@dataclass(frozen=True)
class Rows:
    """Rows that all contestants share.

    Attributes
    ----------
    draft, target : ndarray of float32 [n, V]
        Logits.
    """

    draft: NDArray[np.float32]
    target: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.draft)

    @property
    def vocab_size(self) -> int:
        """V."""
        return int(self.draft.shape[1])

    def first(self, n: int) -> Rows:
        """Return at most the first n rows."""
        return Rows(self.draft[:n], self.target[:n])

    def resized(self, vocab_size: int, rng: np.random.Generator) -> Rows:
        """Return rows of another vocabulary.

        A smaller one is the first tokens. The tokens that a larger one has more get
        logits drawn from all of the row but its `HEAD` largest: what is kept, and
        so what is coded, stays the row's own.
        """
        return replace(
            self,
            draft=_resized(self.draft, vocab_size, rng),
            target=_resized(self.target, vocab_size, rng),
        )


def _resized(
    rows: NDArray[np.float32], vocab_size: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    if vocab_size <= rows.shape[1]:
        return np.ascontiguousarray(rows[:, :vocab_size])
    more = vocab_size - rows.shape[1]
    tail = max(1, rows.shape[1] - HEAD)
    tails = np.partition(rows, tail - 1, axis=1)[:, :tail]
    return np.hstack([rows, rng.choice(tails, more, axis=1)])


def take(source: Source, n: int, group: int, rng: np.random.Generator) -> Rows:
    """Return n rows of a source, or all if it has fewer.

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
    target = np.array(
        [s.target[i] for s, i in places if s.target is not None], np.float32
    )
    _spread(draft, rng)
    _spread(target, rng)
    return Rows(draft, target)


def _spread(rows: NDArray[np.float32], rng: np.random.Generator) -> None:
    for row in rows:
        tail = np.flatnonzero(row == row.min())
        if len(tail) > row.size // 2:
            row[tail] -= np.abs(rng.normal(size=len(tail)))
