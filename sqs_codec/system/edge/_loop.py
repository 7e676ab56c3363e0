"""The loop of an edge: it drafts, sends and waits.

The session makes the messages, the loop decides when to send them, and the line
repeats them if no answer comes. Models, transports and planners are passed in.
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
"""Seconds that a caller may take between two steps. If it takes longer, tokens wait for
the caller, and the time between them doesn't measure the mode."""

UNHEARD = 24  # steps of hints to skip in measurements while no hint reaches the cloud


class Planning(Protocol):
    """Chooses how the next tokens are produced, as `Planner` does."""

    def begin(self, handshake: Handshake) -> None:
        """Begin a completion, with the timings that the cloud states."""

    def plan(self) -> Plan:
        """Return what to do next."""

    def learn(self, step: Step) -> None:
        """Learn from a step that has ended."""


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
    """Continue a session's text by at most `max_tokens` tokens.

    On a link that may lose messages, unanswered messages are sent again at growing
    intervals. If a link breaks, the session continues over a new one, even if the
    cloud was restarted. Only the first link must connect at the first attempt. Session
    and link end with the completion, or when the iterator is closed.

    `connect` is the ``link`` of `Edge.generate`. `patience`, the result and errors are
    those of `Edge.generate`; `clock` and `sleep` are as in `time`.
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
    """Add the bytes that a line has sent and received since the last count."""
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
    """Continue the text of a line's session, and add its steps to metrics."""
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
    """Carries out plans."""

    def __init__(self, draft: Reader, line: Line, planner: Planning) -> None:
        self._session = line.session
        self._draft = draft
        self._line = line
        self._planner = planner
        self._clock = line.clock
        self._mode: Mode | None = None  # of the last step
        self._since = 0  # steps in this mode; negative: steps still to skip
        self._last = line.clock()  # time of the last step
        self.away = 0.0
        """The longest time in seconds that the caller kept one of the last steps."""

    def greet(self) -> None:
        self._line.greet()
        steps = self._session.target_steps or {}
        trip = self._line.trip or math.inf
        more = max(more_seconds(steps) or 0.0, 0.0)  # below 0 only by noise
        self._planner.begin(Handshake(steps.get(1, 0.0), more, trip))

    def advance(self, left: int) -> Iterator[Step]:
        plan, left = self._planner.plan(), self._room(left)
        # A round ends with a token that the cloud samples: the last one needs no draft.
        if plan.mode != "rounds" or left == 1:
            return self._decode(plan, left)
        owed = self._session.rounds_from - len(self._session.text)
        if owed > 0:  # the edge may know these positions' random numbers
            why = "alone, up to the first position where a round is allowed"
            return self._decode(replace(plan, length=0, reason=why), min(owed, left))
        return self._speculate(plan, min(plan.length, left - 1))

    def _room(self, left: int) -> int:
        """Return how many of `left` tokens still fit into the session's text."""
        limits = self._session.limits
        assert limits is not None  # since the cloud's welcome
        return min(left, limits.max_text - len(self._session.text))

    def _speculate(self, plan: Plan, length: int) -> Iterator[Step]:
        """Draft a round, send it and wait for its answer."""
        session, line = self._session, self._line
        line.transmit()  # the text, so that both models prefill at the same time
        while line.is_due and self._draft.read(session.text):
            line.poll()
        took: list[float] = []
        while len(session.drafted) < length:
            began, tokens = self._clock(), [*session.text, *session.drafted]
            token = session.push(self._draft.logits(tokens)[-1], setting=plan.setting)
            if token is None:
                break
            line.poll()  # notices a broken link
            took.append(self._clock() - began)
        session.flush()
        line.transmit()
        events: list[Emitted] = []
        while not events:
            events = line.wait()
        # The median: before the first token the draft also reads the new text.
        return iter(self._steps(events, plan, statistics.median_low(took)))

    def _decode(self, plan: Plan, left: int) -> Iterator[Step]:
        """Let the cloud decode, and request more tokens before it runs out.

        The plan may change at each step. Rounds begin only after all requested tokens
        have arrived.
        """
        session, line = self._session, self._line
        drafts = self._drafts(plan, left)
        asked, got, goes_on = 0, 0, True
        welcomes = greeted = session.welcomes
        while not session.finished and (got < asked or not asked):
            # A restarted cloud counts from 0: let it finish this request first.
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
                if drafts.reads:  # still in prefill, so without hints
                    self._since = -UNHEARD
            steps = self._steps(events, plan, drafting)
            got += sum(len(step.tokens) for step in steps)
            yield from steps
            fresh = self._planner.plan()
            ends, goes_on = not goes_on, fresh.mode != "rounds"
            if not goes_on:  # requested tokens still come in the old mode
                drafts = drafts if ends else self._drafts(plan, asked - got)
            elif ends or fresh.hints != plan.hints:
                drafts = self._drafts(fresh, left - got)
            plan = fresh if goes_on else plan

    def _drafts(self, plan: Plan, left: int) -> Branches | None:
        """Return the branches to draft from, if the plan has hints."""
        if plan.hints is None:
            return None
        end = len(self._session.text) + left
        return Branches(self._session, self._draft, plan.hints, end - 1, self._clock)

    def _draft_on(self, drafts: Branches | None) -> list[Emitted]:
        """Draft one step, or wait if there is nothing to draft. Return new events."""
        line = self._line
        line.transmit()
        if drafts is None or self._session.sending_text:
            return line.wait()
        drafting = drafts.step()
        drafts.tell(drafting)
        return line.poll() if drafting else line.wait()

    def _steps(self, events: list[Emitted], plan: Plan, drafting: float) -> list[Step]:
        """Return the steps of events that arrived together; the planner learns them."""
        now, paused = self._clock(), self.away > PAUSED
        steps, mode = [], plan.mode
        for emitted in events:
            if mode != self._mode:
                self._mode, self._since = mode, -UNHEARD if mode == "hints" else 0
            hears = mode != "hints" or emitted.drafted > 0
            self._since = (max(self._since, 0) if hears else self._since) + 1
            # First steps don't count. A round's includes the prefill, others include
            # tokens that were under way when the mode changed.
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
