"""Compare the law of a loop's texts with the target's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqs_codec.testing._mistakes import MISTAKES, laws, name_of
from sqs_codec.testing._source import CannotSum, walks
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
    "Nothing was seen to be cut from the draft. What cuts this toy: top-k below "
    f"{VOCAB}, top-p below {1 - DRAFT.rows[0].min():.4f}, min-p above "
    f"{DRAFT.rows[0].min() / DRAFT.rows[0].max():.4f}, an epsilon above "
    f"{DRAFT.rows[0].min():.4f}; with other settings this says nothing of a truncation."
)


class LossyError(AssertionError):
    """The loop's texts have another law than the target's."""


class Report(NamedTuple):
    """How a loop was found to be right.

    Attributes
    ----------
    method : str
        "sum" over all that numbers can decide, or "chi2", a test of texts.
    outcomes : int
        Ways through the loop, or texts.
    distance : float
        The largest total variation of a token, after what was before it.
    acceptance : float, optional
        How many of the texts go on after their first token: where a rejected token ends
        the text, how often that is accepted. None where all go on, or none.
    note : str
        What these texts can't show.
    """

    method: str
    outcomes: int
    distance: float
    acceptance: float | None
    note: str


class Table(NamedTuple):
    """How often which token follows which beginnings of texts.

    `seen` and `expected` are [C, VOCAB], of C classes of beginnings; `begun` has a
    beginning of each.
    """

    seen: NDArray[Any]
    expected: NDArray[Any]
    begun: NDArray[np.int64] = np.empty((1, 0), np.int64)

    def distance(self) -> float:
        """Return the total variation."""
        return float(np.abs(self.seen - self.expected).sum() / 2)


def check_lossless(
    decode: Decode, *, exact: bool | None = None, trials: int = 20_000, seed: int = 0
) -> Report:
    """Check that a loop of speculative decoding writes by its target's law.

    Parameters
    ----------
    decode : callable
        Takes a prompt, a draft, a target and a `numpy.random.Generator`, and returns
        the tokens after the prompt: those of one round, or a longer text. Five of them
        are looked at, so a round should draft four at most. Draft and target are `Toy`.
        Another source of random numbers takes its seed from ``rng.integers(2**32)``.
    exact : bool, optional
        Whether to sum over all that ``rng.random``, ``integers`` and ``choice`` can
        decide. By default this is tried first, and texts are counted where it fails.
    trials : int, optional
        Texts to count; no more ways than that are summed over.
    seed : int, optional
        Of the generators of these texts.

    Raises
    ------
    LossyError
        The law is another. The message has a token whose probability is wrong, and the
        mistake that fits, if one does. A right loop gets it once in a million times
        where texts are counted, never where its numbers are all `rng`'s and summed.
    ValueError
        So few texts wouldn't show most mistakes that this knows; what `decode` returns
        isn't tokens; or it can't be summed over and must be.
    """
    if exact is not False:
        try:
            return _sum(decode, trials)
        except LossyError:
            raise
        except Exception as error:  # numbers that are no floats may raise anything
            if exact:
                raise ValueError(f"decode can't be summed over: {error}") from error
    return _count(decode, trials, seed)


def _sum(decode: Decode, most: int) -> Report:
    def summed() -> list[tuple[list[int], float]]:
        ways = walks(partial(_text, decode), most)
        return [(text, way.weight) for way, text in ways]

    found = summed()
    texts, weights = map(np.array, zip(*found, strict=True))
    worst = max(_tables(texts, weights, exact=True), key=Table.distance)
    if worst.distance() < 1e-6:  # of rounding to float32
        return _report("sum", texts, weights, worst.distance())
    for _ in range(1 + 100 // len(texts)):
        if summed() != found:
            raise CannotSum("it is random without the generator's numbers")
    raise LossyError(_words(worst, f"summed over {len(texts)} ways", texts, weights))


def _count(decode: Decode, trials: int, seed: int) -> Report:
    controls = {name: trials * each[0, -1, :1] for name, each in laws().items()}
    expected = trials * TARGET.rows[:1]
    hidden = [x for x in controls if _excess(Table(controls[x], expected)) <= 1]
    if len(hidden) > len(MISTAKES) / 2:
        raise ValueError(f"{trials} trials don't show {hidden[0]!r}: give more")
    rngs = (np.random.default_rng([seed, 0, trial]) for trial in range(trials))
    texts, weights = np.array([_text(decode, rng) for rng in rngs]), np.ones(trials)
    worst = max(_tables(texts, weights), key=_excess)
    if _excess(worst) > 1:
        raise LossyError(_words(worst, f"{trials} texts", texts, weights))
    distance = max(
        table.distance() for table in _tables(texts, weights) if len(table.seen) < ROWS
    )
    note = f"So few texts don't show each of: {', '.join(hidden)}. " if hidden else ""
    return _report("chi2", texts, weights, distance / trials, note)


def _excess(table: Table) -> float:
    """Return how far counts are from the target, in what a right loop's may be.

    The limit is Laurent and Massart's (2000, lemma 1): chi-square of k degrees is above
    k + 2 sqrt(k x) + 2 x with probability exp(-x) at most. Tokens of which less than
    five are expected count as one.
    """
    seen, expected = table.seen, table.expected
    if seen[expected == 0].any():
        return math.inf
    few = expected < 5
    seen, expected = (np.c_[x * ~few, (x * few).sum(1)] for x in (seen, expected))
    enough = expected >= 5
    total = ((seen - expected)[enough] ** 2 / expected[enough]).sum()
    k, tables = ((expected > 0).sum(1) - 1).sum(), LENGTH * (LENGTH + 1) / 2
    x = math.log(1e6 * tables)
    return float(total / (k + 2 * math.sqrt(k * x) + 2 * x))


def _tables(
    texts: NDArray[np.int64], weights: NDArray[np.float64], *, exact: bool = False
) -> Iterator[Table]:
    """Yield tables of each token by its row, and by each token before it.

    If texts needn't be enough to fill it, one by all tokens before.
    """
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
        note += f"All of q and min(1, p/q) would accept {both.sum():.2f}. "
    least = 20 / len(texts) if method == "chi2" else 0
    if rate is None or accepted[both > least].all():
        note += CUTS
    return Report(method, len(texts), round(distance, 6), rate, note.strip())


def _text(decode: Decode, rng: Any) -> list[int]:
    """Return the beginning of a text that a loop writes, filled up with -1."""
    written = decode(PROMPT, DRAFT, TARGET, rng)
    tokens = np.asarray(written)
    right = tokens.ndim == 1 and tokens.size and tokens.dtype.kind in "iu"
    if not right or not 0 <= tokens.min() <= tokens.max() < VOCAB:
        raise ValueError(f"decode must return tokens of [0, {VOCAB}), not {written!r}")
    text: list[int] = tokens[:LENGTH].tolist()
    return text + [-1] * (LENGTH - len(text))


def _words(
    worst: Table, basis: str, texts: NDArray[np.int64], weights: NDArray[np.float64]
) -> str:
    """Return what a loop's author is to be told."""
    off = np.abs(worst.seen - worst.expected)
    at = begun, token = np.unravel_index(off.argmax(), off.shape)
    seen, expected = (x[at] / worst.seen[begun].sum() for x in worst[:2])
    name = name_of(texts, weights)
    advice = (
        f"It looks as where {MISTAKES[name]}" if name else "No mistake known here fits."
    )
    return (
        f"the texts don't have the target's law: total variation "
        f"{worst.distance() / weights.sum():.4f} of token {worst.begun.shape[1] + 1}, "
        f"{basis}. After {worst.begun[begun].tolist()} token {token} has probability "
        f"{seen:.4f}, the target gives it {expected:.4f}.\n{advice}"
    )
