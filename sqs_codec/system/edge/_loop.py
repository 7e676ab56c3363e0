"""The loop of an edge: it drafts, sends and waits.

Nothing here knows a model, a transport or a planner. The session says what the bytes
are, the loop when they go, and its line what happens when no answer comes.
"""

import math
import statistics
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Protocol

from sqs_codec._base import checks
from sqs_codec.system._base.protocol import Mode, more_seconds
from sqs_codec.system.edge._branches import Branches
from sqs_codec.system.edge._line import Line
from sqs_codec.system.edge._metrics import Completion, EdgeMetrics
from sqs_codec.system.edge._model import Draft
from sqs_codec.system.edge._planner import Handshake, Plan, Step
from sqs_codec.system.edge._reading import Reader
from sqs_codec.system.session import EdgeSession, Emitted, Link

PAUSED = 0.05
"""Seconds of a caller between two steps. One that takes longer is slower than the text,
and what came meanwhile says nothing of the mode."""

UNHEARD = 24  # steps with hints of which the cloud heard none, before they count


class Planning(Protocol):
    """What decides how the next tokens are to come, as `Planner` does."""

    def begin(self, handshake: Handshake) -> None:
        """Take what is known before a text."""

    def plan(self) -> Plan:
        """Return what to do next."""

    def learn(self, step: Step) -> None:
        """Learn what came of it."""


def generate(
    session: EdgeSession,
    draft: Draft,
    connect: Link | Callable[[], Link],
    planner: Planning,
    *,
    max_tokens: int,
    patience: float = 60.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Completion:
    """Continue the text of a session by at most `max_tokens` tokens.

    On a link that may lose messages, what isn't answered is sent again, later each
    time. If a link breaks, another one is made and the session goes on over it, also
    with a cloud that was restarted. The first link has to come at the first attempt.
    At the end, or if the iterator is closed, session and link end.

    `patience`, what is returned and errors are as of `Edge.generate`, and so is
    `connect`, as its ``link``. `clock` and `sleep` are as in `time`.
    """
    metrics = EdgeMetrics()

    def steps() -> Generator[Step, None, None]:
        began = clock()
        line = Line(connect, lambda max_message: session, patience, clock, sleep)
        try:
            reader = Reader(draft, clock)
            yield from write(line, reader, planner, max_tokens, began, metrics)
        finally:
            line.close()
            count(line, metrics)

    return Completion(steps(), metrics)


def count(line: Line, *sums: EdgeMetrics) -> None:
    """Account for what crossed a line since its last step."""
    up, down = line.count()
    for each in sums:
        each.bytes_up += up
        each.bytes_down += down


def write(
    line: Line,
    draft: Reader,
    planner: Planning,
    max_tokens: int,
    began: float,
    *sums: EdgeMetrics,
) -> Iterator[Step]:
    """Continue the text of a line's session, and account for its steps."""
    left = checks.in_range("max_tokens", max_tokens, 1)
    line.session.hold_place()
    loop = _Loop(draft, line, planner)
    loop.greet()
    while left > 0 and not line.session.finished:
        for step in loop.advance(left):
            left -= len(step.tokens)
            handed = line.clock()
            for each in sums:
                each.add(step, handed - began)
            began = handed
            yield step
            loop.away = max(loop.away, line.clock() - handed)


class _Loop:
    """Turns plans into steps."""

    def __init__(self, draft: Reader, line: Line, planner: Planning) -> None:
        self._session = line.session
        self._draft = draft
        self._line = line
        self._planner = planner
        self._clock = line.clock
        self._mode: Mode | None = None  # of the last step
        self._since = 0  # steps of this mode that may count
        self._last = line.clock()  # when the last step came
        self.away = 0.0
        """Seconds for which the caller had one of the last steps."""

    def greet(self) -> None:
        self._line.greet()
        steps = self._session.target_steps or {}
        trip = self._line.trip or math.inf
        more = max(more_seconds(steps) or 0.0, 0.0)  # two measurements may differ so
        self._planner.begin(Handshake(steps.get(1, 0.0), more, trip))

    def advance(self, left: int) -> Iterator[Step]:
        plan, left = self._planner.plan(), self._room(left)
        # A round ends with a token of the cloud's own: the last of all needs no draft.
        if plan.mode != "rounds" or left == 1:
            return self._decode(plan, left)
        owed = self._session.rounds_from - len(self._session.text)
        if owed > 0:  # of these positions the edge may know the numbers
            why = "alone, up to where a round may begin"
            return self._decode(replace(plan, length=0, reason=why), min(owed, left))
        return self._speculate(plan, min(plan.length, left - 1))

    def _room(self, left: int) -> int:
        """Return how many tokens may come, of so many that are wanted."""
        limits = self._session.limits
        assert limits is not None  # since the cloud's welcome
        return min(left, limits.max_text - len(self._session.text))

    def _speculate(self, plan: Plan, length: int) -> Iterator[Step]:
        """Draft a round, send it and wait for its answer."""
        session, line = self._session, self._line
        line.transmit()  # the text: the cloud reads it while the draft does
        while line.is_due and self._draft.read(session.text):
            line.poll()
        took: list[float] = []
        while len(session.drafted) < length:
            began, tokens = self._clock(), [*session.text, *session.drafted]
            token = session.push(self._draft.logits(tokens)[-1], setting=plan.setting)
            if token is None:
                break
            line.poll()  # the link may have broken
            took.append(self._clock() - began)
        session.flush()
        line.transmit()
        events: list[Emitted] = []
        while not events:
            events = line.wait()
        # Not a mean: for the first token the draft reads what is new of the text.
        return iter(self._steps(events, plan, statistics.median_low(took)))

    def _decode(self, plan: Plan, left: int) -> Iterator[Step]:
        """Let the cloud decode, and ask for more before it runs out.

        The plan may change at each step; before rounds all has to come that was asked.
        """
        session, line = self._session, self._line
        drafts = self._drafts(plan, left)
        asked, got, goes_on = 0, 0, True
        welcomes = greeted = session.welcomes
        while not session.finished and (got < asked or not asked):
            # A cloud that was restarted counts anew; let it come to the end.
            asks = goes_on and asked < left and session.welcomes == welcomes
            if asks and asked - got <= plan.ahead // 2:
                asked = min(left, got + plan.ahead)
                session.generate(asked, together=plan.together)
                line.transmit()
            if drafts is not None and session.welcomes != greeted:
                drafts.tell_again()
            greeted = session.welcomes
            events = self._draft_on(drafts)
            if not events:
                continue
            drafting = 0.0
            if drafts is not None:
                drafting, events = drafts.seconds, [*map(drafts.follow, events)]
                if drafts.reads:  # there were no hints yet
                    self._since = -UNHEARD
            steps = self._steps(events, plan, drafting)
            got += sum(len(step.tokens) for step in steps)
            yield from steps
            fresh = self._planner.plan()
            ends, goes_on = not goes_on, fresh.mode != "rounds"
            if not goes_on:  # what was asked for comes as before
                drafts = drafts if ends else self._drafts(plan, asked - got)
            elif ends or fresh.hints != plan.hints:
                drafts = self._drafts(fresh, left - got)
            plan = fresh if goes_on else plan

    def _drafts(self, plan: Plan, left: int) -> Branches | None:
        """Return what drafts on while the cloud decodes, if the plan has hints."""
        if plan.hints is None:
            return None
        end = len(self._session.text) + left
        return Branches(self._session, self._draft, plan.hints, end - 1, self._clock)

    def _draft_on(self, drafts: Branches | None) -> list[Emitted]:
        """Draft a step, or wait if there is nothing to draft; return what has come."""
        line = self._line
        line.transmit()
        if drafts is None or self._session.sending_text:
            return line.wait()
        drafting = drafts.step()
        drafts.tell(drafting)
        return line.poll() if drafting else line.wait()

    def _steps(self, events: list[Emitted], plan: Plan, drafting: float) -> list[Step]:
        """Return steps that came together, once the planner has learned from them."""
        now, paused = self._clock(), self.away > PAUSED
        steps, mode = [], plan.mode
        for emitted in events:
            if mode != self._mode:
                self._mode, self._since = mode, -UNHEARD if mode == "hints" else 0
            hears = mode != "hints" or emitted.drafted > 0
            self._since = (max(self._since, 0) if hears else self._since) + 1
            # The first of a round has its text read, and of others what was under way.
            counts = self._since > (1 if mode == "rounds" else 2) and not paused
            steps.append(
                Step(
                    tuple(emitted.tokens),
                    emitted.accepted,
                    emitted.drafted,
                    min(emitted.drafted - emitted.accepted, 1),
                    *self._line.count(),
                    plan.reason,
                    mode,
                    now - self._last if counts else None,
                    drafting,
                )
            )
            self._last = now
            self._planner.learn(steps[-1])
        self.away = 0.0
        return steps
