"""Pareto fronts, and what lies between their points."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def pareto(bits: Iterable[float], loss: Iterable[float]) -> NDArray[np.int64]:
    """Find the settings that no other beats in both bits and loss.

    Parameters
    ----------
    bits, loss : iterable of float [N]
        Less is better; a setting of infinite bits is none.

    Returns
    -------
    ndarray of int64 [n]
        Which of the N, by ascending loss and hence descending bits. It is the plain
        front: settings above its lower convex hull stay.

    Examples
    --------
    >>> pareto(bits=[10, 20, 20, 40, 50], loss=[0.5, 0.4, 0.3, 0.1, 0.2]).tolist()
    [3, 2, 0]
    """
    spent = np.fromiter(bits, np.float64)
    lost = np.fromiter(loss, np.float64)
    front: list[int] = []
    for index in np.lexsort((lost, spent)):
        if math.isfinite(spent[index]) and (not front or lost[index] < lost[front[-1]]):
            front.append(int(index))
    return np.asarray(front[::-1], dtype=np.int64)


def bits_at(
    bits: NDArray[np.float64], loss: NDArray[np.float64], most: float
) -> float | None:
    """Bits of a front at a given loss, log-linear between neighbouring points.

    Parameters
    ----------
    bits, loss : ndarray of float64 [n]
        A front by ascending loss.
    most : float
        The loss allowed.

    Returns
    -------
    float or None
        None where even the first point loses more. Beyond the last point its bits:
        no setting needs more than the cheapest one.

    Notes
    -----
    Between two points the logarithm of the bits is linear in the loss.

    Examples
    --------
    >>> bits, loss = np.array([400.0, 100.0]), np.array([0.1, 0.3])
    >>> round(bits_at(bits, loss, 0.2), 3), bits_at(bits, loss, 0.05)
    (200.0, None)
    """
    if loss.size == 0 or most < loss[0]:
        return None
    return float(np.exp(np.interp(most, loss, np.log(bits))))
