"""Choose the mode of the next tokens: rounds, hints, or the cloud alone.

One rule chooses among the modes that a planner may use:

=============  ==========  ===================================================
modes          prefer      plan
=============  ==========  ===================================================
one            either      that mode
several        ``speed``   the mode with the fewest seconds per token
several        ``bytes``   the first of alone, rounds and hints: alone takes the
                           fewest bytes, with `TOGETHER` tokens per message
=============  ==========  ===================================================

``docs/planner.md`` explains the rule. ``python -m benchmarks.planner --constant
MEMORY=24`` shows the effect of another value of a constant.
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
"""The quantity to minimize."""

MEMORY = 48.0
"""Tokens after which the weight of a measurement has fallen to 1/e. A mode counts as
measured after half as many."""

TRIALS = 30.0
"""Limit of the tokens spent on trials of other modes, per 1,000 tokens."""

HOPE = 0.9
"""Acceptance rate assumed of a new draft, with the weight of `MEMORY` / 3 tokens. It is
high so that the planner tries a draft at all; a few rounds correct it."""

CLEARLY = 1.1
"""Another mode begins only if the present one costs this many times as much: a few hard
tokens make a mode look slow."""

TOGETHER = 8
"""Tokens per message if the cloud decodes alone to save bytes."""

LONGEST = MAX_DRAFT // 2  # tokens of the longest round considered


@dataclass(frozen=True)
class Hints:
    """Settings of hints: the edge predicts tokens while the cloud decodes.

    Attributes
    ----------
    positions : int
        Minimum number of positions per message. A message has more if more were
        drafted while the last one was sent.
    branches : int
        Maximum number of alternatives: guesses at the next token, and other tokens at
        positions where a guess is likely to be wrong.
    threshold : float
        A branch stops where its probability of being right falls below a quarter of
        this. A new branch begins where its probability is at least twice this.
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
    """How to produce the next tokens.

    Attributes
    ----------
    length : int
        Maximum number of tokens to draft for a round. 0: the cloud decodes, alone or
        with hints.
    setting : int
        Index of the session's setting that quantizes the draft.
    reason : str
        Why this plan was chosen, in one line.
    hints : Hints or None
        Settings of hints; None without hints.
    ahead : int
        Maximum number of tokens to request in advance while the cloud decodes.
    together : int
        Tokens per message while the cloud decodes alone.
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
        """The mode of this plan."""
        return "rounds" if self.length else "hints" if self.hints else "alone"


@dataclass(frozen=True)
class Handshake:
    """Timings that an edge knows when a completion begins.

    Attributes
    ----------
    target_seconds, more_seconds : float
        Time of a forward pass over one token, and extra time for each further token,
        as the cloud states them; 0 if it doesn't.
    trip_seconds : float
        Round-trip time of the handshake; infinite if unknown.
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
    """Tokens that one answer of the cloud added to the text.

    Attributes
    ----------
    tokens : tuple of int
        Accepted drafted tokens, then those that the cloud sampled; at least one.
    accepted, drafted, resampled : int
        Amounts that the step adds to the fields of `EdgeMetrics`.
    bytes_up, bytes_down : int
        Bytes on the wire since the last step.
    reason : str
        The reason that the plan gave.
    mode : Mode
        The mode that produced the tokens.
    seconds : float or None
        Time since the last step. None if it doesn't measure the mode: the mode has
        just changed, or the caller took long.
    draft_seconds : float
        Time per drafted token; with hints, per drafting step of all branches. 0 if
        unknown.
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
    """A planner that always returns the same plan.

    Parameters
    ----------
    length, setting, hints
        Fields of the plan. With hints, the length is ignored.

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
        """The plan in one line."""
        return self._plan.reason

    def begin(self, handshake: Handshake) -> None:
        """Do nothing."""

    def plan(self) -> Plan:
        """Return the plan."""
        return self._plan

    def learn(self, step: Step) -> None:
        """Do nothing."""


class Planner:
    """Chooses the mode that takes the fewest seconds per token, or the fewest bytes.

    Parameters
    ----------
    settings : sequence of Setting
        The session's 1 to 4 settings, from coarse to fine. Rounds use the first to save
        bytes, and the middle one for speed.
    prefer : Prefer
        The quantity to minimize.
    modes : collection of Mode
        The modes to choose from.

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
        # While no cost is known, the first counts as the cheapest. The last takes the
        # fewest bytes.
        self._modes = [m for m in reversed(MODES) if m in modes]
        if self._bytes:
            del self._modes[:-1]
        self._setting = 0 if self._bytes else len(settings) // 2
        chosen = settings[self._setting]
        named = f", {chosen.keep} of {chosen.codec.resolution}"
        self._named = named if len(settings) > 1 else ""
        self._told = Handshake()
        self._costs = {mode: _Mean() for mode in MODES}  # per token
        # Per round: its cost, and its drafted tokens.
        self._rounds, self._lengths = _Mean(), _Mean()
        # The measured acceptance rate, which begins at 1 of 2 tokens; and the expected
        # one, to which each completion adds HOPE. It adds less of it where hints can
        # measure the rate without a trial.
        self._seen, self._hope = _Mean(), _Mean()
        self._hopes = MEMORY / (12 if "hints" in self._modes else 3)
        self._seen.add(1, 2)
        self._drafting = _Mean()
        self._best: Mode = self._modes[0]
        self._tried: Mode | None = None
        self._waited, self._pause = 0.0, MEMORY / 2  # tokens since the last trial; goal
        self._spent = 0.0  # tokens spent on trials, of the last 1,000
        self.reason = ""

    def __repr__(self) -> str:
        return f"<Planner: {self.reason or 'no plan yet'}>"

    def begin(self, handshake: Handshake) -> None:
        """Begin a completion, with the timings that the cloud states."""
        checks.instance("handshake", handshake, Handshake, "a Handshake")
        self._told = handshake
        self._hope.add(HOPE * self._hopes, self._hopes)

    def learn(self, step: Step) -> None:
        """Learn from a step that has ended."""
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
            self._tried = None
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
        ahead = MAX_AHEAD
        if best == "alone" and "rounds" in self._modes:
            # Rounds can't begin before all requested tokens have arrived. Request the
            # fewest that keep the cloud from waiting.
            trips = self._told.trip_seconds / max(self._told.target_seconds, 1e-9)
            ahead = int(min(8 + 4 * trips, MAX_AHEAD))
        together = TOGETHER if self._bytes and best == "alone" else 1
        return Plan(length, self._setting, self.reason, hints, ahead, together)

    def _cheapest(self) -> Mode:
        """Return the cheapest mode; the present one unless it is clearly dearer."""
        present = self._best, self._tried
        # The round-trip time of the handshake is too long on a slow link.
        if present == ("rounds", None) and self.reason and not self._rounds.weight:
            return "rounds"

        def cost(mode: Mode) -> float:
            return self._cost(mode) * (1 if mode in present else CLEARLY)

        return min(self._modes, key=cost)

    def _try(self) -> None:
        """Begin a trial of the mode that may be better than the best one."""
        self._hope.fade()
        self._hope.add(HOPE * self._hopes, self._hopes)
        others = [mode for mode in self._modes if mode != self._best]
        other = min(others, key=self._expected, default=self._best)
        self._waited, self._pause = 0.0, min(2 * self._pause, 1000.0)
        dear = self._cost(self._best) > CLEARLY * self._expected(other)
        if other != self._best and dear:
            self._tried, self._costs[other] = other, _Mean()

    def _cost(self, mode: Mode) -> float:
        """Return the cost per token: measured, expected, or a mixture of both."""
        found = self._costs[mode]
        # Rounds were measured with other lengths; `_length` computes their cost.
        share = 0.0 if mode == "rounds" else found.share
        expected = 0.0 if share == 1 else (1 - share) * self._expected(mode)
        return expected + share * found.mean

    def _expected(self, mode: Mode) -> float:
        """Return the cost per token, computed from timings and the acceptance rate."""
        told = self._told
        if mode == "rounds":
            return self._length(self._hope)[1]
        if mode == "alone":
            return told.target_seconds
        # The first hinted token follows one that the edge has to guess, too.
        rate = self._hope.rate
        passes = (
            (told.target_seconds + n * told.more_seconds)
            / (1 + rate * (_tokens(n, rate) - 1))
            for n in range(1, LONGEST + 1)
        )
        return max(self._drafting.mean, min(passes))

    def _length(self, accepted: "_Mean") -> tuple[int, float]:
        """Return the best length of rounds, and its cost per token."""
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
    """A mean that forgets exponentially."""

    def __init__(self) -> None:
        self.weight = self._total = 0.0

    def add(self, total: float, weight: float) -> None:
        """Add the sum of `weight` values."""
        kept = math.exp(-weight / MEMORY)
        self.weight = kept * self.weight + weight
        self._total = kept * self._total + total

    def fade(self) -> None:
        """Halve the weight of all values."""
        self.weight, self._total = self.weight / 2, self._total / 2

    @property
    def mean(self) -> float:
        """The mean; 0 without values."""
        return self._total / self.weight if self.weight else 0.0

    @property
    def rate(self) -> float:
        """The mean as an acceptance rate, capped below 1."""
        return min(self.mean, 0.999)

    @property
    def share(self) -> float:
        """Weight as a share of what counts as measured, 0 to 1."""
        return min(2 * self.weight / MEMORY, 1.0)


def _tokens(length: int, rate: float) -> float:
    """Return the expected tokens of a round."""
    return (1 - rate ** (length + 1)) / (1 - rate)


def _words(length: int, hints: Hints | None) -> str:
    if hints:
        return f"hints of {hints.positions} positions, {hints.branches} branches"
    return f"draft {length}" if length else "the cloud decodes alone"
