"""Which tokens of rows of logits a sampling leaves, tie for tie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqs_codec._codec.keep import count_prefix
from sqs_codec._codec.sampling import Sampling

FIRST_LOOK = 512
"""How many of the largest logits are sorted before a row needs more."""


def is_cut(
    rows: Any,
    xp: Any,
    take: Callable[[Any, Any, int], Any],
    largest: Callable[[int], Any],
    sampling: Sampling,
) -> Any:
    """Return which logits [N, V] a sampling cuts off.

    Of equal logits at a cut the lower ids stay, so that exactly `top_k` tokens do, or
    the fewest that reach `top_p`. Of a row with NaN nothing is cut.

    Arrays are of `xp`, NumPy or PyTorch on any device. `take` gives values at places
    along an axis, and `largest` so many logits of each row in descending order.
    """

    def weigh(part: Any) -> Any:
        """Return probabilities up to a factor: the largest is 1."""
        return xp.exp((part - top) / sampling.temperature)

    top_k, top_p = sampling.top_k, sampling.top_p
    top = xp.asarray(xp.amax(rows, -1), dtype=xp.float64)[..., None]
    size = rows.shape[1]
    most = min(top_k or size, size)
    for look in (most if top_k else min(FIRST_LOOK, size), most):
        values = largest(look)
        weights = weigh(values)
        goal = None
        if top_p < 1:
            goal = top_p * (weights if top_k else weigh(rows)).sum(-1)[..., None]
        counts = count_prefix(weights, sampling.min_p, goal)[..., None]
        if look == most or not (counts == look).any():
            break
    least = take(values, counts - 1, 1)
    spare = counts - (rows > least).sum(-1)[..., None]
    equal = rows == least
    return (rows < least) | (equal & (equal.cumsum(-1, dtype=xp.int32) > spare))


def truncate(rows: NDArray[np.floating], sampling: Sampling) -> NDArray[np.floating]:
    """Return logits [N, V], masked (-inf) where `is_cut` says so."""
    if not sampling._truncates:
        return rows

    def largest(k: int) -> NDArray[np.floating]:
        return np.sort(np.partition(rows, -k)[:, -k:])[:, ::-1]

    kept = rows.copy()
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        cut = is_cut(rows, np, np.take_along_axis, largest, sampling)
    kept[cut] = -np.inf
    return kept
