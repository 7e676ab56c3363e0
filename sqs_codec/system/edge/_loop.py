"""The loop of an edge: it drafts, sends and waits.

Nothing here knows a model, a transport or a planner. The session says what the bytes
are, the loop when they go, and its line what happens when no answer comes.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from sqs_codec._base import checks
from sqs_codec.system.edge._ahead import Ahead
from sqs_codec.system.edge._line import Line
from sqs_codec.system.edge._model import DraftModel
from sqs_codec.system.edge._planner import Mode, Observation, Plan
from sqs_codec.system.edge._reading import Reader
from sqs_codec.system.session import (
    MAX_AHEAD,
    EdgeSession,
    Emitted,
    Link,
    more_seconds,
)


class Planning(Protocol):
    """What decides how the next tokens are to come, as `Planner` does."""

    def plan(self) -> Plan:
        """Return what to do next."""

    def observe(self, observation: Observation) -> None:
        """Learn what came of it."""


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
    target_seconds : float
        What the target model takes for a token alone, as the cloud says; 0 if it
        doesn't.
    """

    tokens: tuple[int, ...]
    accepted: int
    drafted: int
    resampled: int
    bytes_up: int
    bytes_down: int
    reason: str
    mode: Mode = "alone"
    target_seconds: float = 0.0


def generate(
    session: EdgeSession,
    draft: DraftModel,
    connect: Link | Callable[[], Link],
    planner: Planning,
    *,
    max_tokens: int,
    patience: float = 60.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Generator[Step, None, None]:
    """Continue the text of a session by at most `max_tokens` tokens.

    A round is drafted as the planner says. On a link that may lose messages what isn't
    answered is sent again, later each time. If a link breaks, another one is
    made and the session goes on over it, also with a cloud that was restarted. When
    the iterator is closed, the session ends and so does the link.

    Parameters
    ----------
    session : EdgeSession
        Its stop tokens end the text; they are part of it.
    draft : DraftModel
    connect : callable or Link
        Makes a link to the cloud, or raises `LinkError`. The first one has to come at
        the first attempt. With a link instead, the text ends where this breaks.
    planner : Planning
    max_tokens : int
    patience : float
        After so many seconds without a token or progress from the cloud it is given
        up. Progress is that it has more of the text, or has read more of it.
    clock, sleep : callable
        As in `time`.

    Raises
    ------
    RefusalError
        The cloud refuses the session and says why.
    LinkError
        There is no link, or none with an answer within `patience`.
    """
    line = Line(connect, lambda max_message: session, patience, clock, sleep)
    try:
        yield from write(line, Reader(draft, clock), planner, max_tokens, clock)
    finally:
        line.close()


def write(
    line: Line,
    draft: Reader,
    planner: Planning,
    max_tokens: int,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Step]:
    """Continue the text of a line's session."""
    left = checks.in_range("max_tokens", max_tokens, 1)
    line.session.hold()
    loop = _Loop(draft, line, planner, clock)
    loop.greet()
    while left > 0 and not line.session.finished:
        for step in loop.advance(left):
            left -= len(step.tokens)
            yield step


class _Loop:
    """Turns plans into steps."""

    def __init__(
        self,
        draft: Reader,
        line: Line,
        planner: Planning,
        clock: Callable[[], float],
    ) -> None:
        self._session = line.session
        self._draft = draft
        self._line = line
        self._planner = planner
        self._clock = clock
        self._next: Plan | None = None  # if it was asked for beforehand

    def greet(self) -> None:
        self._line.greet()
        trip = self._line.trip or math.inf
        self._observe(Plan(0, 0, "the handshake"), Emitted((), 0, 0), trip=trip)

    def advance(self, left: int) -> Iterator[Step]:
        plan = self._next or self._planner.plan()
        self._next, left = None, self._room(left)
        # A round ends with a token of the cloud's own, so the last token of all needs
        # no draft.
        if plan.length == 0 or left == 1:
            return self._decode(plan, left)
        owed = self._session.rounds_from - len(self._session.text)
        if owed > 0:  # of these positions the edge may know the numbers
            why = "alone, up to where a round may begin"
            return self._decode(Plan(0, 0, why), min(owed, left))
        return self._speculate(plan, left)

    def _room(self, left: int) -> int:
        """Return how many tokens may come, of so many that are wanted."""
        limits = self._session.limits
        assert limits is not None  # since the cloud's welcome
        return min(left, limits.max_text - len(self._session.text))

    def _speculate(self, plan: Plan, left: int) -> Iterator[Step]:
        """Draft a round, or where a quick draft's cloud is near all that are planned.

        There whoever takes a step does so while the cloud is at the next round.
        """
        step: Step | None = None
        while left > 1 and not self._session.finished:
            began = self._clock()
            try:
                if step is not None:
                    plan = self._planner.plan()
                if plan.length == 0:
                    self._next = plan
                    break
                sure = self._write(plan, min(plan.length, left - 1))
            except Exception:
                if step is not None:  # its tokens are in the text
                    yield step
                raise
            drafting = self._clock() - began
            if step is not None:
                yield step
            events: list[Emitted] = []
            while not events:
                events = self._line.wait()
            [emitted] = events
            self._observe(plan, emitted, drafting, sure=sure)
            step = self._step(emitted, plan)
            left = self._room(left - len(emitted.tokens))
            if not plan.least:
                break
        if step is not None:
            yield step

    def _write(self, plan: Plan, length: int) -> tuple[float, ...]:
        """Draft and send a round; return how sure the draft was of each token."""
        session, line = self._session, self._line
        sure: list[float] = []
        holds, (base, slope) = 1.0, plan.line
        line.transmit()  # the text: the cloud reads it while the draft does
        while line.is_due and self._draft.read(session.text):
            line.poll()
        while len(sure) < length and (not sure or holds >= plan.least):
            tokens = [*session.text, *session.drafted]
            token = session.push(self._draft.logits(tokens)[-1], setting=plan.setting)
            if token is None:
                break
            line.poll()  # the link may have broken
            sure.append(session.sure)
            holds *= min(max(base + slope * sure[-1], 0.0), 1.0)
        session.flush()
        line.transmit()
        return tuple(sure)

    def _decode(self, plan: Plan, left: int) -> Iterator[Step]:
        """Let the cloud decode, and ask for more before it runs out."""
        session, line = self._session, self._line
        drafts = self._drafts(plan, left)
        asked = got = 0
        welcomes = greeted = line.welcomes
        while not session.finished and (got < asked or not asked):
            ahead = self._ahead(plan)
            # A cloud that was restarted counts anew; let it come to the end.
            goes_on = self._next is None and line.welcomes == welcomes
            if goes_on and asked < left and asked - got <= ahead // 2:
                plan, before = self._replan(plan) if asked else plan, plan
                if plan.hints != before.hints:
                    drafts = self._drafts(plan, left - got)
                if self._next is None:
                    asked = min(left, got + ahead)
                    session.generate(asked)
                    line.transmit()
            if drafts is not None and line.welcomes != greeted:
                drafts.tell_again()
            greeted = line.welcomes
            for emitted in self._draft_on(drafts):
                drafting, observed = 0.0, plan
                if drafts is not None:
                    drafting = drafts.seconds
                    emitted = drafts.follow(emitted)
                    if drafts.reads:  # there were no hints, so they didn't fail
                        observed = replace(plan, hints=None)
                self._observe(observed, emitted, drafting)
                got += len(emitted.tokens)
                yield self._step(emitted, plan)

    def _drafts(self, plan: Plan, left: int) -> Ahead | None:
        """Return what drafts on while the cloud decodes, if the plan has hints."""
        if plan.hints is None:
            return None
        end = len(self._session.text) + left
        return Ahead(self._session, self._draft, plan.hints, end - 1, self._clock)

    def _draft_on(self, drafts: Ahead | None) -> list[Emitted]:
        """Draft a step, or wait if there is nothing to draft; return what has come."""
        line = self._line
        line.transmit()
        if drafts is None or self._session.collecting:
            return line.wait()
        drafting = drafts.step()
        drafts.tell(drafting)
        return line.poll() if drafting else line.wait()

    def _replan(self, plan: Plan) -> Plan:
        """Ask again; if the cloud is to go on alone, that is the plan from now on."""
        fresh = self._planner.plan()
        if fresh.length == 0:
            return fresh
        self._next = fresh
        return plan

    def _observe(
        self,
        plan: Plan,
        emitted: Emitted,
        drafting: float = 0.0,
        trip: float = math.inf,
        sure: Sequence[float] = (),
    ) -> None:
        decoded = plan.length == 0 or emitted.drafted == 0
        self._planner.observe(
            Observation(
                plan=plan,
                drafted=0 if decoded else emitted.drafted,
                accepted=len(emitted.tokens) if decoded else emitted.accepted,
                draft_seconds=drafting,
                target_seconds=self._target_seconds,
                more_seconds=max(more_seconds(self._session.target_steps) or 0.0, 0.0),
                trip_seconds=trip,
                sure=sure,
            )
        )

    @property
    def _target_seconds(self) -> float:
        return (self._session.target_steps or {}).get(1, 0.0)

    def _ahead(self, plan: Plan) -> int:
        """Return how many tokens the cloud should know that it has to decode.

        That is what it decodes in two round trips: one for the tokens that are on
        their way, one to spare. With hints a pass may decode many. Without rounds,
        nothing has to wait until all of these tokens have come.
        """
        limits, rounds_from = self._session.limits, self._session.rounds_from
        if plan.hints is not None or (limits and rounds_from > limits.max_text):
            return MAX_AHEAD
        target = self._target_seconds
        if not target or self._line.round_trip is None:
            return MAX_AHEAD // 4
        trips = math.ceil(2 * self._line.round_trip / max(target, 1e-3))
        return min(4 + trips, MAX_AHEAD)

    def _step(self, emitted: Emitted, plan: Plan) -> Step:
        return Step(
            tuple(emitted.tokens),
            emitted.accepted,
            emitted.drafted,
            min(emitted.drafted - emitted.accepted, 1),
            *self._line.count(),
            plan.reason,
            plan.mode,
            self._target_seconds,
        )
