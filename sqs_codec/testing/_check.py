"""Compare the output distribution of a loop with the target's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqs_codec.testing._mistakes import MISTAKES, name_of
from sqs_codec.testing._source import Source, Unrepeatable, walks
from sqs_codec.testing._toy import (
    DRAFT,
    LENGTH,
    PROMPT,
    ROWS,
    TARGET,
    VOCAB,
    Toy,
    row_after,
)

Decode = Callable[[Sequence[int], Toy, Toy, Any], Sequence[int]]

CUTS = (
    "No truncation of the draft was seen, so this check says nothing about one. These "
    f"settings truncate this toy: top-k below {VOCAB}, top-p below "
    f"{1 - DRAFT.rows[0].min():.4f}, min-p above "
    f"{DRAFT.rows[0].min() / DRAFT.rows[0].max():.4f}, an epsilon above "
    f"{DRAFT.rows[0].min():.4f}."
)

REPEATS = 50
"""Calls to repeat: a difference in 10 % of calls is missed with probability 0.5 %."""

LEAST = 1e-6
"""The smallest total variation that a sum reports; float32 rounding stays below it."""

FEW = 5
"""Expected texts of a token below which chi-square's distribution is too inexact."""


class LossyError(AssertionError):
    """The loop's output distribution differs from the target's."""


class Report(NamedTuple):
    """The result of a successful check.

    Attributes
    ----------
    method : str
        "sum" over all outcomes of the random numbers, or "chi2", a test of samples.
    outcomes : int
        The number of paths through the loop, or of samples.
    distance : float
        The largest total variation of a token, given the tokens before it.
    acceptance : float, optional
        The share of samples that continue after the first token: its acceptance rate,
        if a rejection ends the sample. None if all continue, or none.
    note : str
        Mistakes that this check can't detect.
    noticeable : float
        The smallest total variation of the first token that 99 % of checks detect.
    """

    method: str
    outcomes: int
    distance: float
    acceptance: float | None
    note: str
    noticeable: float


class Table(NamedTuple):
    """Counts of tokens after C kinds of beginnings, of which `begun` has examples."""

    seen: NDArray[Any]
    expected: NDArray[Any]
    begun: NDArray[np.int64] = np.empty((1, 0), np.int64)

    def distance(self) -> float:
        """Return the total variation."""
        return float(np.abs(self.seen - self.expected).sum() / 2)


def check_lossless(
    decode: Decode, *, exact: bool | None = None, trials: int = 20_000, seed: int = 0
) -> Report:
    """Check that a loop of speculative decoding has its target's output distribution.

    Parameters
    ----------
    decode : callable
        Takes a prompt, a draft, a target and a `numpy.random.Generator`, and returns
        the tokens after the prompt, of one round or more. The check uses the first
        five, so a round should draft at most four. Draft and target are `Toy`. Seed any
        other source of random numbers with ``rng.integers(2**32)``.
    exact : bool, optional
        Whether to sum over all outcomes of ``rng.random``, ``integers`` and ``choice``.
        By default, samples are counted if that fails.
    trials : int, optional
        The number of samples, and the limit on the paths to sum over.
    seed : int, optional
        The seed of the samples' generators.

    Raises
    ------
    LossyError
        The distribution is wrong. The message shows a token with a wrong probability
        and the likely mistake, if exactly one known mistake fits. For a correct loop,
        counting raises this once in a million checks, summing never.
    ValueError
        `trials` is too small to detect most mistakes; `decode` returns no tokens; or
        `exact` is set and the sum fails.
    """
    differs = None
    if exact is not False:
        try:
            return _sum(decode, trials)
        except LossyError:
            raise
        except Exception as error:  # the loop may reject numbers that aren't floats
            if exact:
                raise ValueError(f"decode can't be summed over: {error}") from error
            differs = error if isinstance(error, Unrepeatable) else None
    return _count(decode, trials, seed, differs)


def _sum(decode: Decode, most: int) -> Report:
    run = partial(_text, decode)
    ways = [*walks(run, most)]
    for i in range(REPEATS):
        way, text = ways[-1 - i * len(ways) // REPEATS]
        if (now := run(Source(way.taken))) != text:
            raise Unrepeatable(text, now)
    texts = np.array([text for _, text in ways])
    weights = np.array([way.weight for way, _ in ways])
    worst = max(_tables(texts, weights, exact=True), key=Table.distance)
    if worst.distance() < LEAST:
        return _report("sum", texts, weights, worst.distance())
    name = name_of(texts, weights, counted=False)
    raise LossyError(_words(worst, f"summed over {len(texts)} ways", name))


def _count(
    decode: Decode, trials: int, seed: int, differs: Unrepeatable | None
) -> Report:
    if (least := _noticeable(trials)) > 0.5:
        raise ValueError(
            f"{trials} trials miss a total variation of {least:.2f}: use more"
        )

    def text(trial: int) -> list[int]:
        return _text(decode, np.random.default_rng([seed, 0, trial]))

    texts, weights = np.array([text(i) for i in range(trials)]), np.ones(trials)
    # The first call isn't repeated, because it may load models.
    for i, before in enumerate(texts[1:REPEATS].tolist(), 1):
        if differs is None and (now := text(i)) != before:
            differs = Unrepeatable(before, now)
    worst = max(_tables(texts, weights), key=_excess)
    if _excess(worst) > 1:
        name = None if differs else name_of(texts, weights, counted=True)
        worst = Table(worst.seen / trials, worst.expected / trials, worst.begun)
        raise LossyError(_words(worst, f"{trials} texts", name, differs))
    distance = max(
        table.distance() for table in _tables(texts, weights) if len(table.seen) < ROWS
    )
    note = f"The texts were counted, since {differs}. " if differs else ""
    return _report("chi2", texts, weights, distance / trials, note)


def _limit(k: float) -> float:
    """Return a bound that chi-square, in any table of a check, exceeds once in 10^6."""
    # Laurent and Massart 2000, lemma 1.
    x = math.log(1e6 * LENGTH * (LENGTH + 1) / 2)
    return k + 2 * math.sqrt(k * x) + 2 * x


def _noticeable(trials: int) -> float:
    """Return the total variation of first tokens that 99 % of checks detect."""
    # It adds 4 d^2 per text; twice the distance from mean to limit is 2.5 deviations.
    few = trials * TARGET.rows[0] < FEW
    k = VOCAB - few.sum() - (not few.any())
    least = math.sqrt((_limit(k) - k) / 2 / max(trials, 1))
    return round(least + float(TARGET.rows[0][few].sum()), 3)


def _excess(table: Table) -> float:
    """Return chi-square over its limit; rare tokens, expected below 5, are pooled."""
    seen, expected = table[:2]
    if seen[expected == 0].any():
        return math.inf
    few = expected < FEW
    seen, expected = (np.c_[x * ~few, (x * few).sum(1)] for x in (seen, expected))
    enough = expected >= FEW
    total = ((seen - expected)[enough] ** 2 / expected[enough]).sum()
    return float(total / _limit(((expected > 0).sum(1) - 1).sum()))


def _tables(
    texts: NDArray[np.int64], weights: NDArray[np.float64], *, exact: bool = False
) -> Iterator[Table]:
    """Yield tables by row and by each earlier token; if exact, by all of them."""
    for i in range(LENGTH):
        here = texts[:, i] >= 0
        begun, tokens = texts[here, :i], texts[here, i]
        rows = row_after(texts[here, i - 1], len(PROMPT) + i)
        keys = [rows, *(rows * VOCAB + token for token in begun.T)]
        if exact:
            keys = [begun @ VOCAB ** np.arange(i)]
        for key in keys if len(tokens) else []:
            _, first, place = np.unique(key, return_index=True, return_inverse=True)
            size = len(first) * VOCAB
            seen = np.bincount(place * VOCAB + tokens, weights[here], size)
            seen = seen.reshape(-1, VOCAB)
            expected = TARGET.rows[rows[first]] * seen.sum(1, keepdims=True)
            yield Table(seen, expected, begun[first])


def _report(
    method: str,
    texts: NDArray[np.int64],
    weights: NDArray[np.float64],
    distance: float,
    note: str = "",
) -> Report:
    goes_on = weights * (texts[:, 1] >= 0) / weights.sum()
    accepted = np.bincount(texts[:, 0], goes_on, VOCAB)
    both = np.minimum(DRAFT.rows[0], TARGET.rows[0])
    rate: float | None = round(float(accepted.sum()), 4)
    if rate in (0, 1):  # no text shows where a token was rejected
        rate = None
    elif accepted.sum() < both.sum() - 0.03:
        note += f"With all of q, min(1, p/q) would accept {both.sum():.2f}. "
    n = len(texts)
    least, rare = (_noticeable(n), 20 / n) if method == "chi2" else (LEAST, 0)
    if rate is None or accepted[both > rare].all():
        note += CUTS
    return Report(method, n, round(distance, 6), rate, note.strip(), least)


def _text(decode: Decode, rng: Any) -> list[int]:
    """Return the first tokens of a loop's text, padded with -1."""
    written = decode(PROMPT, DRAFT, TARGET, rng)
    tokens = np.asarray(written)
    right = tokens.ndim == 1 and tokens.size and tokens.dtype.kind in "iu"
    if not right or not 0 <= tokens.min() <= tokens.max() < VOCAB:
        raise ValueError(f"decode must return tokens of [0, {VOCAB}), not {written!r}")
    text: list[int] = tokens[:LENGTH].tolist()
    return text + [-1] * (LENGTH - len(text))


def _words(worst: Table, basis: str, name: str | None, differs: Any = None) -> str:
    off = np.abs(worst.seen - worst.expected)
    at = begun, token = np.unravel_index(off.argmax(), off.shape)
    seen, expected = (x[at] / worst.seen[begun].sum() for x in worst[:2])
    advice = f"Likely cause: {MISTAKES[name]}" if name else "No known mistake fits."
    if differs:
        advice = f"First, {differs}. Create caches and generators inside decode."
    return (
        f"the output distribution is not the target's: total variation "
        f"{worst.distance():.6f} of token {worst.begun.shape[1] + 1}, "
        f"{basis}. After {worst.begun[begun].tolist()} token {token} has probability "
        f"{seen:.6f}, and the target gives it {expected:.6f}.\n{advice}"
    )
