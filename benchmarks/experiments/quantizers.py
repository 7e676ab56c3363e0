r"""Other ways to round a distribution than the codec's, and what their indices cost.

All take the probabilities q(x) of the tokens kept, in descending order, with the mass
of the others missing. Three give counts that sum to l, a point of Reznik's lattice:

* `Row.send <benchmarks.rate.schemes.Row>`, the codec's own, nearest in L2 to the
  renormalised probabilities, with zeros among the counts
* `largest_remainder`, nearest among the points without a zero
* `least_variation`, nearest in TV to q as it is, over the whole vocabulary

The counts of the first two approach q renormalised over what was kept, those of the
third q itself. Two other grids aren't lattices of fixed sum:

* `uniform`, multiples of a step, divided by their sum
* `geometric`, powers of a ratio, divided by their sum

Their sums are sums of integers, so that both ends hold the same distribution exactly.

`Indices` are what such a point says beside which tokens it has, and `price` says what
that costs with tables that were learned from other prompts.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

GEOMETRIC_UNIT = 2.0**30
"""Weight of the largest probability of a geometric grid. One of 10^-6 of it still has a
thousand, so that rounding weights to integers moves nothing that is measured."""

EXACT, PER_OCTAVE = 16, 4
"""Integers up to 15 have a symbol each; those of an octave above share four symbols and
say with even chances which they are."""

SYMBOLS = EXACT + 4 * PER_OCTAVE * 4
"""Enough for integers up to 2^20 - 1."""

UNLIMITED = 1 << 40

OCTAVES, RATIOS = 13, 10
CONTEXTS = OCTAVES * RATIOS

BACKOFF = 4.0
"""Symbols seen that weigh as much as the next coarser table. From 1 to 16 the bits
change by less than a hundredth."""


def largest_remainder(probs: Floats, resolution: int) -> Integers:
    """Return the lattice point nearest in L2 that leaves every token a count.

    Parameters
    ----------
    probs : ndarray of float64 [K]
        Of the tokens kept; renormalised here.
    resolution : int
        l, at least K.

    Returns
    -------
    ndarray of int64 [K]
        All at least 1; their sum is l.

    Notes
    -----
    Where the counts of 1 given to improbable tokens are too many already, units are
    taken back from others. Each step changes the squared error by the least that it
    can, and the error is convex in every count: the result is the nearest.

    Examples
    --------
    >>> largest_remainder(np.array([0.9, 0.09, 0.01]), 10)
    array([8, 1, 1])
    """
    scaled = resolution * probs / probs.sum()
    counts = np.maximum(1, np.floor(scaled)).astype(np.int64)
    return _settled(counts, scaled, resolution)


def least_variation(probs: Floats, resolution: int) -> Integers:
    r"""Return a lattice point of least total variation to the whole distribution.

    Parameters
    ----------
    probs : ndarray of float64 [K]
        q(x) of the tokens kept, not renormalised: their sum is at most 1.
    resolution : int
        l.

    Returns
    -------
    ndarray of int64 [K]
        At least 0; their sum is l.

    Notes
    -----
    TV(q, b/l) = 1 - sum_x min(q(x), b_x / l), the sum over the tokens kept, as q^ is 0
    elsewhere. A unit more at x gains 1/l up to floor(l q(x)) units, then what is left
    of q(x), then nothing: the gains of a token never rise, so that taking the largest
    gain l times is exact. As the floors sum to l at most, that is: all the floors, then
    a unit each to the largest fractions. Where there are more units than tokens that
    gain by them, which happens if much was dropped, any place is as good for the TV;
    they go where the renormalised probabilities lack them, which is better than
    elsewhere for the acceptance rate.

    Examples
    --------
    >>> least_variation(np.array([0.55, 0.28, 0.12]), 10)
    array([6, 3, 1])
    >>> least_variation(np.array([0.5, 0.1]), 10)  # 0.4 was dropped
    array([8, 2])
    """
    scaled = resolution * probs
    counts = np.floor(scaled).astype(np.int64)
    fractions = scaled - counts
    left = resolution - int(counts.sum())
    order = np.argsort(-fractions, kind="stable")[:left]
    counts[order[fractions[order] > 0]] += 1
    return _settled(counts, scaled / probs.sum(), resolution)


def _settled(counts: Integers, scaled: Floats, resolution: int) -> Integers:
    """Return counts with a sum of l, changed where the squared error grows least.

    Units are given to the largest remainders, one by one, or taken from the smallest
    where a count stays.
    """
    left = resolution - int(counts.sum())
    sign = 1 if left > 0 else -1
    heap = [
        (sign * error, i)
        for i, error in enumerate((counts - scaled).tolist())
        if left > 0 or counts[i] > 1
    ]
    heapq.heapify(heap)
    for _ in range(abs(left)):
        error, at = heap[0]
        counts[at] += sign
        if left > 0 or counts[at] > 1:
            heapq.heapreplace(heap, (error + 1, at))
        else:
            heapq.heappop(heap)
    return counts


def uniform(probs: Floats, step: float) -> Integers:
    """Return probabilities as multiples of a step, to be divided by their sum.

    Parameters
    ----------
    probs : ndarray of float64 [K]
        Of the tokens kept, not renormalised: those outside of the dead zone.
    step : float

    Returns
    -------
    ndarray of int64 [K]
        The nearest, a half being rounded up, and at least 1.

    Examples
    --------
    >>> uniform(np.array([0.62, 0.25, 0.04]), 0.1)
    array([6, 3, 1])
    """
    return np.asarray(np.maximum(1, np.floor(probs / step + 0.5)), np.int64)


def geometric(probs: Floats, step: float) -> Integers:
    """Return probabilities as powers of exp(-step), each the nearest in logarithm.

    Parameters
    ----------
    probs : ndarray of float64 [K]
        Of the tokens kept, in descending order; renormalised here.
    step : float
        In nats.

    Returns
    -------
    ndarray of int64 [K]
        Exponents, ascending from 0 or more.

    Examples
    --------
    >>> geometric(np.array([0.7, 0.2, 0.1]), 0.5)
    array([1, 3, 5])
    """
    levels = np.floor(-np.log(probs / probs.sum()) / step + 0.5)
    return np.asarray(np.maximum(0, levels), np.int64)


def geometric_weights(levels: Integers, step: float) -> Integers:
    """Return integers in the ratio of exp(-step level), [K]; q^ is them over their sum.

    Examples
    --------
    >>> geometric_weights(np.array([1, 1, 3]), 0.5) * 1000 // 2**30
    array([1000, 1000,  367])
    """
    weights = np.rint(GEOMETRIC_UNIT * np.exp(-step * (levels - levels[0])))
    return np.asarray(np.maximum(1, weights), np.int64)


@dataclass(frozen=True)
class Indices:
    """What a point says of its values, the largest first, then which token has which.

    Attributes
    ----------
    codes : ndarray of int16 [k + 1]
        Context and symbol of each value, as one number, and of the end.
    free : float
        Bits that no table could save: which integer of those that share a symbol, and
        the log2 of the ways to hand the values to the tokens.

    Notes
    -----
    The context is what the codec's own model of counts looks at: the value before and
    what is left of the mass of 1. It is taken in octaves of the probability before, and
    of the ratio of the mass left to it. No more values are expected where less is left
    than half the least one; of exponents that is the last, which a decoder doesn't know
    yet: it flatters them by a tenth of a bit at most.
    """

    codes: NDArray[np.int16]
    free: float

    @classmethod
    def of_counts(cls, counts: Integers, unit: float) -> Indices:
        """Return those of multiples of a unit, [k], in any order."""
        values = np.sort(counts)[::-1]
        before = np.concatenate(([UNLIMITED], values[:-1]))
        symbols, shared = _symbols(values, before)
        return cls(
            _codes(unit * values.astype(np.float64), unit, symbols),
            shared + _arrangement(values),
        )

    @classmethod
    def of_levels(cls, levels: Integers, step: float) -> Indices:
        """Return those of exponents, [k], ascending."""
        gaps = np.diff(levels, prepend=0) + 1
        symbols, shared = _symbols(gaps, np.full(gaps.size, UNLIMITED))
        shares = np.exp(-step * levels.astype(np.float64))
        return cls(
            _codes(shares, float(shares[-1]), symbols), shared + _arrangement(levels)
        )


def _symbols(values: Integers, most: Integers) -> tuple[Integers, float]:
    """Return the symbols of integers above 0, and the bits of what they leave open."""
    octave = np.frexp(values.astype(np.float64))[1] - 1
    shift = np.maximum(0, octave - 2)
    part = values >> shift  # 4 to 7 where there are more than EXACT
    symbols = np.where(
        values < EXACT, values, EXACT + PER_OCTAVE * (octave - 4) + part - PER_OCTAVE
    )
    first = part << shift
    open_to = np.minimum(first + (1 << shift), most + 1) - first
    shared = np.log2(open_to[values >= EXACT]).sum()
    return symbols.astype(np.int64), float(shared)


def _codes(shares: Floats, least: float, symbols: Integers) -> NDArray[np.int16]:
    """Return contexts and symbols together, the end included."""
    before = np.concatenate(([1.0], shares))
    left = 1.0 - np.concatenate(([0.0], np.cumsum(shares)))
    octave = np.minimum(np.floor(-np.log2(before) + 1e-9), OCTAVES - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.clip(np.floor(np.log2(left / before) + 1e-9) + 3, 1, RATIOS - 1)
    ratio = np.where(left < least / 2, 0, ratio)
    context = octave * RATIOS + ratio
    return np.asarray(context * SYMBOLS + np.append(symbols, 0), np.int16)


def _arrangement(values: Integers) -> float:
    """Return log2 of k!/(m1! m2! ...), for the numbers m of equal values."""
    equal = np.unique(values, return_counts=True)[1].tolist()
    ways = math.lgamma(values.size + 1) - sum(math.lgamma(m + 1) for m in equal)
    return ways / math.log(2)


def count_codes(codes: NDArray[np.int16]) -> Integers:
    """Return how often each symbol stands in each context, [CONTEXTS, SYMBOLS]."""
    found = np.bincount(codes, minlength=CONTEXTS * SYMBOLS)
    return found.reshape(CONTEXTS, SYMBOLS)


def price(counted: Integers, learned: Integers) -> float:
    """Return the bits of symbols with tables that were learned from others.

    Parameters
    ----------
    counted, learned : ndarray of int64 [CONTEXTS, SYMBOLS]
        As `count_codes` gives them, of what is priced and of other prompts.

    Notes
    -----
    A table for each context is mixed with one for its octave, that one with one for
    all, and that one with even chances, each with a weight of `BACKOFF` symbols.
    """
    by_octave = learned.reshape(OCTAVES, RATIOS, SYMBOLS).sum(1)
    chances = _mixed(learned.sum(0), np.full(SYMBOLS, 1 / SYMBOLS))
    chances = _mixed(by_octave, chances)
    chances = _mixed(learned, np.repeat(chances, RATIOS, axis=0))
    return float(-(counted * np.log2(chances)).sum())


def _mixed(learned: Integers, coarser: Floats) -> Floats:
    total = learned.sum(-1, keepdims=True)
    return np.asarray((learned + BACKOFF * coarser) / (total + BACKOFF))
