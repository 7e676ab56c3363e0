"""What an edge session's messages travel on."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Link", "LinkError"]


class LinkError(ConnectionError):
    """A link that can't be made or is gone; the message says why and what to do."""


class Link(Protocol):
    """A connection to a cloud, over which whole messages travel both ways.

    One thread uses it at a time, but any may `wake` it. `send` and `receive` raise
    `LinkError` once the connection is gone, and nothing else does; then another link
    has to be made.
    """

    @property
    def reliable(self) -> bool:
        """Whether messages arrive once and in order while the link is there.

        Otherwise a message may be lost, come twice, or late; none is altered.
        """

    @property
    def max_message(self) -> int:
        """How many bytes a message may have."""

    @property
    def sent(self) -> int:
        """Bytes of the messages sent so far, without what the transport adds."""

    @property
    def received(self) -> int:
        """Bytes of the messages received so far, likewise."""

    @property
    def overhead(self) -> int:
        """Bytes that transport and IP put around a small message that is sent.

        The acknowledgement of its answer is counted too. A constant, for planning.
        """

    def send(self, message: bytes) -> None:
        """Send a message. It may wait while the link is busy."""

    def receive(self, timeout: float | None) -> bytes | None:
        """Return the next message; None if none came within `timeout` seconds.

        With a timeout of 0 it doesn't wait, with None it waits for ever. `wake` has it
        return None before.
        """

    def wake(self) -> None:
        """Have the `receive` that waits, or else one that comes, return None at once.

        From any thread, and also when the link is closed.
        """

    def close(self) -> None:
        """Close the link. To do it twice does no harm."""
