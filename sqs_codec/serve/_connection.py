"""One connection of a transport, as the service and the transport see it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from sqs_codec.session._wire import Refusal

__all__ = ["Connection"]

log = logging.getLogger(__name__)


class Connection:
    """A connection of a transport to a `Service`, which makes it.

    All is to be called in the service's event loop.

    Parameters
    ----------
    owner : str
        Whose token it came with.
    send : callable
        Sends a message to the peer. It must not wait, nor raise.
    close : callable or None
        Closes the connection, with a reason for the peer.
    on_message : callable
        Takes the connection and a message of the peer.
    on_end : callable
        Takes the connection and one word on why it ends, None if the peer has left.

    Attributes
    ----------
    owner
        As given.
    refused : str or None
        Why the service wants it closed.
    """

    def __init__(
        self,
        owner: str,
        send: Callable[[bytes], None],
        close: Callable[[str], None] | None,
        *,
        on_message: Callable[[Connection, bytes], None],
        on_end: Callable[[Connection, str | None], None],
    ) -> None:
        self.owner = owner
        self.refused: str | None = None
        self.send = send
        self._close = close
        self._on_message = on_message
        self._on_end = on_end

    def __repr__(self) -> str:
        state = "open" if self.refused is None else f"refused: {self.refused}"
        return f"<Connection, {state}>"

    def receive(self, message: bytes) -> None:
        """Take a message of the peer. It never raises for what a peer sends."""
        if self.refused is not None:
            return
        try:
            self._on_message(self, message)
        except Exception:
            log.exception("a message of %d bytes", len(message))
            self.refuse("error", "the server failed on this message; it is in its log")

    def refuse(
        self, kind: str, reason: str, messages: Sequence[bytes] | None = None
    ) -> None:
        """Tell the peer why it is refused, for good, and close the connection.

        Parameters
        ----------
        kind : str
            One word, for the metrics.
        reason : str
            Words for people.
        messages : sequence of bytes, optional
            That tell it; a refusal if None.
        """
        if self.refused is None:
            self.refused = reason  # so that a transport knows when it is sent this
            for message in messages or [Refusal(reason).to_bytes()]:
                self.send(message)
            self._end(kind, reason)

    def end(self, kind: str, reason: str) -> None:
        """Close the connection; the peer may come again."""
        if self.refused is None:
            self.refused = reason
            self._end(kind, reason)

    def close(self) -> None:
        """Say that the connection is gone. Its session stays for some time."""
        self.refused = self.refused or "closed"
        self._on_end(self, None)

    def _end(self, kind: str, reason: str) -> None:
        log.info("closing a connection (%s): %r", kind, reason)
        self._on_end(self, kind)
        if self._close is not None:
            self._close(reason)
