"""What an edge does next: give hints, draft a round, or nothing at all.

For speed that is short rounds where a cloud hardly has to wait for them, and elsewhere
hints, which are the fastest wherever they help at all: a planner only looks whether
they do. For few bytes it compares what rounds of a few lengths put on the wire for a
token, on average, with what the cloud alone does.
``docs/planner.md`` has on what that rests, and what it is worth.
"""

import math
import statistics
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from sqs_codec._base import checks
from sqs_codec.system.edge import _costs as costs
from sqs_codec.system.edge._costs import LENGTHS, Table
from sqs_codec.system.session import MAX_SETTINGS, Sampling, Setting

Mode = Literal["alone", "rounds", "hints"]
"""How a text may come."""

MODES: tuple[Mode, ...] = get_args(Mode)
"""All modes."""

Prefer = Literal["speed", "bytes"]
"""What a planner chooses by."""

MEMORY = 0.97  # weight of what a round showed once the next one has shown something
PRIOR = 4.0  # rejections that the table, or the guess for speed, counts for

GAIN = 0.95  # of the cloud's bytes alone rounds may look to take to begin

PASSES, HELP = 64, 1.02
"""A text gets no more hints once so many passes of the target gave less than HELP
tokens each, where it gives 1 alone."""

BATCHES = 5  # steps of the draft by which it is too slow for hints in this text

NEAR = 0.25
"""For speed there may be rounds if a cloud waits for one, trip and drafting, no longer
than NEAR of the time that its target takes for a token."""

REJECTED = 0.6  # of the tokens judged, for speed before any have been

FEW = 8.0 * np.array([[1.0, 1 / 2, 0.4], [1 / 2, 1 / 3, 0.25]])
"""What the guess at a line counts for, 0.1 + 0.6 times how sure, as of small drafts:
sums over tokens of 1, how sure and whether accepted, and of these times how sure."""

SPARE, SHARE = 2.0, 0.01
"""What rounds that only measure may be expected to cost more, in tokens that the cloud
decodes alone: SPARE for each text, SHARE more for each such token."""


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
    hints : Hints, optional
    least : float
        A round ends where it is accepted as a whole with a smaller probability.
    line : (float, float)
        By which that is reckoned: a token is accepted with that much, and so much more
        for each of how sure the draft is of it.
    """

    length: int
    setting: int
    reason: str
    hints: Hints | None = None
    least: float = 0.0
    line: tuple[float, float] = (1.0, 0.0)

    def __post_init__(self) -> None:
        checks.in_range("length", self.length, 0, 0 if self.hints else None)
        checks.in_range("setting", self.setting, 0, MAX_SETTINGS - 1)
        checks.finite("least", self.least, 0, math.inf)
        for part in self.line:
            checks.finite("line", part, -math.inf, math.inf)

    @property
    def mode(self) -> Mode:
        """How the text comes by it."""
        return "rounds" if self.length else "hints" if self.hints else "alone"


@dataclass(frozen=True)
class Observation:
    """What came of a plan.

    Attributes
    ----------
    plan : Plan
    drafted : int
        Tokens of a round that was sent, which may be fewer than planned. 0 where the
        cloud decodes, with hints or alone.
    accepted : int
        How many of them were accepted, or how many tokens a message of the cloud had
        that decodes: 0 in the handshake, with which a text begins.
    draft_seconds : float
        What it took to draft a round; with hints, what the last step of all branches
        did, 0 if there was none that read a token of each.
    target_seconds : float
        What the target takes for a token, as the cloud says; 0 if it doesn't.
    more_seconds : float
        What each more takes where it reads some at once.
    trip_seconds : float
        Of the handshake: how long the cloud's answer took.
    sure : sequence of float
        How likely each drafted token would be drawn again.
    """

    plan: Plan
    drafted: int
    accepted: int
    draft_seconds: float = 0.0
    target_seconds: float = 0.0
    more_seconds: float = 0.0
    trip_seconds: float = math.inf
    sure: Sequence[float] = ()

    def __post_init__(self) -> None:
        drafted = checks.in_range("drafted", self.drafted, 0)
        most = drafted if drafted else None
        checks.in_range("accepted", self.accepted, 0, most)
        checks.finite("draft_seconds", self.draft_seconds, 0, math.inf)
        checks.finite("target_seconds", self.target_seconds, 0, math.inf)
        checks.finite("more_seconds", self.more_seconds, 0, math.inf)
        for sure in self.sure:
            checks.finite("sure", sure, 0, 1)


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

    def plan(self) -> Plan:
        """Return the plan."""
        return self._plan

    def observe(self, observation: Observation) -> None:
        """Take no notice."""


class Planner:
    """Chooses hints or short rounds for speed, rounds for few bytes, or none of them.

    Parameters
    ----------
    settings : sequence of Setting
        What the session can quantize drafts with, 1 to 4.
    sampling : Sampling
        How the text is drawn. The truncations are left out of account.
    prefer : Prefer
        For speed there are short rounds where the cloud is near and the draft quick,
        and hints wherever else they help. For few bytes there are rounds
        where they take fewer than the cloud alone, up and down together, whatever
        they take in time.
    modes : collection of Mode
        Those that there may be.
    overhead : int
        Bytes that transport and IP take for a message, as `Link.overhead`.

    Examples
    --------
    >>> import sqs_codec as sqs
    >>> from sqs_codec.system.session import Setting
    >>> settings = [Setting(sqs.Codec(vocab_size=49152), sqs.TopK(64))]
    >>> planner = Planner(settings, sampling=Sampling(0.7))
    >>> planner.plan().hints
    Hints(positions=3, branches=3, threshold=0.01)
    >>> planner = Planner(settings, sampling=Sampling(0.7), prefer="bytes")
    >>> planner.plan().length in range(17)
    True
    """

    def __init__(
        self,
        settings: Sequence[Setting],
        *,
        sampling: Sampling,
        prefer: Prefer = "speed",
        modes: Collection[Mode] = MODES,
        overhead: int = 166,
    ) -> None:
        checks.in_range("the number of settings", len(settings), 1, MAX_SETTINGS)
        for i, setting in enumerate(settings):
            checks.instance(f"settings[{i}]", setting, Setting, "a Setting")
        checks.instance("sampling", sampling, Sampling, "a Sampling")
        checks.one_of("prefer", prefer, Prefer)
        self._settings, self._prefer = tuple(settings), prefer
        self._modes = frozenset(check_modes(modes))
        self._overhead = checks.in_range("overhead", overhead, 0)
        # The rounds that are compared, side by side: [P] each.
        self._lengths = np.repeat(LENGTHS, len(settings))
        self._choices = np.tile(np.arange(len(settings)), len(LENGTHS))
        self._temperature = sampling.temperature
        self._target = 0.0  # seconds for a token
        # Tokens lately rejected and judged by each setting; what a guess counts for.
        self._judged = np.zeros((2, len(settings)))
        self._prior = PRIOR
        # With hints, in this text: tokens of each pass, seconds of a step of the draft.
        self._passes: deque[int] = deque(maxlen=PASSES)
        self._batches: deque[float] = deque(maxlen=BATCHES)
        self._alone, self._spare = False, SPARE
        # For speed: seconds of the trip, of the target for a further token, and of the
        # draft for one in each of the last rounds but a text's first.
        self._trip, self._more = math.inf, 0.0
        self._drafting: deque[float] = deque(maxlen=BATCHES)
        self._read = False  # whether the draft has read the prompt
        self._seen = np.zeros_like(FEW)  # as FEW, of the tokens lately judged
        self.reason = ""

    def __repr__(self) -> str:
        return f"<Planner: {self.reason or 'no plan yet'}>"

    @cached_property
    def _table(self) -> Table:
        """What drafts are like; not needed before there are rounds."""
        return costs.measure(self._settings, self._temperature)

    def plan(self) -> Plan:
        """Return what to do next."""
        modes = self._modes
        if modes == {"hints"} or ("hints" in modes and self._prefer == "speed"):
            plan = self._near() if "rounds" in modes else None
            plan = plan or self._fastest()
        elif "rounds" in modes:
            plan = self._fewest_bytes()
        else:
            plan = self._say(0, 0, "as asked")
        self.reason = plan.reason
        return plan

    def _near(self) -> Plan | None:
        """Choose the fastest round, if the cloud hardly waits for it and it helps."""
        target, lengths = self._target, np.array(LENGTHS)
        if not target or not self._trip <= NEAR * target:
            return None
        drafting = min(self._drafting, default=0.0)
        waits = self._trip + lengths * drafting
        took = (waits + target + lengths * self._more) / target
        seen, judged = self._judged.sum(1)
        rejected = (self._prior + seen) / (self._prior / REJECTED + judged)
        rejected = np.clip(rejected, 0.001, 0.999)
        gains = costs.tokens(lengths, rejected) / took
        best, room = int(gains.argmax()), waits <= NEAR * target
        if not room[best] or gains[best] < HELP:
            return None
        why = f"the cloud is near, {gains[best]:.2f} times its tokens expected"
        # From there on a token takes longer than the pass that it is expected to save.
        least = (drafting + self._more) / target / (1 - rejected)
        *products, sums = (FEW + self._seen).T
        line = tuple(np.linalg.solve(products, sums).tolist())
        longest = int(lengths[room].max())
        # Bytes hardly count beside a pass.
        finest = int(np.argmax([one.codec.resolution for one in self._settings]))
        return self._say(longest, finest, why, least=float(least), line=line)

    def _fastest(self) -> Plan:
        """Choose hints, unless they help too little."""
        passes, target = self._passes, self._target
        if "alone" not in self._modes:
            return self._say(0, 0, "as asked", Hints())
        if len(self._batches) == BATCHES:
            draft = statistics.median(self._batches)
            if 0 < target < draft:
                why = f"it takes {target:.3g} s a token, the draft {draft:.3g} s"
                return self._say(0, 0, why)
        if not passes:
            return self._say(0, 0, "to see what they give", Hints())
        mean = statistics.fmean(passes)
        helps = len(passes) < PASSES or mean >= HELP
        why = f"{mean:.2f} tokens a pass of the target with hints, 1 without"
        return self._say(0, 0, why, Hints() if helps else None)

    def _fewest_bytes(self) -> Plan:
        lengths, choices, table = self._lengths, self._choices, self._table
        seen, judged = self._judged
        ratio = (self._prior + seen.sum()) / (self._prior + judged @ table.rejected)
        rejected = np.clip(table.rejected * ratio, 0.001, 0.999)
        tokens = costs.tokens(lengths, rejected[choices])
        sizes = costs.rounds(lengths, table.bits[choices], self._overhead)
        alone = costs.alone(self._overhead)
        each = sizes / tokens
        best, measures = int(each.argmin()), ""
        self._alone = bool(each[best] > alone * (GAIN if self._alone else 1))
        if self._alone and "alone" in self._modes:
            more = sizes / alone - tokens
            short = int(more.argmin())
            if more[short] > self._spare:
                why = f"{alone:.3g} bytes a token, rounds {each[best]:.3g} expected"
                return self._say(0, 0, why)
            self._spare -= more[short]
            best, measures = short, "to measure; "
        setting = int(choices[best])
        why = (
            f"{measures}{each[best]:.3g} bytes a token expected, the cloud alone "
            f"{alone:.3g}, acceptance {1 - rejected[setting]:.0%}"
        )
        return self._say(int(lengths[best]), setting, why)

    def _say(
        self,
        length: int,
        setting: int,
        why: str,
        hints: Hints | None = None,
        **ending: Any,
    ) -> Plan:
        what = _words(length, hints, "up to " if ending else "")
        if length and len(self._settings) > 1:
            chosen = self._settings[setting]
            what = f"{what}, {chosen.keep} of {chosen.codec.resolution}"
        return Plan(length, setting, f"{what}: {why}", hints, **ending)

    def observe(self, observation: Observation) -> None:
        """Learn what came of a plan."""
        checks.instance("observation", observation, Observation, "an Observation")
        seen = observation
        self._target, self._more = seen.target_seconds, seen.more_seconds
        if seen.drafted:
            self._judge(seen)
        elif not seen.accepted:  # a handshake
            self._trip = seen.trip_seconds
            self._read = False
            if self._prefer == "speed":  # or one bad text would end rounds in all
                self._prior, self._judged = PRIOR, self._judged / 2
                self._seen = self._seen / 2
            self._spare = max(self._spare, SPARE)
            self._passes.clear()
            self._batches.clear()
        elif seen.plan.hints:
            self._passes.append(seen.accepted)
            if seen.draft_seconds:
                self._batches.append(seen.draft_seconds)
        else:
            self._spare += SHARE * seen.accepted

    def _judge(self, seen: Observation) -> None:
        most = len(self._settings) - 1
        at = checks.in_range("setting", seen.plan.setting, 0, most)
        rejected = seen.accepted < seen.drafted
        self._prior *= MEMORY
        self._judged *= MEMORY
        self._judged[:, at] += rejected, seen.accepted + rejected
        self._seen = MEMORY * self._seen
        for i, sure in enumerate(seen.sure[: seen.accepted + rejected]):
            self._seen += np.outer((1, sure), (1, sure, i < seen.accepted))
        if self._read:
            self._drafting.append(seen.draft_seconds / seen.drafted)
        self._read = True


def _words(length: int, hints: Hints | None, most: str = "") -> str:
    if hints:
        return f"hints of {hints.positions} positions, {hints.branches} branches"
    return f"draft {most}{length}" if length else "the cloud decodes alone"


def check_modes(modes: Collection[Mode]) -> tuple[Mode, ...]:
    """Return modes, if they are some of those that there are."""
    if isinstance(modes, str) or not modes or not set(modes) <= set(MODES):
        raise ValueError(f"modes must be some of {MODES}, got {modes!r}")
    return tuple(modes)
