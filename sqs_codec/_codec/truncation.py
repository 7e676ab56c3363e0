"""The truncations of a `Sampling`, applied to rows of logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqs_codec._codec.keep import count_prefix
from sqs_codec._codec.sampling import Sampling

FIRST_LOOK = 512
"""The number of largest logits that are sorted first; some rows need more."""


def is_cut(
    rows: Any,
    xp: Any,
    take: Callable[[Any, Any, int], Any],
    largest: Callable[[int], Any],
    sampling: Sampling,
) -> Any:
    """Return which logits [N, V] a sampling cuts off.

    Ties at the cut go to the lower ids, so that exactly `top_k` tokens stay, or the
    fewest that reach `top_p`. Rows with NaN stay whole.

    Arrays are of `xp`, NumPy or PyTorch on any device. `take` gets values at indices
    along an axis, and `largest` the k largest logits of each row in descending order.
    """

    def weigh(part: Any) -> Any:
        """Return probabilities relative to the largest."""
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
    """Return logits [N, V] with the cut ones masked (-inf)."""
    if not sampling._truncates:
        return rows

    def largest(k: int) -> NDArray[np.floating]:
        return np.sort(np.partition(rows, -k)[:, -k:])[:, ::-1]

    kept = rows.copy()
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        cut = is_cut(rows, np, np.take_along_axis, largest, sampling)
    kept[cut] = -np.inf
    return kept
