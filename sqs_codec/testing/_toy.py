"""Two models of four tokens, and the law of what one of them writes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["DRAFT", "LENGTH", "PROMPT", "TARGET", "TARGET_LAW", "Law", "Toy", "rest"]

LENGTH = 3
"""Tokens of the texts whose law is compared."""

PROMPT = (0,)

Law = NDArray[np.float64]
"""Probabilities of texts of `LENGTH` tokens, float64 [4, 4, 4]."""


class Toy:
    """A model whose distributions are one of four, by the text's end and length."""

    vocab_size = 4

    def __init__(self, eighths: Sequence[Sequence[int]]) -> None:
        self.rows = np.array(eighths, np.float64) / 8
        """The four distributions, float64 [4, 4]."""

    def __call__(self, text: Sequence[int]) -> NDArray[np.float64]:
        """Return the distribution of the token after a text, float64 [4]."""
        return np.array(self.rows[(int(text[-1]) + len(text)) % 4])

    def logits(self, text: Sequence[int]) -> NDArray[np.float64]:
        """Return the same as logits: a logarithm, minus infinity for what can't be."""
        with np.errstate(divide="ignore"):
            return np.log(self(text))


# All that a right loop compares a number with lies on eighths, and of random rows of
# which that is true, these show best the mistake that shows least: it moves 1/8.
DRAFT = Toy([(4, 0, 2, 2), (4, 2, 2, 0), (4, 2, 0, 2), (0, 2, 2, 4)])
TARGET = Toy([(1, 0, 6, 1), (2, 0, 4, 2), (5, 2, 1, 0), (2, 1, 2, 3)])


@cache
def rest(begun: tuple[int, ...]) -> Law:
    """Return the law of what the target adds to the beginning of a text."""
    if len(begun) == LENGTH:
        return np.array(1.0)
    p = TARGET([*PROMPT, *begun])
    return np.array([p[x] * rest((*begun, x)) for x in range(Toy.vocab_size)])


TARGET_LAW = rest(())
