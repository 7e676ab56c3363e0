"""Confidence intervals of ratios, by resampling prompts."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """Return the numbers by name."""
        return {"value": self.value, "low": self.low, "high": self.high}


def shown(estimate: Mapping[str, float], form: str, scale: float = 1.0) -> str:
    """Format a figure and its interval.

    >>> shown({"value": 0.5, "low": 0.41, "high": 0.6}, ".0f", 100)
    '50 (41 to 60)'
    """
    value, low, high = (
        format(scale * estimate[name], form) for name in ("value", "low", "high")
    )
    return f"{value} ({low} to {high})"


def near(estimate: Mapping[str, float], digits: int) -> str:
    """Format a figure and half of its interval."""
    half = (estimate["high"] - estimate["low"]) / 2
    return f"{estimate['value']:.{digits}f}±{half:.{digits}f}"


def ratio(numerators: ArrayLike, denominators: ArrayLike, seed: int = 0) -> Estimate:
    """Estimate a ratio of sums with one term per prompt; `seed` is for resampling.

    >>> ratio([1, 2, 3], [2, 4, 6])
    Estimate(value=0.5, low=0.5, high=0.5)
    """
    weights = draws(np.size(numerators), seed)
    return of_draws(weights @ numerators / (weights @ denominators))


def difference(
    first: ArrayLike,
    first_by: ArrayLike,
    second: ArrayLike,
    second_by: ArrayLike,
    seed: int = 0,
) -> Estimate:
    """Estimate the difference of two ratios of sums over the same prompts.

    >>> difference([1, 2], [1, 2], [1, 2], [2, 4]).value
    0.5
    """
    weights = draws(np.size(first), seed)
    found = (
        weights @ x / (weights @ y) for x, y in ((first, first_by), (second, second_by))
    )
    return of_draws(np.subtract(*found))


def draws(prompts: int, seed: int = 0) -> NDArray[np.float64]:
    """Return the weight of each prompt, first 1, then for each resample.

    The shape is [1 + RESAMPLES, prompts]; `of_draws` takes the results of the rows.
    With one prompt, intervals have no width.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(prompts, np.full(prompts, 1 / prompts), RESAMPLES)
    return np.concatenate((np.ones((1, prompts)), drawn.astype(np.float64)))


def of_draws(values: NDArray[np.float64]) -> Estimate:
    """Return the first value, with the interval of the others (resamples)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(values[1:], (tail, 1 - tail))
    return Estimate(float(values[0]), float(low), float(high))
