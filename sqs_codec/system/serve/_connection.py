"""One connection of a transport, as the service and the transport see it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqs_codec import Verdict
from sqs_codec._base.words import shown
from sqs_codec.system._base.crowd import Share
from sqs_codec.system.session import CloudSession
from sqs_codec.system.session.transport import refusal

log = logging.getLogger(__name__)

Work = asyncio.Task[Verdict | None]  # a job that the engine is at

SHARE = 0.05
"""What the messages of a connection may take of the event loop's time. Those of a round
take 0.2 ms of it."""

OWNER_SHARE = 0.5  # what all connections of an owner may take together

MESSAGE_SECONDS = 5e-5
"""Processor time that a transport takes for a message, besides the service."""


class Owner:
    """Who owns connections, so that one who owes can't begin again with a new one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._connections = 0
        self._all = Share()
        self._left: list[Share] = []

    def open(self) -> Share:
        """Add a connection and return its share."""
        self._connections += 1
        self._left.sort(key=lambda share: share.until)
        return self._left.pop() if self._left else Share()

    def close(self, share: Share) -> None:
        """Remove a connection."""
        self._connections -= 1
        self._left = [share for share in self._left if not share.full]
        self._left.append(share)  # what ends the connection is still to be paid

    def charge(self, share: Share, seconds: float) -> None:
        """Take that a message of a connection took so much processor time."""
        self._all.use(seconds / OWNER_SHARE)
        part = SHARE
        if self._all.wait_seconds > 0:
            part = min(SHARE, OWNER_SHARE / max(self._connections, 1))
        share.use(seconds / part)


@dataclass(eq=False)
class Session:
    """A session, and who may speak for it."""

    cloud: CloudSession
    id: bytes
    owner: Owner
    heard: float
    connection: Connection | None = None
    work: Work | None = None


class Connection:
    """A connection to a `Service`, in its event loop; `on_end` gets any reason."""

    def __init__(
        self,
        owner: Owner,
        send: Callable[[bytes], None],
        close: Callable[[str], None],
        *,
        on_message: Callable[[Connection, bytes], None],
        on_end: Callable[[Connection, str | None], None],
    ) -> None:
        self.owner = owner
        self.refused: str | None = None  # why the service wants it closed
        self.session: Session | None = None
        self.timer: asyncio.TimerHandle | None = None  # while it has no session
        self.send = send
        self._share = owner.open()
        self._close = close
        self._on_message = on_message
        self._on_end = on_end

    def receive(self, message: bytes) -> None:
        """Take a message of the peer. It never raises for what a peer sends."""
        if self.refused is not None:
            return
        began = time.thread_time()
        try:
            self._on_message(self, message)
        except Exception:
            log.exception("a message of %d bytes", len(message))
            self.refuse("error", "the server failed on this message; it is in its log")
        took = time.thread_time() - began + MESSAGE_SECONDS
        self.owner.charge(self._share, took)

    @property
    def wait_seconds(self) -> float:
        """How long the peer's next message has to wait for what the last ones took."""
        return self._share.wait_seconds

    def leave(self) -> None:
        """Let its owner have one connection less."""
        self.owner.close(self._share)

    def refuse(self, kind: str, reason: str, messages: Sequence[bytes] = ()) -> None:
        """Tell the peer why it is refused and close; `kind` is for the metrics."""
        self.end(kind, reason, messages or [refusal(reason)])

    def end(self, kind: str, reason: str, messages: Sequence[bytes] = ()) -> None:
        """Close the connection after some last messages; the peer may come again."""
        if self.refused is not None:
            return
        reason = shown(reason)  # it may quote the peer
        self.refused = reason  # so that a transport knows when it is sent these
        try:
            for message in messages:
                self.send(message)
        finally:  # whatever happens, its place is freed
            log.info("closing a connection (%s): %s", kind, reason)
            self._on_end(self, kind)
            self._close(reason)

    def close(self) -> None:
        """Say that the connection is gone. Its session stays for some time."""
        self.refused = self.refused or "closed"
        self._on_end(self, None)
