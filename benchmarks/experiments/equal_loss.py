"""Bits of schemes at equal loss, each with the best of its settings.

One half of the prompts selects the settings on a scheme's Pareto front. The other half
gives their bits and losses; the logarithms of both halves' bits are averaged. With one
set of prompts, schemes with more settings would win by chance. Between two settings the
logarithm of the bits is interpolated linearly in the loss. Beyond the last setting its
bits are used.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.experiments.estimate import CONFIDENCE, Estimate, draws, of_draws
from sqs_codec.cli.bits import pareto

Floats = NDArray[np.float64]
Records = list[dict[str, Any]]


class Curve:
    """Bits of a scheme at any loss: of TV, or of acceptance against the dense draft's.

    There is a record per prompt: ``rows``, their number; ``half``, 0 or 1;
    ``draft_acceptance``; and ``sums``, by scheme, of each setting's TV, acceptance and
    bits. All are sums over rows.
    """

    def __init__(self, records: Records, scheme: str, against: str) -> None:
        sums = np.array([record["sums"][scheme] for record in records])
        loss = sums[..., 0]
        if against != "tv":
            draft = np.array([record["draft_acceptance"] for record in records])
            loss = draft[:, None] - sums[..., 1]
        points = np.stack((sums[..., 2], loss), -1)
        self._rows = np.array([record["rows"] for record in records], np.float64)
        self._halves = []
        half = np.array([record["half"] for record in records])
        # A single prompt is in both halves.
        halves = half == 0, half == (half.size > 1)
        for mine, others in zip(halves, halves[::-1], strict=True):
            means = points[others].sum(0) / self._rows[others].sum()
            front = pareto(means[:, 0], means[:, 1])
            self._halves.append((mine, points[:, front]))

    def bits(self, weights: Floats, most: float) -> Floats:
        """Return bits at a loss, [resamples]; NaN where the first setting loses more.

        `weights` [resamples, prompts] are the weights of prompts.
        """
        found = []
        for mine, points in self._halves:
            shares = weights * mine
            rows = shares @ self._rows
            # A resample of a few prompts may contain only one half, which then counts.
            shares[rows == 0] = weights[rows == 0]
            rows = shares @ self._rows
            means = np.tensordot(shares, points, 1) / rows[:, None, None]
            found.append(_interpolated(means, most))
        return np.asarray(np.exp(np.mean(found, 0)))


def _interpolated(means: Floats, most: float) -> Floats:
    """Return the logarithm of bits at a loss, linear between settings, [resamples].

    `means` are the bits and losses of settings by ascending loss, [resamples, n, 2]. If
    these prompts have another order, a setting gets the loss of the one before it.
    """
    bits = np.log(means[..., 0])
    loss = np.maximum.accumulate(means[..., 1], axis=1)
    above = (loss <= most).sum(1)  # the first setting that loses more
    last = loss.shape[1] - 1
    right = np.clip(above, 1, last) if last else np.zeros_like(above)
    left = np.maximum(right - 1, 0)
    place = np.arange(len(loss))
    width = np.maximum(loss[place, right] - loss[place, left], 1e-12)
    share = np.clip((most - loss[place, left]) / width, 0, 1)
    found = (1 - share) * bits[place, left] + share * bits[place, right]
    return np.where(above == 0, np.nan, found)


def compare(
    records: Records, against: str, most: float, seed: int
) -> dict[str, dict[str, float] | None]:
    """Estimate each scheme's bits at a loss.

    The first scheme has its bits, the others the ratio to these. None if a scheme can't
    reach this loss, or only on some prompts.
    """
    weights = draws(len(records), seed)
    bits = {
        scheme: Curve(records, scheme, against).bits(weights, most)
        for scheme in records[0]["sums"]
    }
    first, *others = bits
    found = {first: _estimate(bits[first])}
    found |= {scheme: _estimate(bits[scheme] / bits[first]) for scheme in others}
    return {scheme: x.as_json() if x else None for scheme, x in found.items()}


def _estimate(values: Floats) -> Estimate | None:
    """Return the first value's estimate, or None if too many values are NaN."""
    if np.isnan(values[0]) or np.isnan(values).mean() > (1 - CONFIDENCE) / 2:
        return None
    return of_draws(values)
