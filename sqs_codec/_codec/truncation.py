"""Which tokens of rows of logits a sampling leaves, tie for tie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqs_codec._base import checks
from sqs_codec._codec.keep import count_prefix

__all__ = ["cuts_of", "is_cut", "truncate"]

FIRST_LOOK = 512
"""How many of the largest logits are sorted before a row needs more."""


def cuts_of(
    temperature: float, top_k: int, top_p: float, min_p: float
) -> tuple[int, float, float] | None:
    """Return a sampling's truncations, checked as its temperature; None of nothing."""
    cuts = (
        checks.in_range("top_k", top_k, 0),
        checks.finite("top_p", top_p, 0, 1),
        checks.finite("min_p", min_p, 0, 1),
    )
    is_warm = checks.temperature(temperature) > 0
    return cuts if is_warm and cuts != (0, 1, 0) else None


def is_cut(
    rows: Any,
    weigh: Callable[[Any], Any],
    largest: Callable[[int], Any],
    take: Callable[[Any, Any, int], Any],
    cuts: tuple[int, float, float],
) -> Any:
    """Return which logits [N, V] are cut off by a top_k, top_p and min_p.

    In this order, each on what the one before left. Of equal logits at a cut the lower
    ids stay, so that exactly `top_k` tokens do, or the fewest that reach `top_p`. Of a
    row with NaN nothing is cut.

    Arrays may be of NumPy or of PyTorch, on any device: `weigh` returns probabilities
    of logits, the largest as 1, `largest` so many of each row in descending order, and
    `take` values at places along an axis.
    """
    top_k, top_p, min_p = cuts
    size = rows.shape[1]
    most = min(top_k or size, size)
    for look in (most if top_k else min(FIRST_LOOK, size), most):
        values = largest(look)
        weights = weigh(values)
        goal = None
        if top_p < 1:
            whole = weights if top_k else weigh(rows)
            goal = top_p * whole.sum(-1)[..., None]
        counts = count_prefix(weights, min_p, goal)[..., None]
        if look == most or not (counts == look).any():
            break
    least = take(values, counts - 1, 1)
    spare = counts - (rows > least).sum(-1)[..., None]
    equal = rows == least
    return (rows < least) | (equal & (equal.cumsum(-1) > spare))


def truncate(
    rows: NDArray[np.floating],
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
) -> NDArray[np.floating]:
    """Return logits [N, V], masked (-inf) where `is_cut` says so."""
    cuts = cuts_of(temperature, top_k, top_p, min_p)
    if cuts is None:
        return rows
    top = rows.max(1, keepdims=True).astype(np.float64)

    def weigh(part: NDArray[np.floating]) -> NDArray[np.float64]:
        weights: NDArray[np.float64] = np.exp((part - top) / temperature)
        return weights

    def largest(k: int) -> NDArray[np.floating]:
        return np.sort(np.partition(rows, -k)[:, -k:])[:, ::-1]

    kept = rows.copy()
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        kept[is_cut(rows, weigh, largest, np.take_along_axis, cuts)] = -np.inf
    return kept
