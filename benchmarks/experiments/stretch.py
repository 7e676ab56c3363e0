"""Rows of two models, moved to a vocabulary of another size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.rate.schemes import Row

Floats = NDArray[np.float64]

HEAD = 1024
"""Tokens of a stretched row that stay as they are, of the draft and of the target."""

TAILS = (64, 1024)
"""Stretched rows are compared with real ones by the mass beyond so many tokens."""

FACTS = ("top1", "entropy", *(f"tail{n}" for n in TAILS))


def facts(row: Row) -> list[float]:
    """Return what `FACTS` names: top-1 mass, entropy in bits, masses of the tail."""
    _, probs = row.top(row.q.size)
    some = probs[probs > 0]
    entropy = -float((some * np.log2(some)).sum())
    return [float(probs[0]), entropy, *(float(probs[n:].sum()) for n in TAILS)]


def stretched(draft: Floats, target: Floats, vocab_size: int) -> tuple[Floats, Floats]:
    """Move a row of two models to another vocabulary.

    Parameters
    ----------
    draft, target : ndarray of float64 [V]
        Probabilities.
    vocab_size : int
        V' of the result.

    Returns
    -------
    draft, target : ndarray of float64 [V']
        The `HEAD` most probable tokens of either keep their probabilities, which the
        two models have for the same token still; so their top-1 mass and the mass of
        all others are what they were. Their ids are stretched, so that low ids stay
        frequent. The others take the shape that is at the same place of the old
        vocabulary, scaled to the mass that the others had.
    """
    old = draft.size
    tops = [np.argpartition(-x, HEAD)[:HEAD] for x in (draft, target)]
    head = np.union1d(*tops)
    places = spread(head * vocab_size // old, vocab_size)
    source = np.arange(vocab_size) * old // vocab_size
    moved = []
    for probs in (draft, target):
        mass = probs[head]
        body = probs.copy()
        body[head] = np.delete(probs, head).mean()
        row = body[source]
        row[places] = 0
        row *= (1 - mass.sum()) / row.sum()
        row[places] = mass
        moved.append(row)
    return moved[0], moved[1]


def spread(places: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Move ascending places as little as makes them all different, below a size."""
    order = np.arange(places.size)
    apart = np.maximum.accumulate(places - order) + order
    return np.minimum(apart, size - places.size + order)
