"""One connection, between a transport and the service."""

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

Work = asyncio.Task[Verdict | None]  # a running job of the engine

SHARE = 0.05
"""Share of the event loop's time that a connection's messages may take. Those of a
round take 0.2 ms."""

OWNER_SHARE = 0.5  # share for all connections of an owner together
MESSAGE_SECONDS = 5e-5  # processor time of a transport per message


class Owner:
    """Owner of connections; reconnecting doesn't clear what a connection used up."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._connections = 0
        self._all = Share()
        self._left: list[Share] = []

    def open(self) -> Share:
        self._connections += 1
        self._left.sort(key=lambda share: share.until)
        return self._left.pop() if self._left else Share()

    def close(self, share: Share) -> None:
        self._connections -= 1
        self._left = [share for share in self._left if not share.full]
        self._left.append(share)  # the next connection inherits what is owed

    def charge(self, share: Share, seconds: float) -> None:
        """Charge a connection for the processor time of a message."""
        self._all.use(seconds / OWNER_SHARE)
        part = SHARE
        if self._all.wait_seconds > 0:
            part = min(SHARE, OWNER_SHARE / max(self._connections, 1))
        share.use(seconds / part)


@dataclass(eq=False)
class Session:
    cloud: CloudSession
    id: bytes
    owner: Owner
    heard: float
    connection: Connection | None = None
    work: Work | None = None


class Connection:
    """A connection to a `Service`, in its event loop; `on_end` gets why it ends."""

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
        self.refused: str | None = None  # why the service closes it
        self.session: Session | None = None
        self.timer: asyncio.TimerHandle | None = None  # runs while it has no session
        self.send = send
        self._share = owner.open()
        self._close = close
        self._on_message = on_message
        self._on_end = on_end

    def receive(self, message: bytes) -> None:
        """Process a message from the peer. No message raises an error."""
        if self.refused is not None:
            return
        began = time.thread_time()
        try:
            self._on_message(self, message)
        except Exception:
            log.exception("failed on a message of %d bytes", len(message))
            self.refuse("error", "the server failed on a message; see its log")
        took = time.thread_time() - began + MESSAGE_SECONDS
        self.owner.charge(self._share, took)

    @property
    def wait_seconds(self) -> float:
        """Seconds until the peer's next message may be read, to keep to its share."""
        return self._share.wait_seconds

    def leave(self) -> None:
        """Remove the connection from its owner."""
        self.owner.close(self._share)

    def refuse(self, kind: str, reason: str, messages: Sequence[bytes] = ()) -> None:
        """Send a refusal and close; `kind` is the reason in the metrics."""
        self.end(kind, reason, messages or [refusal(reason)])

    def end(self, kind: str, reason: str, messages: Sequence[bytes] = ()) -> None:
        """Close the connection after some last messages; the peer may reconnect."""
        if self.refused is not None:
            return
        reason = shown(reason)  # it may quote the peer
        self.refused = reason  # set first: the transport looks at it while sending
        try:
            for message in messages:
                self.send(message)
        finally:  # free the place, whatever happens
            log.info("closing a connection (%s): %s", kind, reason)
            self._on_end(self, kind)
            self._close(reason)

    def close(self) -> None:
        """Note that the peer has disconnected. Its session stays for some time."""
        self.refused = self.refused or "closed"
        self._on_end(self, None)
