"""What an edge does next: how much it drafts, or nothing at all.

A planner compares a few plans by the tokens per second that they give on
average, and with what the cloud decodes alone. ``docs/planner.md`` has the formula,
how what goes into it is measured, and how near the best plan that comes.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sqs_codec._base import checks
from sqs_codec.edge import _costs as costs
from sqs_codec.edge._costs import HEADER_BITS, LENGTHS, Table, Target
from sqs_codec.session._job import Sampling
from sqs_codec.session._setting import Setting
from sqs_codec.session._wire import MAX_SETTINGS

if TYPE_CHECKING:
    from sqs_codec.edge._costs import Floats

__all__ = ["FixedPlan", "Observation", "Plan", "Planner"]

MEMORY = 0.97
"""Weight of what a round showed once the next one has shown something."""

PRIOR = 16.0
"""Tokens judged that the mismatch of the table counts for."""

DRIFT, ODD = 0.01, 0.05
"""Probability that the link is another one at the next round, and that a wait has
nothing to do with it."""

SCATTER, STEADY = 0.15, 0.05
"""Deviation of the seconds that a link takes, as a share of them, and of those that
models take."""

GAIN = 1.05
"""How much faster than the cloud alone drafting must look to begin."""

CLOCK = 0.002
"""Seconds that are nothing beside the rest of a wait."""

CAUTION = 0.75
"""Probability that the link isn't worse than it is taken to be."""

SPARE, FRESH, SAVED, SHARE = 2.0, 1.0, 8.0, 0.01
"""What rounds that only measure may lose against the cloud alone, in tokens that it
decodes in that time: SPARE at first, SHARE more for each token that it does decode
alone, and what rounds have gained, which adds up to SAVED and no more. A text begins
with FRESH at least, as its acceptance may be another one. Chosen by simulation:
docs/planner.md has on what."""


@dataclass(frozen=True)
class Hints:
    """How an edge hints while the cloud decodes.

    Attributes
    ----------
    positions : int
        Of a branch in a message.
    branches : int
        How many begin where the guesses before were wrong.
    threshold : float
        What the chance that the cloud comes to a token has to be for it to be told.
    """

    positions: int = 4
    branches: int = 4
    threshold: float = 0.1


@dataclass(frozen=True)
class Plan:
    """What to do next.

    Attributes
    ----------
    length : int
        How many tokens to draft. At 0 the cloud decodes alone.
    setting : int
        Which of the session's settings quantizes the drafts.
    reason : str
        Why, in a line.
    """

    length: int
    setting: int
    reason: str
    hints: Hints | None = None

    def __post_init__(self) -> None:
        checks.in_range("length", self.length, 0)
        checks.in_range("setting", self.setting, 0, MAX_SETTINGS - 1)


@dataclass(frozen=True)
class Observation:
    """What came of a plan.

    Attributes
    ----------
    plan : Plan
    drafted : int
        How many tokens were sent, which may be fewer than planned. 0 where the cloud
        decoded alone.
    accepted : int
        How many of them were accepted, or how many tokens the cloud decoded alone:
        0 in the handshake, of which the link can be told, too.
    bytes_up : int
        Of the messages sent, without what transport and IP put around them.
    draft_seconds : float
        What drafting took.
    wait_seconds : float
        From the moment when the last message was handed to the link to the answer,
        or to the first token that the cloud decoded alone; for the handshake, with
        what the target takes for a token. At 0, as for tokens after the first, it
        says nothing about the link.
    target_steps : mapping of int to float, optional
        Seconds that the target takes for so many tokens, as the cloud says.
    """

    plan: Plan
    drafted: int
    accepted: int
    bytes_up: int
    draft_seconds: float
    wait_seconds: float
    target_steps: Mapping[int, float] | None = None
    guessed: int = 0
    hit: int = 0

    def __post_init__(self) -> None:
        drafted = checks.in_range("drafted", self.drafted, 0)
        most = drafted if drafted else None
        checks.in_range("accepted", self.accepted, 0, most)
        checks.in_range("bytes_up", self.bytes_up, 0)
        checks.finite("draft_seconds", self.draft_seconds, 0, math.inf)
        checks.finite("wait_seconds", self.wait_seconds, 0, math.inf)
        if self.target_steps:
            Target.of(self.target_steps)


class FixedPlan:
    """A planner that always says the same.

    Parameters
    ----------
    length, setting
        Of the plan.

    Examples
    --------
    >>> FixedPlan(4).plan().reason
    'draft 4: as asked'
    """

    per_bit = 0.0

    def __init__(
        self, length: int = 4, setting: int = 0, hints: Hints | None = None
    ) -> None:
        words = _words(length) if hints is None else "hints"
        self._plan = Plan(length, setting, f"{words}: as asked", hints)

    def __repr__(self) -> str:
        return f"<FixedPlan: {self.reason}>"

    @property
    def reason(self) -> str:
        """The plan in a line."""
        return self._plan.reason

    def plan(self) -> Plan:
        """Return the plan."""
        return self._plan

    def observe(self, observation: Observation) -> None:
        """Take no notice."""


class Planner:
    """Chooses the plan that gives the most tokens per second.

    Parameters
    ----------
    settings : sequence of Setting
        What the session can quantize drafts with, 1 to 4.
    sampling : Sampling
        How the text is drawn. The truncations are left out of account.
    overhead : int
        Bytes that transport and IP put around a message, as `Link.overhead`.
    uplink : float, optional
        Bits per second, if something is known about them.
    draft_step : float
        Seconds for a drafted token, until they are measured.
    target_steps : mapping of int to float, optional
        Seconds that the target takes for so many tokens, until the cloud says it.
    max_draft : int
        The longest draft.

    Examples
    --------
    >>> import sqs_codec as sqs
    >>> from sqs_codec.session import Setting
    >>> settings = [Setting(sqs.Codec(vocab_size=49152), sqs.TopK(64))]
    >>> planner = Planner(settings, sampling=Sampling(0.7), uplink=100_000.0)
    >>> planner.plan().length in range(17)
    True
    """

    def __init__(
        self,
        settings: Sequence[Setting],
        *,
        sampling: Sampling,
        overhead: int = 166,
        uplink: float | None = None,
        draft_step: float = 0.02,
        target_steps: Mapping[int, float] | None = None,
        max_draft: int = 16,
    ) -> None:
        checks.in_range("the number of settings", len(settings), 1, MAX_SETTINGS)
        for i, setting in enumerate(settings):
            checks.instance(f"settings[{i}]", setting, Setting, "a Setting")
        checks.instance("sampling", sampling, Sampling, "a Sampling")
        checks.in_range("max_draft", max_draft, 1)
        self._settings = tuple(settings)
        self._overhead = 8 * checks.in_range("overhead", overhead, 0)
        # The plans that are compared, side by side: [P] each.
        lengths = [length for length in LENGTHS if length <= max_draft]
        self._lengths = np.repeat(lengths, len(settings))
        self._choices = np.tile(np.arange(len(settings)), len(lengths))
        self._table = costs.measure(settings, sampling.temperature)
        self._link = _Link(uplink)
        self._target = Target.of(target_steps or {1: 0.05})
        steps = checks.finite("draft_step", draft_step, 0, math.inf)
        self._draft_steps = deque([steps], maxlen=9)
        self._bits = deque([1.0] * 3, maxlen=15)
        self._mismatch = _Mismatch(self._table.mismatch)
        self._alone = self._decoding = False
        self._spare = SPARE
        self.reason = ""

    def __repr__(self) -> str:
        return f"<Planner: {self.reason or 'no plan yet'}>"

    def plan(self) -> Plan:
        """Return what to do next."""
        lengths, choices, table = self._lengths, self._choices, self._corrected()
        trip, per_bit = self._link.trip(CAUTION), self._link.per_bit(CAUTION)
        tokens = costs.tokens(lengths, table.rejected[choices])
        # A round leaves when it is drafted, takes its bits times the seconds per bit,
        # and reaches the cloud and is answered half a round trip later each.
        bits = lengths * table.bits[choices] + HEADER_BITS + self._overhead
        sent = lengths * statistics.median(self._draft_steps) + bits * per_bit
        seconds = sent + trip + self._target(lengths + 1)
        rates, alone = tokens / seconds, 1 / self._target.first
        best: int | None = int(rates.argmax())
        why = f"{rates[best]:.3g} tok/s expected"
        self._alone = bool(rates[best] < alone * (GAIN if self._alone else 1))
        if self._alone:
            # To ask a cloud again that is decoding takes a trip; to ask an idle one
            # does in any case.
            lost = (seconds + trip * self._decoding) * alone - tokens
            best, why = self._measure(lost), f"{alone:.3g} tok/s, with drafts {why}"
            why = why if best is None else f"to measure; {why}"
        length, setting = 0, 0
        if best is not None:
            length, setting = int(lengths[best]), int(choices[best])
        what, acceptance = self._words(length, setting), 1 - table.rejected[setting]
        self.reason = f"{what}: {why}; {self._link}, acceptance {acceptance:.0%}"
        return Plan(length, setting, self.reason)

    def _measure(self, lost: Floats) -> int | None:
        """Return a plan that is there to measure, None while that costs too much."""
        cheapest = int(lost.argmin())
        if lost[cheapest] > self._spare:
            return None
        if self._decoding:
            self._spare -= self._link.trip(CAUTION) / self._target.first
        return cheapest

    @property
    def per_bit(self) -> float:
        """Seconds of a bit on the uplink."""
        return self._link.per_bit()

    def observe(self, observation: Observation) -> None:
        """Learn what came of a plan."""
        checks.instance("observation", observation, Observation, "an Observation")
        seen = observation
        if seen.target_steps:
            self._target = Target.of(seen.target_steps)
        if seen.drafted:
            self._draft_steps.append(seen.draft_seconds / seen.drafted)
            self._judge(seen)
            taken = (seen.draft_seconds + seen.wait_seconds) / self._target.first
            self._spare = min(self._spare + seen.accepted + 1 - taken, SAVED)
        elif seen.accepted:
            self._spare += SHARE * seen.accepted
        else:  # a handshake
            self._spare = max(self._spare, FRESH)
        self._decoding = seen.drafted == 0 < seen.accepted
        if seen.wait_seconds:
            bits = 8 * seen.bytes_up + self._overhead
            models = float(self._target(seen.drafted + 1))
            self._link.learn(seen.wait_seconds, bits, models)

    def _judge(self, seen: Observation) -> None:
        """Compare what was accepted and sent with the table."""
        most = len(self._settings) - 1
        at = checks.in_range("setting", seen.plan.setting, 0, most)
        table = self._table
        rejected = seen.accepted < seen.drafted
        judged = costs.fade(seen.accepted + rejected).sum()
        self._mismatch.add(rejected, float(judged), float(table.lost[at]))
        bits = float(seen.drafted * table.bits[at]) + HEADER_BITS
        self._bits.append(8 * seen.bytes_up / bits)

    def _corrected(self) -> Table:
        """Return the table with what was found since it was made."""
        table = self._table
        bits = table.bits * statistics.median(self._bits)
        return Table(self._mismatch.value, table.lost, bits)

    def _words(self, length: int, setting: int) -> str:
        """Say what a plan is, and its setting where there are several."""
        if length == 0 or len(self._settings) == 1:
            return _words(length)
        chosen = self._settings[setting]
        return f"{_words(length)}, {chosen.keep} of {chosen.codec.resolution}"


class _Link:
    """What the link may be, as a weight for each round-trip time and rate on a grid.

    A wait gives weight to the links that explain it. As one in twenty may say nothing,
    one that no link explains changes little; as the link may have become another one
    at any time, two or three alike are believed.
    """

    def __init__(self, uplink: float | None) -> None:
        trips = 0.001 * 2 ** np.arange(0, 11, 0.5)
        per_bit = 1e-9 * 2 ** np.arange(0, 20.5, 0.5)
        self._trips, self._per_bit = trips, per_bit[:, None]
        self._weights = np.full((per_bit.size, trips.size), 1 / trips.size)
        if uplink is not None:
            uplink = checks.finite("uplink", uplink, 1, math.inf)
            off = np.log(self._per_bit * np.clip(uplink, 1e3, 1e9)) / 0.3
            self._weights *= np.exp(-(off**2) / 2)
        self._weights /= self._weights.sum()

    def trip(self, share: float = 0.5) -> float:
        """Seconds of a round trip, which it takes at most with such a probability."""
        return _quantile(self._trips, self._weights.sum(0), share)

    def per_bit(self, share: float = 0.5) -> float:
        """Seconds of a bit on the uplink, likewise."""
        return _quantile(self._per_bit.ravel(), self._weights.sum(1), share)

    def learn(self, waited: float, bits: int, models: float) -> None:
        """Weigh each link by how well the wait for an answer to so many bits fits it.

        `models` are the seconds of it that the link has no part in.
        """
        known = (1 - DRIFT) * self._weights + DRIFT / self._weights.size
        expected = self._trips + bits * self._per_bit + models + CLOCK
        scatter = np.maximum(SCATTER * (1 - (models + CLOCK) / expected), STEADY)
        off = np.log(expected / (waited + CLOCK)) / scatter
        # Student's t of 3 degrees of freedom, or any wait at all.
        weights = known * (
            (1 - ODD) * 0.37 / scatter * (1 + off**2 / 3) ** -2 + ODD / 8
        )
        self._weights = weights / weights.sum()

    def __str__(self) -> str:
        rate = 1 / self.per_bit()
        power = min(int(math.log10(rate) // 3), 3)
        unit = ("bit/s", "kbit/s", "Mbit/s", "Gbit/s")[power]
        return (
            f"uplink {rate / 1000**power:.3g} {unit}, "
            f"round trip {self.trip() * 1000:.0f} ms"
        )


def _quantile(values: Floats, weights: Floats, share: float) -> float:
    """Return where so much of the weight is below, between ascending values."""
    below = weights.cumsum() - weights / 2
    return math.exp(float(np.interp(share, below, np.log(values))))


class _Mismatch:
    """Total variation between the two models, from which drafts are rejected lately."""

    def __init__(self, start: float) -> None:
        self._sums = PRIOR * np.array([start, 1.0, 0.0])

    @property
    def value(self) -> float:
        """What is left of the rejections without what sparsification explains."""
        rejected, judged, lost = self._sums
        return math.sqrt(max((rejected / judged) ** 2 - lost / judged, 0.0))

    def add(self, rejected: bool, judged: float, lost: float) -> None:
        """Add a round: if it has a rejection, in how many tokens, and what is lost."""
        self._sums = self._sums * MEMORY + (rejected, judged, judged * lost**2)


def _words(length: int) -> str:
    """Say what a plan is."""
    return f"draft {length}" if length else "the cloud decodes alone"
