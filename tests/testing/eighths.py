"""Exact output distributions of compiled loops, which take floats.

With models of four tokens, a right loop compares numbers only with eighths,
so one float in each eighth gives the distribution.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from sqs_codec import testing
from sqs_codec.testing._source import Source, walks


class Eighths(Source):
    """Gives floats; their place in an eighth depends only on the path."""

    def random(self, size: Any = None) -> Any:
        """Return one number or several."""
        if size is not None:
            return np.array([self.random() for _ in range(size)])
        eighth = self.decide([1.0] * 8)
        way = hash(tuple(outcome for outcome, _ in self.taken[: self.at]))
        return (eighth + (way % 1022 + 1) / 1024) / 8


class Toy(testing.Toy):
    """A model of four tokens and rows, by the text's end and length."""

    vocab_size = 4

    def __init__(self, *eighths: Sequence[int]) -> None:
        self.rows = np.array(eighths) / 8

    def __call__(self, text: Sequence[int]) -> np.ndarray:
        """Return the distribution of the next token."""
        return np.array(self.rows[(int(text[-1]) + len(text)) % 4])


# Of random rows these show best the mistake that shows least: it moves 1/8.
DRAFT = Toy((4, 0, 2, 2), (4, 2, 2, 0), (4, 2, 0, 2), (0, 2, 2, 4))
TARGET = Toy((1, 0, 6, 1), (2, 0, 4, 2), (5, 2, 1, 0), (2, 1, 2, 3))


def assert_lossless(decode: Callable[..., Sequence[int]]) -> int:
    """Sum over all ways through a loop; return how many there are."""
    found: dict[Any, Any] = defaultdict(lambda: [Fraction(0)] * 4)
    ways = [*walks(lambda rng: [*decode((0,), DRAFT, TARGET, rng)], 20_000, Eighths)]
    for way, text in ways:
        for i, token in enumerate(text):
            found[tuple(text[:i])][token] += Fraction(way.weight)
    for begun, row in found.items():
        expected = [Fraction(p) * sum(row) for p in TARGET((0, *begun))]
        assert row == expected, f"after {begun}"
    return len(ways)
