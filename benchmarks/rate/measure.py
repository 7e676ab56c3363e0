"""One run of ``sqs bench rate``: from logits to results."""

from __future__ import annotations

import math
import os
import platform
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Console
from rich.progress import track

import sqs_codec as sqs
from sqs_codec.bench import schemes
from sqs_codec.bench.results import (
    C_SQS,
    CODED,
    ENUMERATIVE,
    K_SQS,
    QS,
    RAW,
    Breakdown,
    Point,
    Results,
    Temperature,
)
from sqs_codec.bench.schemes import Loss, Row, Sent, Setting
from sqs_codec.bench.sources import Session, Source

ROUND = 5
"""Distributions in a round."""


class Meter:
    """Sends everything at one temperature and adds up.

    Parameters
    ----------
    temperature : float
    vocab_size : int
    seed : int
        Of the drafted tokens.
    """

    def __init__(self, temperature: float, vocab_size: int, seed: int) -> None:
        self._temperature = temperature
        self._vocab_size = vocab_size
        self._rng = np.random.default_rng(seed)
        self._points: dict[str, dict[Setting, Point]] = defaultdict(dict)
        self._paper = list(dict.fromkeys(schemes.paper_settings()))
        self._ours = list(dict.fromkeys(schemes.our_settings()))
        self._breakdowns = {s: Breakdown(s) for s in schemes.TAKEN_APART}
        self._token_bits = self._draft_acceptance = 0.0
        self._rows = 0
        self._has_target = True

    def add(self, session: Session) -> None:
        """Measure the positions of one session."""
        sequences: dict[Setting, list[Sent]] = defaultdict(list)
        for index in range(len(session)):
            target = None if session.target is None else session.target[index]
            row = Row(session.draft[index], target, self._temperature)
            self._formulas(row)
            for setting, sent in self._coded(row):
                sequences[setting].append(sent)
            if row.p is None:
                self._has_target = False
            else:
                self._draft_acceptance += float(np.minimum(row.p, row.q).sum())
        self._rows += len(session)
        # The same randomness for every setting.
        at = self._rng.random(len(session)).tolist()
        for setting, sequence in sequences.items():
            self._rounds(setting, sequence, at)

    def result(self) -> Temperature:
        """Return what was added up."""
        return Temperature(
            self._temperature,
            self._has_target,
            dict(self._points),
            self._breakdowns,
            self._token_bits / self._rows,
            self._draft_acceptance / self._rows if self._has_target else math.nan,
        )

    def _add(self, scheme: str, setting: Setting, loss: Loss, bits: float) -> None:
        points = self._points[scheme]
        if setting not in points:
            points[setting] = Point(setting)
        points[setting].add(loss, bits)

    def _formulas(self, row: Row) -> None:
        """Count the bits of schemes that are formulas."""
        v = self._vocab_size
        for setting in self._paper:
            assert setting.keep is not None
            assert setting.resolution is not None
            conformal = isinstance(setting.keep, sqs.Threshold)
            sent = row.lattice(setting.keep, setting.resolution)
            bits = schemes.paper_bits(v, sent.kept, setting.resolution, conformal)
            self._add(C_SQS if conformal else K_SQS, setting, sent.loss, bits)
        for resolution in schemes.DENSE_RESOLUTIONS:
            sent = row.dense(resolution)
            bits = schemes.dense_bits(v, resolution)
            self._add(QS, Setting(None, resolution), sent.loss, bits)
        for k in schemes.RAW_KS:
            bits = schemes.raw_bits(v, k)
            self._add(RAW, Setting(sqs.TopK(k)), row.raw(k), bits)

    def _coded(self, row: Row) -> Iterator[tuple[Setting, Sent]]:
        """Yield what our codings send, and count each distribution on its own."""
        for setting in self._ours:
            sent = row.send(setting)
            if setting.chooser == "fixed":
                bits = schemes.enumerative_bits(sent.q)
                self._add(ENUMERATIVE, setting, sent.loss, bits)
            bits = setting.codec(self._vocab_size).bits(sent.q)
            self._add(CODED[setting.chooser][0], setting, sent.loss, bits)
            yield setting, sent

    def _rounds(self, setting: Setting, sequence: list[Sent], at: list[float]) -> None:
        """Count the distributions of a session in rounds and in a stream."""
        codec = setting.codec(self._vocab_size)
        stream = sqs.StreamEncoder(codec)
        _, in_rounds, in_stream = CODED[setting.chooser]
        tokens = [draw(sent.q, x) for sent, x in zip(sequence, at, strict=True)]
        for start in range(0, len(sequence), ROUND):
            part = sequence[start : start + ROUND]
            qs = [sent.q for sent in part]
            drafted = tokens[start : start + ROUND]
            packet = codec.encode_round(qs, drafted)
            message = stream.encode_round(qs, drafted)
            # No other scheme counts the drafted token, which costs as much in each.
            apart = token_bits(qs, drafted)
            for sent in part:
                for name, data in ((in_rounds, packet), (in_stream, message)):
                    bits = (8 * len(data) - apart) / len(part)
                    self._add(name, setting, sent.loss, bits)
            if setting in self._breakdowns:
                self._breakdowns[setting].add(qs, drafted, packet)
            if setting == schemes.SAME:
                counts = [
                    int(q.counts[np.searchsorted(q.token_ids, token)])
                    for q, token in zip(qs, drafted, strict=True)
                ]
                self._token_bits += 8 * len(codec.encode_tokens(drafted, counts))


def draw(q: sqs.SparseDistribution, at: float) -> int:
    """Draw a token with a number from [0, 1)."""
    place = np.searchsorted(np.cumsum(q.counts), int(at * q.resolution), side="right")
    return int(q.token_ids[place])


def token_bits(qs: Sequence[sqs.SparseDistribution], tokens: Sequence[int]) -> float:
    """Return what the drafted tokens cost: -log2 of their probabilities."""
    return -sum(math.log2(q.prob(t)) for q, t in zip(qs, tokens, strict=True))


def run(
    source: Source, temperatures: Sequence[float], seed: int, *, progress: bool
) -> Results:
    """Measure every scheme on all positions of a source.

    Parameters
    ----------
    source : Source
    temperatures : sequence of float
        Above 0.
    seed : int
        Of the drafted tokens, which rounds carry.
    progress : bool
        Whether to show a bar on standard error.
    """
    began = time.monotonic()
    meters = [Meter(t, source.vocab_size, seed) for t in temperatures]
    sessions = track(
        source.sessions,
        "Measuring",
        console=Console(stderr=True),
        transient=True,
        disable=not progress,
    )
    for session in sessions:
        for meter in meters:
            meter.add(session)
    measured = {
        "source": source.summary,
        "rows": source.rows,
        "sessions": len(source.sessions),
        "vocab_size": source.vocab_size,
        "round": ROUND,
        "seed": seed,
        "version": sqs.__version__,
        "backend": sqs.backend(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "seconds": round(time.monotonic() - began, 1),
    }
    return Results(measured, [meter.result() for meter in meters])
