"""What a run measures, and what follows from it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from sqs_codec.bench import ideal, schemes
from sqs_codec.bench.fronts import bits_at, pareto
from sqs_codec.bench.schemes import Loss, Setting

OPERATING_POINTS = ((0.3, 0.02), (0.7, 0.02), (0.7, 0.05), (1.0, 0.10), (1.0, 0.15))
"""Temperature and mean TV at which schemes are compared."""

K_SQS, C_SQS = "K-SQS, formula", "C-SQS, formula"
QS, RAW = "QS, formula", "raw top-K, fp16"
ENUMERATIVE = "enumerative"
CODED = {
    "fixed": ("entropy", "entropy, rounds", "entropy, stream"),
    "rule": ("rule", "rule, rounds", "rule, stream"),
    "rdo": ("RDO", "RDO, rounds", "RDO, stream"),
}
"""The entropy coding by what chooses the counts: each distribution in a packet of its
own, in rounds that decode on their own, and in the rounds of a stream."""

PAPER = (K_SQS, C_SQS)
OURS = (ENUMERATIVE, *(name for names in CODED.values() for name in names))


@dataclass
class Point:
    """One setting of one scheme, averaged over all positions.

    Attributes
    ----------
    setting : Setting
    rows : int
    bits, tv, acceptance : float
        Sums so far; the properties of the same names with ``mean_`` average them.
    """

    setting: Setting
    rows: int = 0
    bits: float = 0.0
    tv: float = 0.0
    acceptance: float = 0.0

    def add(self, loss: Loss, bits: float) -> None:
        """Count one position."""
        self.rows += 1
        self.bits += bits
        self.tv += loss.tv
        self.acceptance += loss.acceptance

    @property
    def mean_bits(self) -> float:
        """Bits of a distribution."""
        return self.bits / self.rows

    @property
    def mean_tv(self) -> float:
        """TV(q, q^)."""
        return self.tv / self.rows

    @property
    def mean_acceptance(self) -> float:
        """Acceptance rate."""
        return self.acceptance / self.rows


@dataclass
class Breakdown:
    """Where the bits of some rounds go.

    Attributes
    ----------
    setting : Setting
    rounds, distributions : int
    ideal : ideal.Parts
        What the models cost in real numbers.
    sent : int
        Bits of the packets.
    """

    setting: Setting
    rounds: int = 0
    distributions: int = 0
    ideal: ideal.Parts = field(default_factory=ideal.Parts)
    sent: int = 0

    def add(
        self,
        distributions: Sequence[sqs.SparseDistribution],
        tokens: Sequence[int],
        packet: bytes,
    ) -> None:
        """Count one round."""
        parts = ideal.round_parts(
            distributions, tokens, sends_resolution=self.setting.error is not None
        )
        self.rounds += 1
        self.distributions += len(tokens)
        self.ideal.add(parts)
        self.sent += 8 * len(packet)

    @property
    def overhead(self) -> float:
        """Bits sent beyond the ideal."""
        return self.sent - self.ideal.total


@dataclass
class Temperature:
    """All that is measured at one temperature.

    Attributes
    ----------
    temperature : float
    has_target : bool
    points : dict of str to dict of Setting to Point
        By scheme.
    breakdowns : dict of Setting to Breakdown
    token_bits : float
        Bits of a token-and-count message for each token.
    draft_acceptance : float
        1 - TV(p, q): the acceptance rate if nothing were dropped or rounded.
    """

    temperature: float
    has_target: bool
    points: dict[str, dict[Setting, Point]]
    breakdowns: dict[Setting, Breakdown]
    token_bits: float
    draft_acceptance: float

    def front(
        self, scheme: str, against: str = "tv"
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], list[Setting]]:
        """Return a scheme's front.

        Parameters
        ----------
        scheme : str
        against : {"tv", "acceptance"}
            What is lost: TV(q, q^), or acceptance rate below that of the draft.

        Returns
        -------
        bits, loss : ndarray of float64 [n]
            By ascending loss.
        settings : list of Setting
        """
        points = list(self.points[scheme].values())
        bits = np.array([point.mean_bits for point in points])
        if against == "tv":
            loss = np.array([point.mean_tv for point in points])
        else:
            rate = np.array([point.mean_acceptance for point in points])
            loss = self.draft_acceptance - rate
        front = pareto(bits, loss)
        return bits[front], loss[front], [points[i].setting for i in front]

    def bits_at(self, scheme: str, loss: float, against: str = "tv") -> float | None:
        """Return a scheme's bits at a loss, at its own best setting."""
        bits, losses, _ = self.front(scheme, against)
        return bits_at(bits, losses, loss)

    def same(self, scheme: str) -> float:
        """Return a scheme's bits at the setting of Table 1."""
        return self.points[scheme][schemes.SAME].mean_bits


@dataclass(frozen=True)
class Results:
    """A whole run.

    Attributes
    ----------
    measured : dict
        What it was measured on and with.
    temperatures : list of Temperature
    """

    measured: dict[str, Any]
    temperatures: list[Temperature]

    def as_json(self) -> dict[str, Any]:
        """Return everything that the tables and the plot are made from."""
        return {
            "measured": self.measured,
            "temperatures": [_temperature_json(t) for t in self.temperatures],
            "operating_points": operating_points(self.temperatures),
        }

    def write(self, path: Path) -> None:
        """Write the JSON."""
        path.write_text(json.dumps(self.as_json(), indent=1) + "\n", "utf-8")


def _temperature_json(measured: Temperature) -> dict[str, Any]:
    fronts = {
        (scheme, against): measured.front(scheme, against)[2]
        for scheme in measured.points
        for against in ("tv", "acceptance")
        if against == "tv" or measured.has_target
    }
    return {
        "temperature": measured.temperature,
        "token_and_count_bits": measured.token_bits,
        "draft_acceptance": _number(measured.draft_acceptance),
        "schemes": {
            scheme: [
                {
                    **point.setting.as_json(),
                    "bits": _number(point.mean_bits),
                    "tv": point.mean_tv,
                    "acceptance": _number(point.mean_acceptance),
                    "fronts": [
                        against
                        for against in ("tv", "acceptance")
                        if point.setting in fronts.get((scheme, against), [])
                    ],
                }
                for point in points.values()
            ]
            for scheme, points in measured.points.items()
        },
        "breakdowns": [
            {
                **breakdown.setting.as_json(),
                "rounds": breakdown.rounds,
                "distributions": breakdown.distributions,
                "ideal_bits": asdict(breakdown.ideal),
                "sent_bits": breakdown.sent,
            }
            for breakdown in measured.breakdowns.values()
        ],
    }


def _number(value: float) -> float | None:
    """JSON knows neither NaN nor infinity."""
    return value if math.isfinite(value) else None


def operating_points(temperatures: Sequence[Temperature]) -> list[dict[str, Any]]:
    """Compare all schemes at the operating points whose temperature was measured.

    Returns
    -------
    list of dict
        Temperature, TV, ``bits`` by scheme (None where it can't), ``paper``, the
        bits of the better of K-SQS and C-SQS, and ``ratio`` to them by scheme.
    """
    by_temperature = {t.temperature: t for t in temperatures}
    table = []
    for temperature, tv in OPERATING_POINTS:
        measured = by_temperature.get(temperature)
        if measured is None:
            continue
        bits = {scheme: measured.bits_at(scheme, tv) for scheme in measured.points}
        paper = min((bits[s] or math.inf for s in PAPER), default=math.inf)
        ratio = {
            s: b / paper if b is not None and math.isfinite(paper) else None
            for s, b in bits.items()
        }
        table.append(
            {
                "temperature": temperature,
                "tv": tv,
                "bits": bits,
                "paper": _number(paper),
                "ratio": ratio,
            }
        )
    return table
