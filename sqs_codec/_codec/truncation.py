"""Which tokens of a row of logits a sampling leaves, tie for tie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

__all__ = ["truncate"]

FIRST_LOOK = 64
"""How many of the largest logits are sorted before a top-p needs more."""


def truncate(
    logits: Floats, temperature: float, top_k: int, top_p: float, min_p: float
) -> Floats:
    """Return the logits [V], masked (-inf) where a truncation cuts a token off.

    In the order of the arguments, each on what the one before left. Of equal logits
    at a cut the lower ids stay, so that exactly `top_k` tokens do, or the fewest that
    reach `top_p`. A row that is no row of logits is returned as it is.
    """
    top = np.float64(logits.max())
    if not np.isfinite(top):
        return logits
    with np.errstate(over="ignore", under="ignore"):
        weights = np.exp((logits.astype(np.float64) - top) / temperature)
    ids = _largest(logits, top_k) if 0 < top_k < logits.size else None
    if top_p < 1:
        ids = _nucleus(logits, weights, ids, top_p)
    if ids is None:
        ids = np.arange(logits.size)
    ids = ids[weights[ids] >= min_p]  # the largest weight is 1
    kept = np.full_like(logits, -np.inf)
    kept[ids] = logits[ids]
    return kept


def _largest(logits: Floats, k: int) -> NDArray[np.intp]:
    """Return the ids of the k largest logits, by (logit descending, id ascending)."""
    ids = np.arange(logits.size)
    if k < logits.size:
        ids = np.flatnonzero(logits >= np.partition(logits, -k)[-k])
    return ids[np.argsort(-logits[ids], kind="stable")][:k]


def _nucleus(
    logits: Floats,
    weights: NDArray[np.float64],
    ids: NDArray[np.intp] | None,
    top_p: float,
) -> NDArray[np.intp]:
    """Return the fewest of the sorted ids, or of all, whose weights reach `top_p`."""
    goal = top_p * (weights if ids is None else weights[ids]).sum()
    look = FIRST_LOOK
    found = _largest(logits, look) if ids is None else ids
    while ids is None and look < logits.size and weights[found].sum() < goal:
        look *= 8
        found = _largest(logits, look)
    return found[: int(weights[found].cumsum().searchsorted(goal)) + 1]
