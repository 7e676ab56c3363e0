"""Two toy models with 64 tokens, in which all usual truncations have an effect."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

VOCAB = 64
LENGTH = 5
"""Tokens whose distribution is compared: four drafted ones, and a bonus."""

PROMPT = (1, 2)

ROWS = 5
"""Distributions of a toy: one after the prompt, four for later tokens."""


def row_after(last: Any, length: Any) -> Any:
    """Return the index of a text's next distribution, for integers or arrays."""
    return (1 + (last + length) % (ROWS - 1)) * (length != len(PROMPT))


class Toy:
    """A model of five distributions: one after the prompt, and four of later tokens.

    Which of the four it is depends on the last token and the length of the text.

    Parameters
    ----------
    *rows : str
        The weight of each token in a distribution.
    """

    vocab_size = VOCAB

    def __init__(self, *rows: str) -> None:
        self.rows = np.zeros((ROWS, VOCAB))
        """The distributions, float64 [5, 64]."""
        for row, parts in zip(self.rows, rows, strict=True):
            weights = np.array(parts.split(), float)
            row[: len(weights)] = weights / weights.sum()

    def __call__(self, text: Sequence[int]) -> NDArray[np.float64]:
        """Return the distribution of the token after a text, float64 [64]."""
        return np.array(self.rows[row_after(int(text[-1]), len(text))])

    def logits(self, text: Sequence[int]) -> NDArray[np.float64]:
        """Return the distribution as logits; -inf for a probability of 0."""
        with np.errstate(divide="ignore"):
            return np.log(self(text))


# No row has ties, and each has a long tail; of random rows, these show mistakes best. A
# top-k of 50 or a min-p of 0.05 cuts the first row; a top-k of 5, a top-p of 0.95 or a
# min-p of 0.1 cuts all. The rows sum to primes, 4099 and 67, so that float16 and
# bfloat16 round every probability.
DRAFT = Toy(
    "56 18 15 8 41 31 54 59 30 55 35 52 20 25 49 39 33 48 26 21 9 46 53 38 6 51 83 "
    "185 57 22 45 13 60 37 17 58 592 36 11 28 5 34 19 29 42 44 40 7 27 16 50 43 61 "
    "243 161 23 24 12 4 14 10 32 47 950",
    "2 0 24 14 8 5 4 1 9",
    "27 8 7 4 6 1 3 11 0",
    "21 5 1 8 0 15 4 10 3",
    "7 11 0 2 5 12 6 21 3",
)
TARGET = Toy(
    "41 39 45 8 199 51 15 4 36 44 46 34 10 498 54 60 29 56 9 37 11 47 24 52 5 27 49 "
    "55 35 42 25 26 53 59 28 19 846 18 12 14 23 21 469 86 30 31 61 13 20 38 17 50 43 "
    "40 57 58 33 7 6 22 32 16 48 116",
    "1 5 12 15 19 0 2 7 6",
    "3 13 9 5 20 1 2 14 0",
    "0 3 7 5 12 21 16 2 1",
    "16 4 1 5 6 23 0 9 3",
)
