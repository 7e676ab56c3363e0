"""The real loop and the real sessions on a virtual clock.

Edges are those of `sqs_codec.system.edge.generate`, which takes a clock and a sleep:
here a `World`. Clouds are `CloudSession`s, whose jobs a `Cloud` does as the server and
its engine do: all that wait in one call, hints by the server's threshold. Between them
are the directions of a link as `tests.relay` has them, for datagrams. Computation
takes only the stated times.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from sqs_codec.system.engine._batch import MOST_AT_ONCE
from sqs_codec.system.serve._threshold import HintThreshold
from sqs_codec.system.session import CloudSession, Job, Limits, LinkError, Verifier
from sqs_codec.system.session.transport import session_of, unknown_session
from tests.relay import GOOD, HEADERS, Link, Way

RECORD = 29
"""Bytes of DTLS around a message."""

MAX_MESSAGE = 1200 - RECORD

SLICE = 0.001
"""Seconds after which a forward pass checks whether it still shares its cores."""


class Steps(NamedTuple):
    """Seconds of the models: a drafted token; the target for one and each more.

    A forward pass takes 1 + `busy` times as long while the draft computes, as where
    both models share the cores of a machine.
    """

    draft: float
    target: float
    more: float
    busy: float = 0.0

    def verify(self, tokens: int) -> float:
        return self.target + self.more * (tokens - 1)

    @property
    def told(self) -> dict[int, float]:
        """The times that a server reports."""
        return {n: self.verify(n) for n in (1, 6)}


class World:
    """A clock, and the events while time passes."""

    def __init__(self) -> None:
        self.now = 0.0
        """Seconds."""
        self.drafting = False
        """Whether a draft model computes."""
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def __call__(self) -> float:
        return self.now

    def at(self, due: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._events, (due, next(self._order), action))

    def compute(self, seconds: float) -> None:
        """Let time pass in which a draft model computes."""
        self.drafting = True
        self.sleep(seconds)
        self.drafting = False

    def sleep(self, seconds: float, link: WorldLink | None = None) -> None:
        """Let time pass until something comes over a link, if one is given."""
        over: list[bool] = []
        self.at(self.now + seconds, lambda: over.append(True))
        while not over and not (link and link.is_ready):
            self.now, _, action = heapq.heappop(self._events)
            action()


class Cloud:
    """A server: sessions, and a target model that does all jobs that wait at once.

    Steps are what a call takes by its rows; to read a prompt takes no time. Without
    them nothing does, and the server knows none.
    """

    def __init__(
        self,
        world: World,
        verifier: Verifier,
        steps: Steps | None = None,
        *,
        limits: Limits | None = None,
    ) -> None:
        self._world, self._verifier, self._steps = world, verifier, steps
        self._limits = Limits() if limits is None else limits
        self._told = steps and steps.told
        self._threshold = HintThreshold(self._told)
        self._sessions: dict[bytes, CloudSession] = {}
        self._waiting: deque[tuple[WorldLink, CloudSession, Job]] = deque()
        self._busy = False

    def take(self, message: bytes, link: WorldLink) -> None:
        """Take what has come over a link."""
        session_id = session_of(message)
        if session_id is not None:
            link.session = self._sessions.get(session_id) or self._open(session_id)
        if link.session is None:
            link.answer(unknown_session())
            return
        link.session.receive(message)
        self._go_on(link, link.session)
        self._call()

    def _open(self, session_id: bytes) -> CloudSession:
        made = self._sessions[session_id] = CloudSession(
            session_id,
            limits=self._limits,
            tokenizer=b"",
            vocab_size=self._verifier.vocab_size,
            max_text=self._verifier.max_text,
            steps=self._told,
        )
        return made

    def _go_on(self, link: WorldLink, session: CloudSession) -> None:
        """Send a session's messages, and take its next job."""
        for message in session.data_to_send():
            link.answer(message)
        job = session.next_job(self._threshold.at(self._world.now))
        if job is not None:
            self._waiting.append((link, session, job))

    def _call(self) -> None:
        """Do the jobs that wait, unless the model is at others."""
        if self._busy or not self._waiting:
            return
        count = min(len(self._waiting), MOST_AT_ONCE)
        taken = [self._waiting.popleft() for _ in range(count)]
        rows = sum(job.wanted for _, _, job in taken)
        seconds = self._steps.verify(rows) if self._steps and rows else 0.0
        self._busy = True
        self._run(taken, seconds)

    def _run(
        self, taken: Sequence[tuple[WorldLink, CloudSession, Job]], left: float
    ) -> None:
        """Compute for so many more seconds of an idle machine."""
        busy = self._steps.busy if self._steps else 0.0
        if busy and left:
            slower = 1 + busy * self._world.drafting
            part = min(left, SLICE / slower)
            due, then = part * slower, partial(self._run, taken, left - part)
        else:
            due, then = left, partial(self._done, taken)
        self._world.at(self._world.now + due, then)

    def _done(self, taken: Sequence[tuple[WorldLink, CloudSession, Job]]) -> None:
        """Give the verdicts; a call begins once all have given their next jobs."""
        self._busy = False
        verdicts = self._verifier.verify([job for _, _, job in taken])
        for (_, session, job), verdict in zip(taken, verdicts, strict=True):
            before = session.text_length
            session.complete(job, verdict)
            self._threshold.count(session.text_length - before, self._world.now)
        for link, session, _ in taken:
            self._go_on(link, session)
        self._call()


class WorldLink:
    """A link by datagrams to a cloud of the same world.

    Its directions are `up` and `down`.
    """

    overhead = HEADERS + RECORD
    max_message = MAX_MESSAGE

    def __init__(
        self, world: World, cloud: Cloud, up: Way, down: Way, *, reliable: bool = False
    ) -> None:
        self._world, self._cloud = world, cloud
        self._up, self._down = up, down
        self._inbox: deque[bytes] = deque()
        self.reliable = reliable
        """Whether messages need no repetition; datagrams aren't reliable."""
        self.session: CloudSession | None = None
        """The cloud's."""
        self.sent = self.received = 0
        self.closed = False

    def send(self, message: bytes) -> None:
        """Send a message; its fate depends on the link."""
        self._check()
        assert len(message) <= self.max_message
        self.sent += len(message) + self.overhead
        for due, data in self._up.pass_on(message + bytes(RECORD), self._world.now):
            self._world.at(due, partial(self._cloud.take, data[:-RECORD], self))

    def answer(self, message: bytes) -> None:
        for due, data in self._down.pass_on(message + bytes(RECORD), self._world.now):
            self._world.at(due, partial(self._inbox.append, data[:-RECORD]))

    @property
    def is_ready(self) -> bool:
        return bool(self._inbox) or self.closed

    def receive(self, timeout: float | None) -> bytes | None:
        """Return the next message; None if none came within `timeout` seconds."""
        self._check()
        assert timeout is not None
        if not self._inbox:
            self._world.sleep(timeout, self)
            self._check()
        if not self._inbox:
            return None
        message = self._inbox.popleft()
        self.received += len(message) + self.overhead
        return message

    def wake(self) -> None:
        """Do nothing: in a world only events wake anybody."""

    def close(self) -> None:
        self.closed = True

    def _check(self) -> None:
        if self.closed:
            raise LinkError("the link broke")


def ways(link: Link = GOOD, seed: int | Sequence[int] = 0) -> tuple[Way, Way]:
    """Return the directions of a link, up and down, with their chances by a seed."""
    up, down = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(2))
    return Way(link, True, up), Way(link, False, down)
