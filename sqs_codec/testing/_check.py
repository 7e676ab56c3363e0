"""Compare the law of a loop's texts with the target's."""

from __future__ import annotations

import itertools
import math
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqs_codec.testing._mistakes import MISTAKES, Decode, play
from sqs_codec.testing._source import CannotSum, walks
from sqs_codec.testing._toy import DRAFT, LENGTH, PROMPT, TARGET, TARGET_LAW, Law, rest

Text = tuple[int, ...]

__all__ = ["LossyError", "Report", "check_lossless"]


class LossyError(AssertionError):
    """The loop's texts have another law than the target's."""


class Report(NamedTuple):
    """How a loop was found to be right.

    `method` is "sum" over all that numbers can decide, "eighths", the same where some
    were taken as floats, of which each eighth has one, or "chi2", a test of texts;
    `outcomes` are ways through the loop, or texts; `distance` is the total variation.
    """

    method: str
    outcomes: int
    distance: float


def check_lossless(
    decode: Decode, *, exact: bool | None = None, trials: int = 20_000, seed: int = 0
) -> Report:
    """Check that a loop of speculative decoding writes by its target's law.

    Parameters
    ----------
    decode : callable
        Takes a prompt, a draft, a target and a `numpy.random.Generator`, and returns
        the tokens after the prompt: those of one round, or a longer text. Three of them
        are looked at, so a round should draft one or two. Draft and target are `Toy`.
        Another source of random numbers takes its seed from ``rng.integers(2**32)``.
    exact : bool, optional
        Whether to sum over all that ``rng.random``, ``integers`` and ``choice`` can
        decide. By default this is tried first, and texts are counted where it fails.
    trials : int, optional
        Texts to count; no more ways than that are summed over.
    seed : int, optional
        Of the generators of these texts.

    Returns
    -------
    Report

    Raises
    ------
    LossyError
        The law is another. The message has a text whose probability is wrong, and the
        mistake that fits, if one does. A right loop gets it once in a million times
        where texts are counted, never where its numbers are all `rng`'s and summed.
    ValueError
        So few texts wouldn't show each mistake that this knows; what `decode` returns
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
    """Sum over all ways."""
    law, ways, floats = _summed(decode, most)
    if (distance := _between(law, TARGET_LAW)) < 1e-6:  # of rounding to float32
        return Report("eighths" if floats else "sum", ways, round(distance, 6))
    if floats:
        raise CannotSum("it is wrong, or decides about floats at others than eighths")
    for _ in range(1 + 100 // ways):
        if not np.array_equal(law, _summed(decode, most)[0]):
            raise CannotSum("it is random without the generator's numbers")
    raise LossyError(_words(law, f"summed over {ways} ways"))


def _summed(decode: Decode, most: int) -> tuple[Law, int, bool]:
    """Return the law of a loop's texts, how many ways there are, and if by floats."""
    law, ways, floats = np.zeros_like(TARGET_LAW), 0, False
    for way, text in walks(lambda rng: _text(decode, rng), most):
        law[text] += float(way.weight) * rest(text)
        ways, floats = ways + 1, floats | way.floats
    return law, ways, floats


@cache
def _law_with(mistake: str, drafted: int, whole: bool, begun: Text = ()) -> Law:
    """Return the law of what a round with a mistake, or all of them, add to a text."""
    law = np.zeros_like(rest(begun))
    run = partial(play, mistake, drafted, [*PROMPT, *begun], DRAFT, TARGET)
    for way, written in walks(run, most=1000):
        text = (*begun, *written)[:LENGTH]
        goes_on = whole and len(text) < LENGTH
        after = _law_with(mistake, drafted, whole, text) if goes_on else rest(text)
        law[text[len(begun) :]] += float(way.weight) * after
    return law


def _count(decode: Decode, trials: int, seed: int) -> Report:
    """Test texts."""
    control = np.random.default_rng([seed, 1])
    for name in MISTAKES:
        lossy = control.multinomial(trials, _law_with(name, 2, False).ravel())
        if _excess(lossy.reshape(TARGET_LAW.shape)) <= 1:
            raise ValueError(f"{trials} trials don't show {name!r}: give more")
    counts = np.zeros_like(TARGET_LAW)
    for trial in range(trials):
        text = _text(decode, np.random.default_rng([seed, 0, trial]))
        while len(text) < LENGTH:  # the rest by the target, of numbers of its own
            text = (*text, int(control.choice(4, p=TARGET([*PROMPT, *text]))))
        counts[text] += 1
    if _excess(counts) > 1:
        raise LossyError(_words(counts / trials, f"{trials} texts"))
    return Report("chi2", trials, round(_between(counts / trials, TARGET_LAW), 4))


def _excess(counts: NDArray[Any]) -> float:
    """Return how far counts are from the target, in what a right loop's may be.

    The limit is Laurent and Massart's (2000, lemma 1): chi-square of k degrees is above
    k + 2 sqrt(k x) + 2 x with probability exp(-x) at most.
    """
    possible = TARGET_LAW > 0
    if counts[~possible].any():
        return math.inf
    expected = TARGET_LAW[possible] * counts.sum()
    k, x = expected.size - 1, math.log(1e6)
    limit = k + 2 * math.sqrt(k * x) + 2 * x
    return float(((counts[possible] - expected) ** 2 / expected).sum() / limit)


def _text(decode: Decode, rng: Any) -> Text:
    """Return the beginning of a text that a loop writes."""
    written = decode(PROMPT, DRAFT, TARGET, rng)
    tokens = np.asarray(written)
    right = tokens.ndim == 1 and tokens.size and tokens.dtype.kind in "iu"
    if not right or not 0 <= tokens.min() <= tokens.max() < 4:
        raise ValueError(f"decode must return tokens of [0, 4), not {written!r}")
    return tuple(tokens[:LENGTH].tolist())


def _between(a: Law, b: Law) -> float:
    return float(np.abs(a - b).sum() / 2)


def _words(found: Law, basis: str) -> str:
    """Return what a loop's author is to be told."""
    distance = _between(found, TARGET_LAW)
    text = np.unravel_index(np.abs(found - TARGET_LAW).argmax(), found.shape)
    kinds = itertools.product(MISTAKES, (1, 2, 3), (False, True))
    apart, name = min((_between(found, _law_with(*kind)), kind[0]) for kind in kinds)
    advice = f"It looks as where {MISTAKES[name]}"
    if apart > distance / 2:  # they differ in degree: how far q is truncated, say
        advice = "No mistake known here fits."
    return (
        f"the texts don't have the target's law: total variation {distance:.4f}, "
        f"{basis}. The text {[*map(int, text)]} has probability {found[text]:.4f}, "
        f"the target gives it {TARGET_LAW[text]:.4f}.\n{advice}"
    )
