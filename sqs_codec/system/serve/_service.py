"""Many sessions over one engine, for any transport."""

import asyncio
import functools
import hashlib
import hmac
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import get_args

from sqs_codec import Prior, PriorName, Verdict
from sqs_codec._base import checks
from sqs_codec.system._base.access import check_token
from sqs_codec.system._base.crowd import first_of_crowd
from sqs_codec.system._base.protocol import HELLO
from sqs_codec.system.engine import Engine, EngineInfo
from sqs_codec.system.serve._connection import Connection, Owner, Session, Work
from sqs_codec.system.serve._metrics import ServiceMetrics
from sqs_codec.system.serve._threshold import HintThreshold, PassTimes
from sqs_codec.system.session import CloudSession, Job, Limits, VerifyHints
from sqs_codec.system.session.transport import session_of, unknown_session

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 20.0
"""Time limit of a connection without a session. Over a slow link, a hello takes
seconds."""

SPARE = 16  # `max_sessions` plus this many connections may have no session

SILENT_SECONDS = 30.0
"""A new session may replace one that was silent for this long. A live edge reconnects;
a phone that has vanished doesn't."""

PROGRESS_SECONDS = 1.0  # interval of progress messages during a prefill
TOGETHER_SECONDS = 0.003  # a text waits for its request: edges send both at once

SHUTDOWN = "the server is shutting down"

WITHDRAWN = "access token revoked"


class Service:
    """Sessions of many edges over one target model.

    Parameters
    ----------
    engine : Engine
        Runs the target model. The caller opens and closes it.
    info : EngineInfo
        The result of `engine.open`.
    tokens : collection of str or None
        The valid access tokens. A session belongs to the token that opened it. None
        lets everyone in.
    max_sessions : int, optional
        Maximum number of sessions. A new session replaces an idle or disconnected one,
        or one that was silent for 30 seconds. If the link of a session broke within a
        completion, its place is kept that long, and the new edge must try again.
    idle_seconds : float, optional
        Forget a session after this time without a message.
    steps : mapping of int to float or None
        Seconds of a forward pass by number of tokens, measured at the start. They set
        the initial threshold for hints and the initial times for the edges' planners;
        later forward passes update both.
    priors : sequence of Prior, optional
        Priors that edges may use, in addition to those of this package.

    Attributes
    ----------
    metrics : ServiceMetrics
    limits : Limits
    max_sessions : int
    """

    def __init__(
        self,
        engine: Engine,
        info: EngineInfo,
        *,
        limits: Limits | None = None,
        tokens: Collection[str] | None,
        max_sessions: int = 64,
        idle_seconds: float = 600.0,
        steps: Mapping[int, float] | None = None,
        priors: Sequence[Prior] = (),
    ) -> None:
        self.limits = Limits() if limits is None else limits
        self.max_sessions = checks.in_range("max_sessions", max_sessions, 1)
        self.metrics = ServiceMetrics(info.summary, self.health)
        self._engine = engine
        self._info, self._places = info, info.places
        self._owners = None if tokens is None else _digests(tokens)
        self._idle_seconds = checks.finite("idle_seconds", idle_seconds, 0.01, 1e9)
        self._passes = PassTimes(steps)
        self._threshold = HintThreshold(steps)
        # Load the package's priors now, or the first session would wait for them.
        self._priors = (*map(Prior.builtin, get_args(PriorName)), *priors)
        self._known: dict[str, Owner] = {}
        self._sessions: dict[bytes, Session] = {}
        self.metrics.sessions.set_function(
            lambda: sum(not one.cloud.freed_place for one in [*self._sessions.values()])
        )
        self._connections: dict[Connection, None] = {}  # oldest first
        self._work: set[Work] = set()
        self._stopping = False
        self._waiting = 0.0  # time until which a broken link may still free a place

    def __repr__(self) -> str:
        return (
            f"<Service of {self._info.summary or type(self._engine).__name__}: "
            f"{len(self._sessions)} of at most {self.max_sessions} sessions>"
        )

    async def start(self) -> None:
        """Start in the present event loop, which must be the engine's."""
        self._loop = asyncio.get_running_loop()
        self._sweep()

    async def stop(self, grace: float) -> None:
        """Let running jobs finish for `grace` seconds, then close all connections."""
        self._stopping = True
        if self._work:
            await asyncio.wait(self._work, timeout=grace)
        if self._work:
            log.warning("canceling jobs that still run after %g seconds", grace)
        for connection in list(self._connections):
            connection.end("shutdown", SHUTDOWN)
        self._sweeper.cancel()
        for work in self._work:
            work.cancel()

    def health(self) -> str | None:
        """Return why the server can't verify now, or None if it can."""
        return SHUTDOWN if self._stopping else self._engine.health()

    def renew(self, tokens: Collection[str]) -> int:
        """Replace the access tokens; return how many sessions of old ones it ended.

        A ValueError for an empty collection or an invalid token changes nothing.
        """
        self._owners = _digests(tokens)
        gone = {each for name, each in self._known.items() if name not in self._owners}
        for connection in [c for c in self._connections if c.owner in gone]:
            connection.refuse("token", WITHDRAWN)
        sessions = [each for each in self._sessions.values() if each.owner in gone]
        for session in sessions:
            self._drop(session)
        for owner in gone:
            del self._known[owner.name]
        return len(sessions)

    def authorize(self, token: str | None) -> str | None:
        """Return the owner of an access token, or None if it is invalid.

        The time that it takes reveals nothing about the valid tokens.
        """
        if self._owners is None:
            return ""
        digest = _digest(token or "")
        known = [hmac.compare_digest(digest, owner) for owner in self._owners]
        if any(known):
            return digest
        self.metrics.refused.labels("token").inc()
        return None

    def connect(
        self, owner: str, send: Callable[[bytes], None], close: Callable[[str], None]
    ) -> Connection:
        """Add a connection of an owner from `authorize`.

        `send` sends a message to the peer; it must not wait or raise. `close` takes a
        reason and closes the connection after everything was sent.
        """
        connection = Connection(
            self._known.setdefault(owner, Owner(owner)),
            functools.partial(self._deliver, send),
            close,
            on_message=self._receive,
            on_end=self._leave,
        )
        self._connections[connection] = None
        self._await_hello(connection)
        waiting = [c for c in self._connections if c.session is None]
        if len(waiting) > (most := self.max_sessions + SPARE):
            oldest = first_of_crowd(waiting, lambda c: c.owner)
            oldest.end("sessions", f"more than {most} connections have no session")
        if self._stopping:
            self._loop.call_soon(connection.end, "shutdown", SHUTDOWN)
        return connection

    def _await_hello(self, connection: Connection) -> None:
        why = "silent", f"no session was opened within {HANDSHAKE_SECONDS:g} seconds"
        later = self._loop.call_later
        connection.timer = later(HANDSHAKE_SECONDS, connection.end, *why)

    def _receive(self, connection: Connection, message: bytes) -> None:
        if self._stopping:
            return
        self.metrics.received.inc(len(message))
        if len(message) > self.limits.max_message:
            size, most = len(message), self.limits.max_message
            why = f"a message has {size} bytes, the server takes at most {most}"
            connection.refuse("size", why)
        elif message[:1] == bytes([HELLO]):  # valid or not
            self._greet(connection, message)
        if connection.refused is not None:
            return
        session = connection.session
        if session is None:
            connection.send(unknown_session())
            return
        session.heard = self._loop.time()
        session.cloud.receive(message)
        self._pump(session)

    def _greet(self, connection: Connection, hello: bytes) -> None:
        """Find or open the session that a hello names, or refuse it."""
        session_id = session_of(hello)
        if session_id is None:
            words = self._cloud(bytes(16))
            words.receive(hello)  # sets the reason
            return connection.refuse("hello", words.refused or "not a valid hello")
        session = self._sessions.get(session_id)
        if connection.session not in (None, session):
            return connection.refuse("hello", "a connection has one session at a time")
        if session is None:
            if not self._make_room():
                most = self.max_sessions
                why = f"the server is full ({most} of {most} sessions)"
                now = self._loop.time()
                if any(each.connection is None for each in self._sessions.values()):
                    self._waiting = now + SILENT_SECONDS
                close = connection.end if now < self._waiting else connection.refuse
                return close("sessions", f"{why}; try again later")
            session = self._open(session_id, connection.owner)
        elif session.owner != connection.owner:
            why = "the session belongs to another access token"
            return connection.refuse("owner", why)
        if session.connection not in (None, connection):
            session.connection.end("replaced", "the session moved to a new connection")
        session.connection, connection.session = connection, session
        if connection.timer is not None:
            connection.timer.cancel()
        return None

    def _make_room(self) -> bool:
        """If the server is full, forget an idle or silent session; False if none is."""
        if len(self._sessions) < self.max_sessions:
            return True
        since = self._loop.time() - SILENT_SECONDS
        going = [
            one
            for one in self._sessions.values()
            if one.cloud.freed_place
            or (one.connection is None and not one.cloud.holds_place)
            or (one.work is None and one.heard < since)
        ]
        if going:
            gone = min(
                going,
                key=lambda s: (bool(s.connection), s.cloud.holds_place, s.heard),
            )
            self._give_up(gone, "idle", "the session was idle; another took its place")
        return bool(going)

    def _open(self, session_id: bytes, owner: Owner) -> Session:
        cloud = self._cloud(session_id)
        session = Session(cloud, session_id, owner, self._loop.time())
        self._sessions[session_id] = session
        if 0 < self._places < len(self._sessions):
            log.warning(
                "more than %d sessions don't fit into memory, so prompts are prefilled "
                "again; raise --max-memory (or ctx-size), or lower --max-sessions",
                self._places,
            )
            self._places = 0  # warn once
        return session

    def _cloud(self, session_id: bytes) -> CloudSession:
        return CloudSession(
            session_id,
            limits=self.limits,
            tokenizer=self._info.tokenizer,
            vocab_size=self._info.vocab_size,
            max_text=self._info.max_text,
            steps=self._passes.told,
            priors=self._priors,
        )

    def _drop(self, session: Session) -> None:
        """Forget a session; its connection may open another."""
        del self._sessions[session.id]
        if session.work is not None:
            session.work.cancel()
        self._engine.drop(session.id)
        connection, session.connection = session.connection, None
        if connection is not None:
            connection.session = None
            self._await_hello(connection)

    def _leave(self, connection: Connection, kind: str | None) -> None:
        """Detach a connection that ends or has ended."""
        if kind is not None:
            self.metrics.refused.labels(kind).inc()
        if self._connections.pop(connection, False) is None:
            connection.leave()
        if connection.timer is not None:
            connection.timer.cancel()
        session, connection.session = connection.session, None
        if session is not None:
            session.connection = None

    def _deliver(self, send: Callable[[bytes], None], message: bytes) -> None:
        self.metrics.sent.inc(len(message))
        send(message)

    def _pump(self, session: Session) -> None:
        """Send a session's messages, and start its next job."""
        reason, connection = session.cloud.refused, session.connection
        messages = session.cloud.data_to_send()
        if reason is not None:
            self._drop(session)
            if connection is not None:
                connection.refuse("session", reason, messages)
            return
        if connection is not None:  # without one they are lost, and the edge asks again
            for message in messages:
                connection.send(message)
        if session.cloud.ended:
            self._drop(session)
        elif session.connection is None or self._stopping:
            return  # don't compute for a disconnected edge
        elif session.work is not None and session.cloud.overtaken:
            session.work.cancel()  # `_done` continues
        elif job := session.cloud.next_job(self._threshold.at(self._loop.time())):
            work = self._loop.create_task(self._verify(job))
            work.add_done_callback(
                functools.partial(self._done, session, job, self._loop.time())
            )
            session.work = work
            self._work.add(work)
            self.metrics.jobs.set(len(self._work))

    async def _verify(self, job: Job) -> Verdict | None:
        if not job.wanted:  # if the request arrives now, the next job has both
            await asyncio.sleep(TOGETHER_SECONDS)
        return await self._engine.verify(job)

    def _done(self, session: Session, job: Job, began: float, work: Work) -> None:
        self._work.discard(work)
        self.metrics.jobs.set(len(self._work))
        if session.work is work:
            session.work = None
            session.heard = self._loop.time()  # an edge that waits is not silent
        known = self._sessions.get(job.session) is session
        if work.cancelled() and (self._stopping or not known):
            return
        if work.cancelled() and session.cloud.overtaken:
            session.cloud.fail(job)
            return self._pump(session)
        # The engine itself canceled the job: that is a failure.
        error = asyncio.CancelledError() if work.cancelled() else work.exception()
        took = self._loop.time() - began
        self.metrics.job_seconds.observe(took)
        if error is None and job.wanted:
            self._passes.count(job.wanted, took)
        if not known:
            return
        if error is None:
            error = self._complete(session, job, work.result())
        if error is not None:
            self.metrics.failures.inc()
            reason = self._engine.health()
            if reason is not None:
                self._give_up(session, "engine", f"the server can't verify: {reason}")
                return
            log.warning("the engine failed on a job: %r", error)
            session.cloud.fail(job)  # the session repeats the job or gives up
        self._pump(session)

    def _complete(
        self, session: Session, job: Job, verdict: Verdict | None
    ) -> Exception | None:
        """Apply and count a verdict, or return the error of an invalid one."""
        length = session.cloud.text_length
        try:
            session.cloud.complete(job, verdict)
        except (TypeError, ValueError) as error:
            return error
        fresh = session.cloud.text_length - length
        self.metrics.tokens.inc(fresh)
        self._threshold.count(fresh, self._loop.time())
        if fresh and job.drafted and verdict is not None:
            # The edge can't tell whether the last token was hinted: don't count it.
            accepted = min(verdict.accepted, fresh - (isinstance(job, VerifyHints)))
            rejected = verdict.accepted < min(len(job.drafted), fresh)
            self.metrics.count_draft(len(job.drafted), accepted, rejected)
        return None

    def _give_up(self, session: Session, kind: str, reason: str) -> None:
        """Forget a session; its edge may reconnect here or elsewhere."""
        connection = session.connection
        self._drop(session)
        if connection is not None:
            connection.end(kind, reason)

    def _sweep(self) -> None:
        """Forget idle sessions, and send the progress of prefills."""
        self._sweeper = self._loop.call_later(PROGRESS_SECONDS, self._sweep)
        now = self._loop.time()
        for session in [*self._sessions.values()]:
            if now - session.heard > self._idle_seconds and session.work is None:
                why = f"no message for {self._idle_seconds:g} seconds"
                self._give_up(session, "idle", why)
        for session_id, read in self._engine.progress().items():
            reading = self._sessions.get(session_id)
            if reading is not None and not reading.cloud.overtaken:
                reading.cloud.tell_progress(read)
                self._pump(reading)


def _digests(tokens: Collection[str]) -> list[str]:
    if isinstance(tokens, str) or not tokens:
        raise ValueError("tokens must be a collection of at least one token, or None")
    for token in tokens:
        check_token(token)
    return [*map(_digest, tokens)]


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
