"""What both ends do with texts."""

from __future__ import annotations

from collections.abc import Collection, Sequence

__all__ = ["common_length", "until_stop"]


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens two texts begin with together."""
    length = min(len(first), len(second))
    if list(first[:length]) == list(second[:length]):
        return length
    return next(i for i in range(length) if first[i] != second[i])


def until_stop(tokens: list[int], stop: Collection[int]) -> list[int]:
    """Return tokens up to the first stop token, which is the last one then."""
    ends = [i + 1 for i, token in enumerate(tokens) if token in stop]
    return tokens[: ends[0]] if ends else tokens
