"""Comparison of token sequences."""

from collections.abc import Sequence
from typing import Any


def common_length(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Return the length of the common beginning of two texts.

    >>> common_length([1, 2, 3], [1, 2, 4])
    2
    """
    low, high = 0, min(len(first), len(second))
    first, second = (x if isinstance(x, list) else list(x) for x in (first, second))
    if first[:high] == second[:high]:
        return high
    while high - low > 1:  # the first difference lies between
        middle = (low + high) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle
    return low
