"""Sampling with shared random numbers: exponential races, or Gumbel-max.

Each token's number E(x) is exponential and depends only on a key and the position.
``argmin E(x) / p(x)`` has the distribution p. A draft model with a distribution q
predicts it as ``argmin E(x) / q(x)``. ``docs/theory.md`` defines the numbers to the
bit, and bounds the output distribution's distance from the softmax of the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sqs_codec._backend import core_class
from sqs_codec._backend.core import Best
from sqs_codec._base import checks
from sqs_codec._base.errors import row_error
from sqs_codec._base.format import MAX_ROUND
from sqs_codec._codec.sampling import Sampling, checked
from sqs_codec._codec.target import check_shape
from sqs_codec._codec.truncation import truncate
from sqs_codec._codec.verify import Verdict

KEY_BYTES = 16
MAX_GUESSES = 8
LEAST_TEMPERATURE = 2.0**-100
"""Below this temperature the largest logit wins."""


@dataclass(frozen=True)
class Guesses:
    """Predictions of a sample, the most probable first.

    Attributes
    ----------
    tokens : tuple of int
        Different token ids.
    chances : tuple of float
        The confidence in each, relative to that of all possible guesses.
    """

    tokens: tuple[int, ...]
    chances: tuple[float, ...]


def gumbel_draw(
    logits: ArrayLike,
    key: bytes,
    position: int,
    *,
    sampling: Sampling | None = None,
) -> int:
    """Sample a token with the shared random numbers of a key and a position.

    With unpredictable keys, the token has the distribution of `logits` and `sampling`.
    The same arguments give the same token.

    Parameters
    ----------
    logits : array_like of float16, float32 or float64 [V]
        ``-inf`` masks a token.
    key : bytes [16]
        Selects the random numbers.
    position : int
        The token's position in its completion, in [0, 2**64). Use each position of a
        key once.
    sampling : Sampling, optional
        Temperature 1 and no truncation if None. At temperature 0 the largest logit
        wins. Ties go to the lower id, also in truncations.

    Raises
    ------
    ValueError
        If an argument is out of range, a logit is NaN or ``+inf`` or all are masked.

    Examples
    --------
    >>> gumbel_draw(np.float32([0, 2, 1]), bytes(16), 0)
    0
    """
    (token,), _ = _best(logits, key, position, 1, checked(sampling))
    return token


def gumbel_guess(
    logits: ArrayLike,
    key: bytes,
    position: int,
    count: int,
    *,
    sampling: Sampling | None = None,
) -> Guesses:
    """Predict the token of `gumbel_draw` for similar logits.

    The first guess is the token of `gumbel_draw` for these logits. There are fewer
    guesses than `count` if fewer tokens can be sampled.

    Parameters
    ----------
    logits, key, position, sampling
        As for `gumbel_draw`.
    count : int
        The number of guesses, 1 to 8.

    Examples
    --------
    >>> gumbel_guess(np.float32([0, 2, 1]), bytes(16), 0, 2).tokens
    (0, 2)
    """
    count = checks.in_range("count", count, 1, MAX_GUESSES)
    sampling = checked(sampling)
    tokens, scores = _best(logits, key, position, MAX_GUESSES, sampling)
    best = np.array(scores)
    with np.errstate(over="ignore"):
        greedy = sampling.temperature < LEAST_TEMPERATURE
        weights = np.exp(best[0] - best) if greedy else 1 / best
    chances = (weights / weights.sum()).tolist()
    return Guesses(tuple(tokens[:count]), tuple(chances[:count]))


def gumbel_verify(
    drafted: Sequence[int],
    logits: ArrayLike,
    key: bytes,
    position: int,
    *,
    sampling: Sampling | None = None,
) -> Verdict:
    """Accept the drafted tokens that the target samples itself; return its next one.

    Parameters
    ----------
    drafted : sequence of int
        L token ids, at most 256.
    logits : array_like of float16, float32 or float64 [L+1, V]
        Row i has the target's logits at the position of drafted token i; the last row
        belongs to the position after all drafted tokens.
    key, sampling
        As for `gumbel_draw`.
    position : int
        The first drafted token's position in its completion.

    Examples
    --------
    >>> rows = np.float32([[0, 2, 1], [3, 0, 0]])
    >>> gumbel_verify([0], rows, bytes(16), 0)
    Verdict(accepted=1, token=0)
    """
    tokens = checks.integers("drafted", drafted)
    shape = np.shape(logits)
    check_shape("logits", shape, len(tokens) + 1, None)
    check_draft("drafted", tokens, shape[1])
    rows, _ = checks.rows("logits", logits, shape[1])
    checks.no_probabilities(rows[0])
    sampling = checked(sampling)
    rows = truncate(rows, sampling)
    words = check_key("key", key)
    place = check_position("position", position, len(rows))
    found = race(
        rows, sampling.temperature, words, place, 1, lambda row: f"logits[{row}]"
    )
    return settle(tokens, [best[0] for best, _ in found])


def _best(
    logits: ArrayLike,
    key: bytes,
    position: int,
    most: int,
    sampling: Sampling,
) -> tuple[list[int], list[float]]:
    """Return the tokens with a row's `most` smallest scores, and the scores."""
    shape, temperature = np.shape(logits), sampling.temperature
    if len(shape) != 1:
        raise ValueError(f"logits must have shape (vocabulary,), got {shape}")
    vocab_size = checks.vocabulary(shape[0], "the vocabulary of logits")
    row = checks.row("logits", logits, vocab_size)
    checks.no_probabilities(row)
    rows = row[None]
    if temperature >= LEAST_TEMPERATURE:
        rows = truncate(rows, sampling)
    words = check_key("key", key)
    place = check_position("position", position, 1)
    (found,) = race(rows, temperature, words, place, most, lambda _: "logits")
    return found


# Also used by torch.gumbel_verify.


def check_draft(name: str, tokens: Sequence[int], vocab_size: int) -> None:
    if (size := len(tokens)) > MAX_ROUND:
        raise ValueError(f"{name} must be at most {MAX_ROUND} tokens, got {size}")
    for i, token in enumerate(tokens):
        checks.in_range(f"{name}[{i}]", token, 0, vocab_size - 1)


def check_key(name: str, key: bytes) -> NDArray[np.uint32]:
    """Return a key as four words."""
    data = checks.packet(key)
    if len(data) != KEY_BYTES:
        raise ValueError(f"{name} must have {KEY_BYTES} bytes, got {len(data)}")
    return np.frombuffer(data, "<u4").astype(np.uint32)


def check_position(name: str, position: int, rows: int) -> int:
    """Check the position of the first of `rows` rows."""
    return checks.in_range(name, position, 0, 2**64 - rows)


def race(
    rows: NDArray[Any],
    temperature: float,
    key: NDArray[np.uint32],
    position: int,
    most: int,
    name_row: Callable[[int], str],
) -> Best:
    """Return the tokens with each row's smallest scores, ascending, and the scores."""
    status, done, found = core_class().gumbel(rows, temperature, key, position, most)
    if status:
        raise row_error(name_row(done), rows[done], status)
    return found


def settle(drafted: Sequence[int], drawn: Sequence[int]) -> Verdict:
    """Return the verdict on drafted tokens, given the target's, one more."""
    accepted = 0
    while accepted < len(drafted) and drafted[accepted] == drawn[accepted]:
        accepted += 1
    return Verdict(accepted, drawn[accepted])
