"""Estimates of a model's KL divergence from a reference's counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqs_codec.distill._dataset import Text
from sqs_codec.distill._header import step_of

SEEN = 1 / 4
"""The smallest trusted ratio of the model's probability to the reference's, both summed
over the ids with counts."""

LESS = 2
"""The control variate is used if it divides the error by more than this. Choosing
between similar errors would favor the mean that is low by chance
(``benchmarks.kld.rounded``)."""

MOST_ERRORS = 4
"""The largest trusted distance of the control from 0, in standard errors. By chance,
one in 16,000 is larger."""

PERCENTILES = (0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9)

ROW = np.dtype(
    [
        ("plain", np.float64),  # the mean of -log r over the counts; r = q / p
        ("control", np.float64),  # the mean of r - 1, with expectation 0
        ("plain_variance", np.float64),  # of "plain", from the rounding to counts
        ("both_variance", np.float64),  # of "plain" + "control"
        ("seen", np.float32),  # the model's probability of all ids with counts
        ("reference_seen", np.float32),  # the reference's
        ("token", np.float32),  # log q of the text's next token, or NaN at its end
        ("reference_token", np.float32),  # log p of the same token
        ("same", np.bool_),  # whether both have the same most probable token
    ]
)
"""The figures of one position."""


class Estimate(NamedTuple):
    """A figure and its standard errors.

    Attributes
    ----------
    text : float
        The error from the choice of the text, estimated over contexts; NaN for one
        context. It is widened for few contexts, so that twice the error covers 95 %.
    reference : float
        The error from rounding the reference to counts.
    """

    value: float
    text: float
    reference: float = 0.0


@dataclass(frozen=True)
class KLD:
    """A comparison of a model with a reference; divergences are in nats.

    Attributes
    ----------
    infinite_rows : int
        The number of rows in which the model gives probability 0 or NaN to a token with
        counts. Their divergence is infinite, and so is the mean; all other figures of
        the divergence exclude them.
    nan_rows : int
        The number of infinite rows with NaN.
    mean : Estimate
        The mean of KL(reference || model) over all rows.
    finite_mean : Estimate
        The mean over the finite rows.
    is_controlled : bool
        Whether the mean includes the control, a term with expectation 0.
    control : Estimate
        The control's mean. If it isn't 0 within its error, the model is too different
        for this reference.
    is_trusted : bool
        Whether the control is 0 within four errors, and the model's probability of the
        ids with counts is a quarter of the reference's or more.
    percentiles : dict of float to (float, float)
        Percentiles of the rows' estimates, and the rounding noise in each.
    perplexity, reference_perplexity, log_ratio : Estimate
        `log_ratio` is ``log(perplexity / reference_perplexity)``.
    mean_difference, rms_difference : Estimate
        The model's probability of the text's next token minus the reference's.
    difference_percentiles : dict of float to float
    same_likeliest : Estimate
        The share of rows in which both have the same most probable token.
    """

    rows: int
    contexts: int
    infinite_rows: int
    nan_rows: int
    mean: Estimate
    finite_mean: Estimate
    is_controlled: bool
    control: Estimate
    is_trusted: bool
    percentiles: dict[float, tuple[float, float]]
    perplexity: Estimate
    reference_perplexity: Estimate
    log_ratio: Estimate
    mean_difference: Estimate
    rms_difference: Estimate
    difference_percentiles: dict[float, float]
    same_likeliest: Estimate


def estimate_rows(sequence: Text, answer: dict[str, NDArray[Any]]) -> NDArray[Any]:
    rows, extras = sequence.rows, sequence.extras
    starts = rows.offsets[:-1]
    found = np.zeros(len(rows), ROW)

    def total(values: NDArray[Any]) -> NDArray[Any]:
        return np.add.reduceat(values, starts)

    share = rows.counts / rows.resolution
    log_p, half = extras["logprobs"].astype(np.float64), step_of(rows) / 2
    with np.errstate(over="ignore", invalid="ignore"):
        log_r = answer["logprobs"] - log_p
        r = np.exp(log_r)
        # The mean factor by which rounding both logarithms to steps enlarges r.
        larger = (np.sinh(half) / half) ** 2
        larger[log_p == 0] = 1  # a log p of 0 is mostly exact
        control = r / larger - 1
        # The variance of systematic sampling: left * (1 - left) for the fraction of
        # l * p that is left to chance, visible only at ids with counts. The variance of
        # the steps of log p is added below.
        mean = rows.resolution * np.exp(log_p)
        left = mean - np.floor(mean)
        weight = np.where(mean < 1, 1 - left, left * (1 - left))
        weight /= float(rows.resolution) ** 2
        sizes = np.diff(rows.offsets)
        part = weight / np.repeat(np.maximum(total(weight), 1e-300), sizes)
        # The few ids of a peaked row are closer to their own mean than to that of all.
        free = np.maximum(1 - total(part**2), 1e-9)
        # A sure token has all counts but one, which goes to another with probability a.
        is_sure = mean > rows.resolution - 1
        a = np.clip(rows.resolution - total(np.where(is_sure, mean, 0)), 0, 1)
        chance = (1 - a) / float(rows.resolution) ** 2
        is_peaked = total(is_sure) > 0
        both = control - log_r
        for name, value, slope in ("plain", -log_r, 1.0), ("both", both, 1 - r):
            squares = (value - np.repeat(total(part * value), sizes)) ** 2
            sure = np.repeat(total(np.where(is_sure, value, 0)), sizes)
            last = chance * total(rows.counts * (value - sure) ** 2)
            counts = np.where(is_peaked, last, total(weight * squares) / free)
            steps = 2 * (share * slope * half) ** 2 / 3
            found[f"{name}_variance"] = counts + total(steps)
        found["plain"] = total(share * -log_r)
        found["control"] = total(share * control)
        found["seen"] = total(np.exp(answer["logprobs"].astype(np.float64)))
    found["reference_seen"] = total(np.exp(log_p))
    follows = sequence.places + 1 < len(sequence.tokens)
    for name, own in ("token", answer), ("reference_token", extras):
        found[name] = np.where(follows, own["token_logprobs"], np.nan)
    found["same"] = answer["likeliest"] == extras["likeliest"]
    return found


def summarize(found: Sequence[NDArray[Any]]) -> KLD:
    rows = np.concatenate(found)
    context = np.repeat(np.arange(len(found)), [*map(len, found)])
    nans = int(np.isnan(rows["plain"]).sum())
    is_finite = np.isfinite(rows["plain"]) & np.isfinite(rows["control"])
    finite, own = rows[is_finite], context[is_finite]
    control = finite["control"]
    plain = _mean(finite["plain"], own, finite["plain_variance"])
    both = _mean(finite["plain"] + control, own, finite["both_variance"])
    middle = _mean(control, own).value
    error = float(np.linalg.norm(control - middle)) / max(len(finite), 1)
    off = Estimate(middle, 0.0, error)
    seen = finite["seen"].sum() >= SEEN * finite["reference_seen"].sum()
    is_trusted = bool(abs(off.value) <= MOST_ERRORS * error and seen)
    is_controlled = is_trusted and both.reference < plain.reference / LESS
    mean, better = (both, "both") if is_controlled else (plain, "plain")
    values = finite["plain"] + control * is_controlled
    noise = finite[f"{better}_variance"]
    infinite = len(rows) - len(finite)
    q, p = (rows[name].astype(np.float64) for name in ("token", "reference_token"))
    known = ~np.isnan(q) & ~np.isnan(p)
    q, p, at = q[known], p[known], context[known]
    with np.errstate(over="ignore", invalid="ignore"):
        difference = np.exp(q) - np.exp(p)
        squares = _mean(difference**2, at)
    rms = math.sqrt(squares.value)
    return KLD(
        len(rows),
        len(found),
        infinite,
        nans,
        Estimate(math.inf, math.nan, math.nan) if infinite else mean,
        mean,
        is_controlled,
        off,
        is_trusted,
        _percentiles(values, noise),
        _exp(_mean(-q, at)),
        _exp(_mean(-p, at)),
        _mean(p - q, at),
        _mean(difference, at),
        Estimate(rms, squares.text / (2 * rms) if rms else 0.0),
        dict(zip(PERCENTILES, _quantiles(difference), strict=True)),
        _mean(rows["same"].astype(np.float64), context),
    )


def _mean(
    values: NDArray[Any], context: NDArray[Any], variance: NDArray[Any] | None = None
) -> Estimate:
    """Return the mean over rows and its error over contexts."""
    if not len(values):
        return Estimate(math.nan, math.nan, math.nan)
    n, mean = len(values), float(values.mean())
    reference = 0.0 if variance is None else math.sqrt(variance.sum()) / n
    sizes = np.bincount(context)
    with np.errstate(invalid="ignore"):  # the model may give the text's token 0
        off = np.bincount(context, values) - mean * sizes
    k = int((sizes > 0).sum())
    if k < 2:
        return Estimate(mean, math.nan, reference)
    total = float((off**2).sum()) * k / (k - 1) / n**2
    text = math.sqrt(max(total - reference**2, 0))
    # Student's t at the quantile of two normal errors, over two (Abramowitz and
    # Stegun, 26.7.5).
    wider = np.polyval([5665 / 6144, 183 / 128, 49 / 32, 5 / 4, 1], 1 / (k - 1))
    return Estimate(mean, text * float(wider), reference)


def _exp(log: Estimate) -> Estimate:
    with np.errstate(over="ignore"):
        value = float(np.exp(log.value))
    return Estimate(value, value * log.text)


def _quantiles(values: NDArray[Any]) -> list[float]:
    if not len(values):
        return [math.nan] * len(PERCENTILES)
    found: list[float] = np.percentile(values, PERCENTILES).tolist()
    return found


def _percentiles(
    values: NDArray[Any], variance: NDArray[Any]
) -> dict[float, tuple[float, float]]:
    """Return percentiles, and how far adding the same noise again moves each."""
    noise = np.random.default_rng(0).standard_normal(len(values)) * np.sqrt(variance)
    pairs = zip(_quantiles(values), _quantiles(values + noise), strict=True)
    return {at: (x, y - x) for at, (x, y) in zip(PERCENTILES, pairs, strict=True)}
