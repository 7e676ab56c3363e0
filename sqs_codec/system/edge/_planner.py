"""What an edge does next: rounds, hints, or nothing while the cloud decodes alone.

One rule chooses among the modes that a planner may use:

=============  ==========  ===================================================
modes          prefer      plan
=============  ==========  ===================================================
several        ``speed``   the mode with the fewest seconds per token
several        ``bytes``   the first of alone, rounds and hints: alone takes the
                           fewest bytes, with `TOGETHER` tokens in a message
one            either      that mode
=============  ==========  ===================================================

``docs/planner.md`` explains the rule and has what it is worth. ``python -m
benchmarks.planner --constant MEMORY=24`` shows what another value of a constant does.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from sqs_codec._base import checks
from sqs_codec.system._base.protocol import (
    MAX_AHEAD,
    MAX_DRAFT,
    MAX_SETTINGS,
    MODES,
    Mode,
)
from sqs_codec.system.session import Setting

Prefer = Literal["speed", "bytes"]
"""What a planner chooses by."""

MEMORY = 48.0
"""Tokens after which a measurement weighs 1/e; half of them are enough to know a
mode."""

TRIALS = 30.0
"""Tokens of the last 1,000 that may come by a mode that is only tried."""

HOPE = 0.9
"""The acceptance rate that is expected of a draft at first, as if a third of `MEMORY`
had shown it: a few rounds tell, and what isn't expected is never tried."""

CLEARLY = 1.1
"""How many times what rounds take the best mode has to take before rounds begin: all
tokens that were asked for come before the first one."""

TOGETHER = 8
"""Tokens of a message where the cloud decodes alone and bytes count."""

LONGEST = MAX_DRAFT // 2  # of rounds that are compared, in tokens


@dataclass(frozen=True)
class Hints:
    """How an edge tells the cloud what it expects, while that decodes.

    Attributes
    ----------
    positions : int
        Of a message, at least: more have come together while the one before was sent.
    branches : int
        How many guesses are drafted on from: at the token after the text, and where a
        branch may well fail.
    threshold : float
        Drafting pauses where a branch is right with less than a quarter of this
        probability, and another one begins where it is with twice as much.
    """

    positions: int = 3
    branches: int = 3
    threshold: float = 0.01

    def __post_init__(self) -> None:
        checks.in_range("positions", self.positions, 1, 15)
        checks.in_range("branches", self.branches, 1, 8)
        checks.finite("threshold", self.threshold, 0, 1)


@dataclass(frozen=True)
class Plan:
    """What to do next.

    Attributes
    ----------
    length : int
        How many tokens to draft for a round, at most. At 0 the cloud decodes, with
        hints or alone.
    setting : int
        Which of the session's settings quantizes the drafts.
    reason : str
        Why, in a line.
    ahead : int
        How many tokens the cloud may be asked for in advance, with hints or alone.
    together : int
        How many tokens the cloud sends in a message, if it decodes alone.
    """

    length: int
    setting: int
    reason: str
    hints: Hints | None = None
    ahead: int = MAX_AHEAD
    together: int = 1

    def __post_init__(self) -> None:
        checks.in_range("length", self.length, 0, 0 if self.hints else None)
        checks.in_range("setting", self.setting, 0, MAX_SETTINGS - 1)
        checks.in_range("ahead", self.ahead, 1, MAX_AHEAD)
        checks.in_range("together", self.together, 1, MAX_AHEAD)

    @property
    def mode(self) -> Mode:
        """How the text comes by it."""
        return "rounds" if self.length else "hints" if self.hints else "alone"


@dataclass(frozen=True)
class Handshake:
    """What an edge knows of a cloud before a text begins.

    Attributes
    ----------
    target_seconds, more_seconds : float
        What a forward pass of the target takes for a token, and for each further one,
        as the cloud says; 0 if it doesn't.
    trip_seconds : float
        How long the cloud's answer took; infinite if that isn't known.
    """

    target_seconds: float = 0.0
    more_seconds: float = 0.0
    trip_seconds: float = math.inf

    def __post_init__(self) -> None:
        checks.finite("target_seconds", self.target_seconds, 0, math.inf)
        checks.finite("more_seconds", self.more_seconds, 0, math.inf)
        if self.trip_seconds != math.inf:
            checks.finite("trip_seconds", self.trip_seconds, 0, math.inf)


@dataclass(frozen=True)
class Step:
    """What one answer of the cloud added to the text.

    Attributes
    ----------
    tokens : tuple of int
        The drafted ones that were accepted, then the cloud's own. One at least.
    accepted, drafted, resampled : int
        What the step adds to those of `EdgeMetrics`.
    bytes_up, bytes_down : int
        Bytes on the wire since the step before.
    reason : str
        Why the tokens came as they did: the plan's.
    mode : Mode
        How they came.
    seconds : float or None
        Since the step before. None where that says nothing of the mode: as it has
        just begun, or as the caller took long.
    draft_seconds : float
        What a drafted token took, or with hints a step of all branches; 0 if unknown.
    """

    tokens: tuple[int, ...]
    accepted: int
    drafted: int
    resampled: int
    bytes_up: int
    bytes_down: int
    reason: str
    mode: Mode = "alone"
    seconds: float | None = None
    draft_seconds: float = 0.0

    def __post_init__(self) -> None:
        checks.one_of("mode", self.mode, Mode)
        if self.seconds is not None:
            checks.finite("seconds", self.seconds, 0, math.inf)
        checks.finite("draft_seconds", self.draft_seconds, 0, math.inf)


class FixedPlan:
    """A planner that always says the same.

    Parameters
    ----------
    length, setting, hints
        Of the plan. With hints no round is drafted, whatever its length.

    Examples
    --------
    >>> FixedPlan(4).plan().reason
    'draft 4: as asked'
    """

    def __init__(
        self, length: int = 4, setting: int = 0, hints: Hints | None = None
    ) -> None:
        length = 0 if hints else length
        self._plan = Plan(length, setting, f"{_words(length, hints)}: as asked", hints)

    def __repr__(self) -> str:
        return f"<FixedPlan: {self.reason}>"

    @property
    def reason(self) -> str:
        """The plan in a line."""
        return self._plan.reason

    def begin(self, handshake: Handshake) -> None:
        """Take no notice."""

    def plan(self) -> Plan:
        """Return the plan."""
        return self._plan

    def learn(self, step: Step) -> None:
        """Take no notice."""


class Planner:
    """Chooses the mode that takes the fewest seconds per token, or the fewest bytes.

    Parameters
    ----------
    settings : sequence of Setting
        What the session can quantize drafts with, 1 to 4, from coarse to fine. For few
        bytes rounds use the first, for speed the middle one.
    modes : collection of Mode
        Those that there may be.

    Examples
    --------
    >>> import sqs_codec as sqs
    >>> from sqs_codec.system.session import Setting
    >>> settings = [Setting(sqs.Codec(vocab_size=49152), sqs.TopK(64))]
    >>> planner = Planner(settings)
    >>> planner.begin(Handshake(target_seconds=0.12, trip_seconds=0.1))
    >>> planner.plan().hints
    Hints(positions=3, branches=3, threshold=0.01)
    """

    def __init__(
        self,
        settings: Sequence[Setting],
        *,
        prefer: Prefer = "speed",
        modes: Collection[Mode] = MODES,
    ) -> None:
        checks.in_range("the number of settings", len(settings), 1, MAX_SETTINGS)
        for i, setting in enumerate(settings):
            checks.instance(f"settings[{i}]", setting, Setting, "a Setting")
        checks.one_of("prefer", prefer, Prefer)
        self._bytes = prefer == "bytes"
        if isinstance(modes, str) or not modes or not set(modes) <= set(MODES):
            raise ValueError(f"modes must be some of {MODES}, got {modes!r}")
        given = set(modes)
        if self._bytes:
            given = {next(m for m in ("alone", "rounds", "hints") if m in given)}
        # Where nothing is known of any, the first is the best.
        self._modes = [m for m in ("hints", "rounds", "alone") if m in given]
        self._setting = 0 if self._bytes else len(settings) // 2
        chosen = settings[self._setting]
        named = f", {chosen.keep} of {chosen.codec.resolution}"
        self._named = named if len(settings) > 1 else ""
        self._told = Handshake()
        self._costs = {mode: _Mean() for mode in MODES}  # per token
        self._rounds, self._lengths = _Mean(), _Mean()  # costs and drafted tokens
        # Acceptance as it was seen, from one of two tokens on, and with the hope of
        # each text: less of it where hints show the acceptance without a trial.
        self._seen, self._hope = _Mean(), _Mean()
        self._hopes = MEMORY / (12 if "hints" in self._modes else 3)
        self._seen.add(1, 2)
        self._drafting = _Mean()
        self._best: Mode = self._modes[0]
        self._tried: Mode | None = None
        self._before = _Mean()  # what its costs were
        self._waited, self._pause = 0.0, MEMORY / 2  # tokens since the last trial
        self._spent = 0.0  # tokens of the last 1,000 that came by a mode on trial
        self.reason = ""

    def __repr__(self) -> str:
        return f"<Planner: {self.reason or 'no plan yet'}>"

    def begin(self, handshake: Handshake) -> None:
        """Take what is known before a text."""
        checks.instance("handshake", handshake, Handshake, "a Handshake")
        self._told = handshake
        self._end_trial()
        self._hope.add(HOPE * self._hopes, self._hopes)

    def learn(self, step: Step) -> None:
        """Learn what came of a plan."""
        checks.instance("step", step, Step, "a Step")
        tokens, verified = len(step.tokens), step.accepted + step.resampled
        self._spent *= math.exp(-tokens / 1000)
        if step.mode == self._tried:
            self._spent += tokens
        else:
            self._waited += tokens
        if verified:
            self._seen.add(step.accepted, verified)
            self._hope.add(step.accepted, verified)
        if step.draft_seconds:
            self._drafting.add(step.draft_seconds, 1)
        if step.seconds is None:
            return
        self._costs[step.mode].add(step.seconds, tokens)
        if step.mode == "rounds":
            self._rounds.add(step.drafted * step.seconds, step.drafted)
            self._lengths.add(step.drafted**2, step.drafted)

    def plan(self) -> Plan:
        """Return what to do next."""
        best = self._cheapest()
        if best != self._tried or self._costs[best].share == 1:
            self._end_trial()
        if self._tried is None:
            if best != self._best:
                self._best, self._waited, self._pause = best, 0.0, MEMORY / 2
            elif self._waited >= self._pause and self._spent <= TRIALS - MEMORY / 2:
                self._try()
                best = self._cheapest()
        length = self._length(self._seen)[0] if best == "rounds" else 0
        hints = Hints() if best == "hints" else None
        named = self._named if length else ""
        self.reason = f"{_words(length, hints)}{named}: {self._why(best)}"
        ahead = MAX_AHEAD if hints else self._ahead()  # a pass may decode many
        together = TOGETHER if self._bytes and best == "alone" else 1
        return Plan(length, self._setting, self.reason, hints, ahead, together)

    def _ahead(self) -> int:
        """Return how many tokens rounds may have to wait for: few, if none are lost."""
        trip, target = self._told.trip_seconds, self._told.target_seconds
        if "rounds" not in self._modes or trip >= MAX_AHEAD * target:
            return MAX_AHEAD
        return min(8 + math.ceil(4 * trip / target), MAX_AHEAD)

    def _cheapest(self) -> Mode:
        def cost(mode: Mode) -> float:
            begins = mode == "rounds" != self._best
            return self._cost(mode) * (CLEARLY if begins else 1)

        return min(self._modes, key=cost)

    def _try(self) -> None:
        """Forget what was measured of a mode that may be better by what is known."""
        self._hope.fade()
        self._hope.add(HOPE * self._hopes, self._hopes)
        others = [mode for mode in self._modes if mode != self._best]
        other = min(others, key=self._expected, default=self._best)
        self._waited, self._pause = 0.0, min(2 * self._pause, 1000.0)
        if other != self._best and self._expected(other) < self._cost(self._best):
            self._tried, self._before = other, self._costs[other]
            self._costs[other] = _Mean()

    def _end_trial(self) -> None:
        """Make up for what the trial didn't measure by what was measured before."""
        if self._tried:
            cost, known = self._costs[self._tried], self._before
            missing = min(known.weight, (1 - cost.share) * MEMORY / 2)
            cost.add(known.mean * missing, missing)
        self._tried = None

    def _cost(self, mode: Mode) -> float:
        """Return the cost of a token: measured, as far as enough was, else expected."""
        found = self._costs[mode]
        # Rounds of other lengths than now don't count: `_length` knows what they tell.
        share = 0.0 if mode == "rounds" else found.share
        expected = 0.0 if share == 1 else (1 - share) * self._expected(mode)
        return expected + share * found.mean

    def _expected(self, mode: Mode) -> float:
        """Return the cost of a token by what the cloud, the draft and rounds tell."""
        told = self._told
        if mode == "rounds":
            return self._length(self._hope)[1]
        if mode == "alone":
            return told.target_seconds
        # A first token of hints has to follow one that isn't known yet.
        rate = self._hope.rate
        passes = (
            (told.target_seconds + n * told.more_seconds)
            / (1 + rate * (_tokens(n, rate) - 1))
            for n in range(1, LONGEST + 1)
        )
        return max(self._drafting.mean, min(passes))

    def _length(self, accepted: "_Mean") -> tuple[int, float]:
        """Return the best length of rounds, and what a token takes by it."""
        told, rate = self._told, accepted.rate
        first = told.trip_seconds + told.target_seconds
        each = self._drafting.mean + told.more_seconds
        if self._rounds.weight:
            first = max(self._rounds.mean - self._lengths.mean * each, 0.0)
        costs = [(first + n * each) / _tokens(n, rate) for n in range(1, LONGEST + 1)]
        least = min(costs)
        return costs.index(least) + 1, least

    def _why(self, best: Mode) -> str:
        if len(self._modes) == 1:
            return "as asked"
        rest = [f"{mode} {self._said(mode)}" for mode in self._modes if mode != best]
        return ", ".join([f"{self._said(best)} per token", *rest])

    def _said(self, mode: Mode) -> str:
        cost, known = self._cost(mode), self._costs[mode].share == 1
        if not 0 < cost < math.inf:
            return "unknown"
        return f"{1e3 * cost:.3g} ms {'measured' if known else 'expected'}"


class _Mean:
    """A mean over what came last."""

    def __init__(self) -> None:
        self.weight = self._total = 0.0

    def add(self, total: float, weight: float) -> None:
        """Add a sum over tokens or rounds of that number."""
        kept = math.exp(-weight / MEMORY)
        self.weight = kept * self.weight + weight
        self._total = kept * self._total + total

    def fade(self) -> None:
        """Have what there was weigh half as much."""
        self.weight, self._total = self.weight / 2, self._total / 2

    @property
    def mean(self) -> float:
        """What it is; 0 before there is anything."""
        return self._total / self.weight if self.weight else 0.0

    @property
    def rate(self) -> float:
        """The mean as an acceptance rate, below 1."""
        return min(self.mean, 0.999)

    @property
    def share(self) -> float:
        """How much of what is enough to go by it there was, 0 to 1."""
        return min(2 * self.weight / MEMORY, 1.0)


def _tokens(length: int, rate: float) -> float:
    """Return the tokens of a round on average."""
    return (1 - rate ** (length + 1)) / (1 - rate)


def _words(length: int, hints: Hints | None) -> str:
    if hints:
        return f"hints of {hints.positions} positions, {hints.branches} branches"
    return f"draft {length}" if length else "the cloud decodes alone"
