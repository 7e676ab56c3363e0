"""One run: bits and loss of every scheme at every setting."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import sqs_codec as sqs
from benchmarks import schemes
from benchmarks.schemes import Loss, Row, Sent, Setting
from benchmarks.sources import Session, Source
from benchmarks.tables import about
from sqs_codec.cli.bits import pareto

ROUND = 5
"""Distributions in a round."""

OPERATING_POINTS = ((0.3, 0.02), (0.7, 0.02), (0.7, 0.05), (1.0, 0.10), (1.0, 0.15))
"""Temperature and mean TV at which schemes are compared."""

ACCEPTANCE_POINTS = (
    (0.3, 0.005),
    *((0.7, lost) for lost in (0.005, 0.01, 0.02)),
    *((1.0, lost) for lost in (0.01, 0.02)),
)
"""Temperature, and the loss of acceptance rate against the dense draft."""


def bits_at(
    bits: NDArray[np.float64], loss: NDArray[np.float64], most: float
) -> float | None:
    """Return a front's bits at a given loss, log-linear between neighboring points.

    The front's points [n] have ascending loss. Returns None if the first one loses
    more, and the last one's bits for any larger loss.

    >>> bits, loss = np.array([400.0, 100.0]), np.array([0.1, 0.3])
    >>> [round(bits_at(bits, loss, most), 3) for most in (0.2, 0.3, 0.9)]
    [200.0, 100.0, 100.0]
    >>> bits_at(bits, loss, 0.05) is None
    True
    """
    if loss.size == 0 or most < loss[0]:
        return None
    return float(np.exp(np.interp(most, loss, np.log(bits))))


@dataclass
class Temperature:
    """The measurements at one temperature, as sums over positions."""

    temperature: float
    rows: int = 0
    """Positions."""
    sums: dict[str, dict[Setting, NDArray[np.float64]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(lambda: np.zeros(3)))
    )
    """Bits, TV and acceptance rate [3], by scheme and setting."""
    draft_acceptance: float = 0.0
    """1 - TV(p, q): the acceptance rate if nothing were dropped or rounded."""

    def add(self, scheme: str, setting: Setting, loss: Loss, bits: float) -> None:
        """Count one position."""
        self.sums[scheme][setting] += bits, loss.tv, loss.acceptance

    def mean(self, scheme: str, setting: Setting) -> NDArray[np.float64]:
        """Return mean bits, TV and acceptance rate."""
        return self.sums[scheme][setting] / self.rows

    def front(
        self, scheme: str, against: str = "tv"
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return a scheme's front: bits and loss, [n] each, by ascending loss.

        The loss is TV(q, q^) for ``"tv"``, or the acceptance rate's for others.
        """
        bits, tv, rate = np.array(list(self.sums[scheme].values())).T / self.rows
        loss = tv if against == "tv" else self.draft_acceptance / self.rows - rate
        front = pareto(bits, loss)
        return bits[front], loss[front]

    def bits_at(self, scheme: str, loss: float, against: str = "tv") -> float | None:
        """Return a scheme's bits at a loss, with its best setting."""
        return bits_at(*self.front(scheme, against), loss)


@dataclass(frozen=True)
class Results:
    """The results of a run."""

    measured: dict[str, Any]
    """The source, the environment and the parameters."""
    temperatures: list[Temperature]

    def at(
        self,
        points: Sequence[tuple[float, float]],
        against: str,
        names: Sequence[str] = schemes.SCHEMES,
        rivals: Sequence[str] = schemes.PAPER,
    ) -> list[dict[str, Any]]:
        """Compare schemes at pairs of temperature and loss.

        Each result has the temperature, the loss, ``bits`` by scheme (None if a scheme
        can't reach the loss) and the ``ratio`` to the best rival.
        """
        found = []
        by_temperature = {t.temperature: t for t in self.temperatures}
        for temperature, loss in points:
            if (measured := by_temperature.get(temperature)) is None:
                continue
            bits = {s: measured.bits_at(s, loss, against) for s in names}
            best = min(bits[s] or math.inf for s in rivals)
            ratio = {
                s: None if b is None or math.isinf(best) else b / best
                for s, b in bits.items()
            }
            found.append(
                {"temperature": temperature, "loss": loss, "bits": bits, "ratio": ratio}
            )
        return found


class Meter:
    """Adds up all measurements of a source at one temperature.

    The seed samples the drafted tokens.
    """

    def __init__(self, temperature: float, source: Source, seed: int) -> None:
        self.result = Temperature(temperature)
        self._vocab_size = source.vocab_size
        self._prior = source.prior
        self._rng = np.random.default_rng(seed)
        self._paper = list(dict.fromkeys(schemes.paper_settings()))
        self._ours = list(dict.fromkeys(schemes.our_settings()))
        self._thresholds = {keep: keep.start() for keep in schemes.online_rules()}

    def add(self, session: Session) -> None:
        """Measure the positions of one session."""
        sequences: list[list[Sent]] = [[] for _ in self._ours]
        for index in range(len(session)):
            logits = session.draft[index], session.target[index]
            row = Row(*logits, self.result.temperature)
            self._formulas(row)
            self._steered(row)
            for sequence, (keep, resolution) in zip(sequences, self._ours, strict=True):
                sequence.append(row.send(keep, resolution))
            self.result.draft_acceptance += float(np.minimum(row.p, row.q).sum())
        self.result.rows += len(session)
        # The same randomness for every setting.
        at = self._rng.random(len(session)).tolist()
        for sequence, (keep, resolution) in zip(sequences, self._ours, strict=True):
            self._coded(Setting(keep, resolution), sequence, at)

    def _formulas(self, row: Row) -> None:
        """Add the schemes with formulas."""
        v, add = self._vocab_size, self.result.add
        for keep, resolution in self._paper:
            conformal = isinstance(keep, sqs.Threshold)
            sent = row.send(keep, resolution)
            bits = schemes.paper_bits(v, sent.kept, resolution, conformal)
            scheme = schemes.C_SQS if conformal else schemes.K_SQS
            add(scheme, Setting(keep, resolution), sent.loss, bits)
        for resolution in schemes.DENSE_RESOLUTIONS:
            bits, loss = (
                schemes.dense_bits(v, resolution),
                row.send_all(resolution).loss,
            )
            add(schemes.QS, Setting(None, resolution), loss, bits)
        for k in schemes.RAW_KS:
            bits = schemes.raw_bits(v, k)
            add(schemes.RAW, Setting(sqs.TopK(k)), row.send_raw(k), bits)

    def _steered(self, row: Row) -> None:
        """Add the online thresholds, which change at every position."""
        for keep, threshold in self._thresholds.items():
            for resolution in schemes.ONLINE_RESOLUTIONS:
                sent = row.send(keep, resolution, threshold)
                shape = self._vocab_size, resolution
                bits = schemes.paper_bits(shape[0], sent.kept, resolution, True)
                setting = Setting(keep, resolution)
                self.result.add(schemes.C_ONLINE, setting, sent.loss, bits)
                ours = schemes.codec(*shape, "entropy", self._prior).bits(sent.q)
                self.result.add(schemes.ONLINE, setting, sent.loss, ours)
            mass = row.dropped_mass(row.kept(keep, threshold))
            self._thresholds[keep] = keep.next(threshold, mass)

    def _coded(self, setting: Setting, sequence: list[Sent], at: list[float]) -> None:
        """Add a session's distributions, in single packets and in rounds."""
        assert setting.resolution is not None
        shape = self._vocab_size, setting.resolution, "entropy"
        priors = {schemes.ENTROPY: self._prior, schemes.NO_PRIOR: None}
        codecs = {name: schemes.codec(*shape, prior) for name, prior in priors.items()}
        codec = codecs[schemes.ENTROPY]
        add = self.result.add
        for sent in sequence:
            size = self._vocab_size, len(sent.q.counts), setting.resolution
            add(schemes.NONZERO, setting, sent.loss, schemes.paper_bits(*size, True))
            ranks = schemes.enumerative_bits(sent.q)
            add(schemes.ENUMERATIVE, setting, sent.loss, ranks)
            for scheme, single in codecs.items():
                add(scheme, setting, sent.loss, single.bits(sent.q))
        tokens = [draw(sent.q, x) for sent, x in zip(sequence, at, strict=True)]
        for start in range(0, len(sequence), ROUND):
            part = sequence[start : start + ROUND]
            qs = [sent.q for sent in part]
            drafted = tokens[start : start + ROUND]
            # Other schemes don't count the drafted token, which costs the same in all.
            apart = token_bits(qs, drafted)
            bits = (8 * len(codec.encode_round(qs, drafted)) - apart) / len(part)
            for sent in part:
                add(schemes.ROUNDS, setting, sent.loss, bits)


def draw(q: sqs.SparseDistribution, at: float) -> int:
    """Sample a token with a random number in [0, 1)."""
    place = np.searchsorted(np.cumsum(q.counts), int(at * q.resolution), side="right")
    return int(q.token_ids[place])


def token_bits(qs: Sequence[sqs.SparseDistribution], tokens: Sequence[int]) -> float:
    """Return the information of the drafted tokens: -log2 of their probabilities."""
    return -sum(math.log2(q.prob(t)) for q, t in zip(qs, tokens, strict=True))


def run(
    source: Source, temperatures: Sequence[float], seed: int, *, progress: bool
) -> Results:
    """Measure every scheme on all positions of a source, at temperatures above 0.

    The seed samples the drafted tokens of rounds.
    """
    meters = [Meter(t, source, seed) for t in temperatures]
    for session in tqdm(source.sessions, disable=not progress):
        for meter in meters:
            meter.add(session)
    measured = {
        "source": source.summary,
        "rows": source.rows,
        "sessions": len(source.sessions),
        "vocab_size": source.vocab_size,
        "prior": source.prior and source.prior.digest.hex(),
        "round": ROUND,
        "seed": seed,
        **about(),
    }
    return Results(measured, [meter.result for meter in meters])
