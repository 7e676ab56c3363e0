"""Checks of a target's rows, which may be arrays or tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sqs_codec._base import checks
from sqs_codec._base.format import MAX_VOCAB, MIN_VOCAB
from sqs_codec._codec.round import Round


def count_rows(round_: Round | None) -> int:
    """Return how many target rows, and random numbers, a round needs."""
    return 1 if round_ is None else len(round_) + 1


def spans(rounds: Sequence[Round | None]) -> Iterator[slice]:
    """Yield the slice of each round's rows."""
    start = 0
    for round_ in rounds:
        end = start + count_rows(round_)
        yield slice(start, end)
        start = end


def row_namer(name: str, rounds: Sequence[Round | None]) -> Callable[[int], str]:
    """Return a function that names a target row in errors."""

    def name_row(row: int) -> str:
        ends = np.cumsum([*map(count_rows, rounds)])
        number = int(ends.searchsorted(row, "right"))
        return f"rounds[{number}]: {name}[{row}]"

    return name_row


def check_rounds(rounds: Sequence[Round | None]) -> tuple[int | None, int]:
    """Return the rounds' vocabulary size (None if unknown) and number of rows."""
    checks.instance("rounds", rounds, Sequence, "a sequence of rounds")
    vocab_size = None
    for i, round_ in enumerate(rounds):
        if round_ is None:
            continue
        checks.instance(f"rounds[{i}]", round_, Round, "a Round or None")
        vocab_size = vocab_size or round_.vocab_size
        if round_.vocab_size != vocab_size:
            raise ValueError(
                f"rounds[{i}] must have vocabulary {vocab_size}, like the rounds "
                f"before it, got {round_.vocab_size}"
            )
    return vocab_size, sum(map(count_rows, rounds))


def check_shape(
    name: str, shape: Sequence[int], n: int, vocab_size: int | None
) -> None:
    if len(shape) == 2 and vocab_size is None:
        vocab_size = shape[1] if MIN_VOCAB <= shape[1] <= MAX_VOCAB else None
    if tuple(shape) != (n, vocab_size):
        raise ValueError(
            f"{name} must have shape ({n}, {vocab_size or 'vocabulary'}) (a row for "
            "each drafted token and one for the next token), got "
            f"{tuple(shape)}"
        )


def check_draws(name: str, draws: ArrayLike, n: int) -> NDArray[np.float64]:
    """Return n numbers from [0, 1)."""
    numbers = checks.numbers(name, draws, n, np.float64)
    bad = np.flatnonzero(~((numbers >= 0) & (numbers < 1)))  # NaN too
    if bad.size:
        raise ValueError(f"{name}[{bad[0]}] must be in [0, 1), got {numbers[bad[0]]}")
    return numbers
