"""The loop of an edge: it drafts, sends and waits, whatever the link does.

Nothing here knows a model, a transport or a planner. The session says what the bytes
are; the loop says when they go, and what happens when no answer comes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Protocol

from sqs_codec._base import checks
from sqs_codec.system.edge._ahead import Ahead, DraftModel
from sqs_codec.system.edge._planner import Observation, Plan
from sqs_codec.system.session._cloud import unknown_session
from sqs_codec.system.session._edge import EdgeSession
from sqs_codec.system.session._events import Emitted, Welcomed
from sqs_codec.system.session._limits import MAX_AHEAD
from sqs_codec.system.session._link import Link, LinkError

__all__ = ["DraftModel", "Planning", "RefusalError", "Step", "generate"]

RESENDS = 5
"""After so many resends without a word, a link that may lose messages is dropped."""

log = logging.getLogger(__name__)

FAREWELL_SECONDS = 2.0
"""How long to tell a session's end over a link that may lose it, until the cloud says
that it has forgotten the session."""

SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two attempts to connect; they double."""


class RefusalError(RuntimeError):
    """The cloud refused the session.

    Attributes
    ----------
    reason : str
        In the cloud's words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the cloud refused the session: {reason}")
        self.reason = reason


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
    accepted, drafted : int
        Of the round; with hints, how many of the tokens the edge had guessed, and how
        many it had guesses of. Both are 0 where the cloud decodes alone.
    resampled : int
        Drafted tokens that were judged and not accepted; in a round one at most.
    bytes_up, bytes_down : int
        Bytes of the messages since the step before, without what transport and IP
        put around them.
    reason : str
        Why the tokens came as they did: the plan's.
    mode : str
        How they came: "alone", "rounds" or "hints".
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
    mode: str = "alone"
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
        After so many seconds without a word from the cloud it is given up. If it has
        to be connected to again, its welcome isn't enough.
    clock, sleep : callable
        As in `time`.

    Yields
    ------
    Step

    Raises
    ------
    RefusalError
        The cloud refuses the session and says why.
    LinkError
        There is no link, or none with an answer within `patience`.
    """
    checks.in_range("max_tokens", max_tokens, 1)
    line = _Line(session, connect, patience, clock, sleep)
    loop = _Loop(session, draft, line, planner, clock)
    try:
        loop.greet()
        left = max_tokens
        while left > 0 and not session.finished:
            for step in loop.advance(left):
                left -= len(step.tokens)
                yield step
    finally:
        line.close()


class _Loop:
    """Turns plans into steps."""

    def __init__(
        self,
        session: EdgeSession,
        draft: DraftModel,
        line: _Line,
        planner: Planning,
        clock: Callable[[], float],
    ) -> None:
        self._session = session
        self._draft = draft
        self._line = line
        self._planner = planner
        self._clock = clock
        self._next: Plan | None = None  # if it was asked for beforehand
        self._sent = self._received = 0  # at the last step

    def greet(self) -> None:
        """Open the session, and tell the planner what that shows of the link."""
        began = self._clock()
        self._line.transmit()
        sent = self._line.sent  # what is sent again doesn't delay the answer
        while self._session.limits is None:
            self._line.wait()
        steps = self._session.target_steps or {}
        # A welcome takes as long as a token that takes the target no time.
        waited = self._clock() - began + steps[1] if 1 in steps else 0.0
        self._planner.observe(
            Observation(
                plan=Plan(0, 0, "the handshake"),
                drafted=0,
                accepted=0,
                bytes_up=sent,
                draft_seconds=0.0,
                wait_seconds=waited,
                target_steps=steps,
            )
        )

    def advance(self, left: int) -> Iterator[Step]:
        """Carry out the next plan, for at most `left` tokens."""
        plan = self._next or self._planner.plan()
        self._next = None
        limits = self._session.limits
        assert limits is not None  # since the cloud's welcome
        left = min(left, limits.max_text - len(self._session.text))
        # A round ends with a token of the cloud's own, so the last token of all needs
        # no draft.
        if plan.length == 0 or left == 1:
            return self._decode(plan, left)
        owed = self._session.rounds_from - len(self._session.text)
        if owed > 0:  # of these positions the edge may know the numbers
            why = "alone, up to where a round may begin"
            return self._decode(Plan(0, 0, why), min(owed, left))
        return self._speculate(plan, min(plan.length, left - 1))

    def _speculate(self, plan: Plan, length: int) -> Iterator[Step]:
        """Draft a round, wait for its answer and tell the planner of it."""
        sent = self._line.sent
        drafting = self._write(plan, length)
        handed_over = self._clock()
        events: list[Emitted] = []
        while not events:
            events = self._line.wait()
        waited = self._clock() - handed_over
        for emitted in events:
            told = self._line.sent - sent
            self._observe(plan, emitted, told, drafting, waited)
            yield self._step(emitted, plan)

    def _write(self, plan: Plan, length: int) -> float:
        """Draft and send a round; return the seconds it took to draft."""
        session, line = self._session, self._line
        seconds = 0.0
        while len(session.drafted) < length:
            before = self._clock()
            tokens = [*session.text, *session.drafted]
            token = session.push(self._draft.logits(tokens)[-1], setting=plan.setting)
            seconds += self._clock() - before
            if token is None:
                break
            line.poll()  # the link may have broken
        session.flush()
        line.transmit()
        return seconds

    def _decode(self, plan: Plan, left: int) -> Iterator[Step]:
        """Let the cloud decode, and ask for more before it runs out."""
        session, line = self._session, self._line
        drafts = self._drafts(plan, left)
        asked = got = told = 0
        welcomes = greeted = line.welcomes
        asked_at = self._clock()
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
                    sent = line.sent
                    session.generate(asked)
                    line.transmit()
                    told = line.sent - sent
            if drafts is not None and line.welcomes != greeted:
                drafts.tell_again()
            greeted = line.welcomes
            for emitted in self._draft_on(drafts):
                # Only the first token has waited for the link; with hints somebody
                # was drafting when it came.
                waited = 0.0 if got or drafts else self._clock() - asked_at
                drafting = 0.0
                if drafts is not None:
                    drafting = drafts.seconds
                    emitted = drafts.follow(emitted)
                self._observe(plan, emitted, told, drafting, waited)
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
        if drafts is None:
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
        self, plan: Plan, emitted: Emitted, told: int, drafting: float, waited: float
    ) -> None:
        """Tell the planner of an answer to so many bytes."""
        decoded = plan.length == 0 or emitted.drafted == 0
        self._planner.observe(
            Observation(
                plan=plan,
                drafted=0 if decoded else emitted.drafted,
                accepted=len(emitted.tokens) if decoded else emitted.accepted,
                bytes_up=told,
                draft_seconds=drafting,
                wait_seconds=waited,
                target_steps=self._session.target_steps,
            )
        )

    def _ahead(self, plan: Plan) -> int:
        """Return how many tokens the cloud should know that it has to decode.

        That is what it decodes in two round trips: one for the tokens that are on
        their way, one to spare. With hints a pass may decode many.
        """
        if plan.hints is not None:
            return MAX_AHEAD
        steps = self._session.target_steps
        if not steps or 1 not in steps or self._line.round_trip is None:
            return MAX_AHEAD // 4
        trips = math.ceil(2 * self._line.round_trip / max(steps[1], 1e-3))
        return min(4 + trips, MAX_AHEAD)

    def _step(self, emitted: Emitted, plan: Plan) -> Step:
        up, down = self._line.sent, self._line.received
        missed = emitted.drafted - emitted.accepted
        step = Step(
            tuple(emitted.tokens),
            emitted.accepted,
            emitted.drafted,
            missed if plan.length == 0 else min(missed, 1),
            up - self._sent,
            down - self._received,
            plan.reason,
            plan.mode,
            (self._session.target_steps or {}).get(1, 0.0),
        )
        self._sent, self._received = up, down
        return step


class _Timeout:
    """How long to wait for an answer before sending again, as in RFC 6298."""

    LEAST, MOST = 0.1, 10.0
    FIRST = 1.0
    SLOWEST = 1250.0
    """Bytes a second of a link of 10 kbit/s; long messages are given that time."""

    def __init__(self) -> None:
        self.mean: float | None = None  # of the measured round trips, in seconds
        self._deviation = 0.0
        self._backoff = 1

    def seconds(self, size: int) -> float:
        """Return how long to wait for the answer to so many bytes."""
        base = self.FIRST
        if self.mean is not None:
            base = max(self.mean + 4 * self._deviation, self.LEAST)
        return min((base + size / self.SLOWEST) * self._backoff, self.MOST)

    def learn(self, seconds: float) -> None:
        """Take a measured round trip, of what was sent once.

        Only that ends the longer waits: otherwise a cloud that takes longer than the
        first guess would be asked twice for ever.
        """
        self._backoff = 1
        if self.mean is None:
            self.mean, self._deviation = seconds, seconds / 2
        else:
            self._deviation += (abs(seconds - self.mean) - self._deviation) / 4
            self.mean += (seconds - self.mean) / 8

    def double(self) -> None:
        """Wait longer, as there was no answer."""
        if self.seconds(0) < self.MOST:
            self._backoff *= 2

    def reset(self) -> None:
        """Wait as measured again: another link isn't to blame for the one before."""
        self._backoff = 1


class _Line:
    """A session's link, made anew where it breaks, with a timer where it loses."""

    def __init__(
        self,
        session: EdgeSession,
        connect: Link | Callable[[], Link],
        patience: float,
        clock: Callable[[], float],
        sleep: Callable[[float], object],
    ) -> None:
        self._session = session
        self._connect = connect if callable(connect) else None
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self._link: Link | None = None
        self._link = self._fit(connect() if callable(connect) else connect)
        self._sent = self._received = 0  # over the links before this one
        self._timeout = _Timeout()
        self._outstanding = False  # whether a word from the cloud is due
        self._size = 0  # of what was sent since its last word
        self._last = clock()  # when something was last sent or heard
        self._first: float | None = None  # when, if it was sent once only
        self._failing: float | None = None  # since when nothing has worked
        self._resends = 0
        self._told = False  # whether the log says that the link broke
        self._pause = SHORTEST_PAUSE
        self.welcomes = 0  # how often a cloud has taken the session

    @property
    def sent(self) -> int:
        """Bytes sent over all links."""
        return self._sent + (self._link.sent if self._link else 0)

    @property
    def received(self) -> int:
        """Bytes received over all links."""
        return self._received + (self._link.received if self._link else 0)

    @property
    def round_trip(self) -> float | None:
        """The mean of the round trips so far, in seconds; None if there were none."""
        return self._timeout.mean

    def transmit(self) -> None:
        """Send what the session has to send."""
        while True:
            try:
                if self._link is None:
                    assert self._connect is not None  # or `_leave` had raised
                    self._link = self._fit(self._connect())
                for message in self._session.data_to_send():
                    self._link.send(message)
                    self._note(message)
                return
            except LinkError as error:
                self._leave(error)

    def _fit(self, link: Link) -> Link:
        """Refuse a link that might not take what was drafted for another one.

        It must not depend on what was drafted.
        """
        most = self._session.max_message
        if link.max_message < most:
            link.close()
            raise LinkError(
                f"a link takes messages of {link.max_message} bytes, and those of the "
                f"session may have {most}: give the session this max_message"
            )
        return link

    def poll(self) -> list[Emitted]:
        """Send, and return what has come without waiting."""
        self.transmit()
        return self._receive(0)

    def wait(self) -> list[Emitted]:
        """Send, and wait for a message or until it is time to send again."""
        self.transmit()
        link = self._link
        assert link is not None  # as something was just sent over it
        limit = self._patience if link.reliable else self._timeout.seconds(self._size)
        # Also if it is late: what came while nobody looked isn't silence.
        emitted = self._receive(max(self._last + limit - self._clock(), 0.0))
        if emitted or self._link is not link or self._clock() < self._last + limit:
            return emitted
        if link.reliable:
            raise LinkError(f"the cloud didn't answer within {self._patience:g} s")
        self._resend()
        return emitted

    def close(self) -> None:
        """Tell the cloud that the session ends, if it can be told; close the link."""
        if self._link is None:
            return
        try:
            self._session.end()
            for message in self._session.data_to_send():
                self._say_farewell(self._link, message)
        except LinkError:
            pass
        finally:
            self._link.close()

    def _say_farewell(self, link: Link, message: bytes) -> None:
        """Tell the cloud that the session ends, again if it may have been lost."""
        link.send(message)
        end = self._clock() + FAREWELL_SECONDS
        while not link.reliable and not self._is_forgotten(link, end):
            if self._clock() >= end:
                return
            self._timeout.double()
            link.send(message)

    def _is_forgotten(self, link: Link, end: float) -> bool:
        """Wait for a while until the cloud says that it knows no session."""
        end = min(end, self._clock() + self._timeout.seconds(0))
        while (left := end - self._clock()) > 0:
            answer = link.receive(left)
            if answer is None or answer == unknown_session():
                return answer is not None
        return False

    def _note(self, message: bytes) -> None:
        """Remember that a message was sent now."""
        self._last = self._clock()
        self._size += len(message)
        if not self._outstanding:
            self._outstanding = True
            self._first = self._last

    def _receive(self, timeout: float) -> list[Emitted]:
        """Wait for a message, take all there are, and return what they add."""
        emitted: list[Emitted] = []
        try:
            while self._link and (message := self._link.receive(timeout)) is not None:
                emitted += self._take(message)
                timeout = 0
        except LinkError as error:
            self._leave(error)
        return emitted

    def _take(self, message: bytes) -> list[Emitted]:
        events = self._session.receive(message)
        if self._session.refused is not None:
            raise RefusalError(self._session.refused)
        self._last = self._clock()
        self._size = self._resends = 0
        if any(isinstance(event, Welcomed) for event in events):
            self.welcomes += 1
        else:  # a welcome isn't enough: the link may break on whatever comes next
            self._failing = None
            if self._told:
                log.warning("the cloud is there again; the text goes on")
            self._told = False
        emitted = [event for event in events if isinstance(event, Emitted)]
        if emitted:
            self._pause = SHORTEST_PAUSE
        # What was sent twice says nothing: which one was answered?
        if self._first is not None:
            self._timeout.learn(self._last - self._first)
        self._first = None
        self._outstanding = self._session.waiting
        return emitted

    def _resend(self) -> None:
        """Send again, or leave the link if that has been in vain too often."""
        self._first = None
        if self._failing is None:
            self._failing = self._last
        if self._resends == RESENDS:
            self._leave(LinkError(f"no answer to {RESENDS} repetitions"))
            return
        self._resends += 1
        self._timeout.double()
        self._session.resend()

    def _leave(self, error: LinkError) -> None:
        """Close a broken link; after a pause another one can be tried.

        Raises
        ------
        LinkError
            No other link can be made, or nothing has worked for too long.
        """
        if self._link is not None:
            self._sent, self._received = self.sent, self.received
            self._link.close()
            self._link = None
        now = self._clock()
        if self._failing is None:
            self._failing = now
        if self._connect is None:
            raise error
        if now - self._failing >= self._patience:
            raise LinkError(
                f"no word from the cloud for {now - self._failing:.0f} s: {error}"
            ) from error
        if not self._told:
            log.warning("%s; trying again for %g s", error, self._patience)
            self._told = True
        self._first = None
        self._size = self._resends = 0
        self._timeout.reset()
        self._session.reconnect()
        self._sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
