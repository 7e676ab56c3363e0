"""The edge's connection to the cloud: it reconnects, and repeats lost messages."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence

from sqs_codec.system.session import EdgeSession, Emitted, Link, LinkError
from sqs_codec.system.session.transport import unknown_session

RESENDS = 5
"""Resends without an answer after which the edge leaves an unreliable link."""

SILENCE = 3.0
"""Seconds without an answer after which the edge asks again on a reliable link, and
after as many again leaves it. Sent bytes add their time at `THINNEST`: after a round of
300 bytes, a dead path delays a completion by at most 12 s. A busy cloud answers."""

THINNEST = 250.0  # bytes per second of the slowest link that is supported, 2 kbit/s

Begin = Callable[..., EdgeSession]  # makes a session for a given `max_message`

log = logging.getLogger(__name__)

FAREWELL_SECONDS = 2.0
"""Time limit for repeating a farewell on an unreliable link. Repeating ends earlier if
the cloud confirms that it has forgotten the session."""

SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two attempts to connect; they double."""


class RefusalError(RuntimeError):
    """The cloud refused the session.

    Attributes
    ----------
    reason : str
        The cloud's message.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the cloud refused the session: {reason}")
        self.reason = reason


class Timeout:
    """The retransmission timer of RFC 6298."""

    FIRST = 1.0  # seconds, before a round-trip time was measured
    LEAST = 0.1  # seconds above the mean, at least: forward passes vary
    MOST = 10.0  # seconds, at most
    SLOWEST = 1250.0
    """Bytes per second, 10 kbit/s: the time allowed for long messages."""

    def __init__(self) -> None:
        self.mean: float | None = None  # of measured round-trip times, in seconds
        self._deviation = 0.0
        self._backoff = 1

    def seconds(self, size: int) -> float:
        """Return how long to wait for the answer to `size` bytes."""
        base = self.FIRST
        if self.mean is not None:
            base = self.mean + max(4 * self._deviation, self.LEAST)
        return min((base + size / self.SLOWEST) * self._backoff, self.MOST)

    def learn(self, seconds: float) -> None:
        """Learn a measured round-trip time of a message that was sent once.

        Only this resets the backoff. Otherwise a cloud that is slower than the first
        guess would get each message twice.
        """
        self._backoff = 1
        if self.mean is None:
            self.mean, self._deviation = seconds, seconds / 2
        else:
            self._deviation += (abs(seconds - self.mean) - self._deviation) / 4
            self.mean += (seconds - self.mean) / 8

    def double(self) -> None:
        if self.seconds(0) < self.MOST:
            self._backoff *= 2

    def reset(self) -> None:
        """Forget the backoff, for a new link."""
        self._backoff = 1


class Line:
    """A session with its link, which is replaced when it breaks."""

    def __init__(
        self,
        connect: Link | Callable[[], Link],
        begin: Begin,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.connect = connect if callable(connect) else None
        self.clock, self._sleep = clock, sleep
        self._sent = self._received = 0  # bytes of earlier links, not yet counted
        self._timeout = Timeout()
        self.about: object = None  # which completions the session can continue with
        self.trip: float | None = None  # seconds of the last handshake
        self._open(connect() if callable(connect) else connect, begin, patience)

    def _open(self, link: Link, begin: Begin, patience: float) -> None:
        """Make a session that fits the link's size of messages."""
        self._link: Link | None = link
        try:
            self.session = begin(max_message=link.max_message)
            self._fit(link)
        except BaseException:
            link.close()
            raise
        self._start(patience)

    def renew(self, begin: Begin, patience: float) -> None:
        """End the session and begin another, on a link without messages of the old."""
        link = self._link
        if link is None or not (self._say_farewell(link, wait=True) and link.reliable):
            self._drop()
            assert self.connect is not None  # or the line wouldn't have rested
            link = self.connect()
        self._open(link, begin, patience)

    def resume(self, text: Sequence[int], patience: float) -> bool:
        """Continue with another text; False if session or cloud reject it."""
        self._start(patience)
        self._rested = True
        self.session.hold_place()
        try:
            self.session.abort(text)
            self._receive(0)  # late messages about the old text
            self.greet()
        except (ValueError, LinkError, RefusalError):
            return False
        return True

    def _start(self, patience: float) -> None:
        self._patience = patience
        self.is_due = False  # whether the cloud owes an answer
        self._size = 0  # bytes sent since the cloud's last message
        self._last = self.clock()  # when a message was last sent or received
        # When the cloud last made progress, or an answer became due. Time in which the
        # caller doesn't wait for the cloud is added.
        self._moved = self._waited = self._last  # the latter: end of the last wait
        self._first: float | None = None  # when the message was sent, if only once
        self._failing: float | None = None  # since when all attempts have failed
        self._resends = 0
        self._told = False  # whether the log says that the link broke
        self._pause = SHORTEST_PAUSE
        self._rested = False  # whether an idle link hasn't proved that it still works

    def count(self) -> tuple[int, int]:
        """Return the bytes sent and received since the last call, over all links."""
        link = self._link
        up = self._sent + (link.sent if link else 0)
        down = self._received + (link.received if link else 0)
        self._sent, self._received = self._sent - up, self._received - down
        return up, down

    def greet(self) -> None:
        self.transmit()
        while self.session.state == "greeting":
            self.wait()

    def transmit(self) -> None:
        while True:
            try:
                if self._link is None:
                    assert self.connect is not None  # otherwise `_leave` has raised
                    self._link = self._fit(self.connect())
                    self._moved, self._rested = self.clock(), False
                for message in self.session.data_to_send():
                    self._link.send(message)
                    self._note(self._link, message)
                return
            except LinkError as error:
                self._leave(error)

    def _fit(self, link: Link) -> Link:
        """Reject a link whose messages are smaller than the session's.

        This must not depend on the drafted tokens, or it would bias the text.
        """
        most = self.session.max_message
        if link.max_message < most:
            link.close()
            raise LinkError(
                f"the link takes messages of {link.max_message} bytes, the session's "
                f"may have {most}: set the session's max_message to the smaller number"
            )
        return link

    def poll(self) -> list[Emitted]:
        self.transmit()
        return self._receive(0)

    def wait(self) -> list[Emitted]:
        """Send, and wait for a message or until it is time to send again."""
        self.transmit()
        link = self._link
        assert link is not None  # `transmit` used it
        began, last = self.clock(), self._last
        self._moved = min(self._moved + began - self._waited, began)
        again = last + self._silence(link)
        # Look once even if that time is over: messages may have arrived meanwhile.
        limit = min(again, self._moved + self._patience)
        emitted = self._receive(max(limit - began, 0.0))
        self._waited = now = self.clock()
        if emitted or self._link is not link:
            return emitted
        if now >= self._moved + self._patience:
            raise LinkError(f"the cloud didn't answer within {self._patience:g} s")
        if now >= again and self._last == last:
            self._resend(link)
        return emitted

    def _silence(self, link: Link) -> float:
        """Return the seconds of silence after which the edge asks again."""
        if not link.reliable:
            return self._timeout.seconds(self._size)
        if self.connect is None or self.session.sending_text:
            return math.inf  # no other link, or a long text is still being sent
        return SILENCE + self._size / THINNEST

    def rest(self) -> bool:
        """Finish the completion; tell whether session and link can serve another."""
        if self._link is None or not self.session.free_place():
            return False
        with contextlib.suppress(LinkError):  # the next completion notices it
            for message in self.session.data_to_send():
                self._link.send(message)
        return True

    def close(self) -> None:
        """Tell the cloud that the session ends; close the link."""
        if (link := self._link) is not None:
            try:
                self._say_farewell(link, wait=not link.reliable)
            finally:
                link.close()

    def _say_farewell(self, link: Link, *, wait: bool = False) -> bool:
        """End the session, repeatedly on an unreliable link; tell if it's confirmed."""
        self.session.end()
        said = self.session.data_to_send()
        end = self.clock() + FAREWELL_SECONDS * wait
        with contextlib.suppress(LinkError):
            while said or link.reliable:
                for message in said:
                    link.send(message)
                pause = FAREWELL_SECONDS if link.reliable else self._timeout.seconds(0)
                again = min(end, self.clock() + pause)
                while (left := again - self.clock()) > 0:
                    if link.receive(left) == unknown_session():
                        return True
                if again == end:
                    break
                self._timeout.double()
        return False

    def _note(self, link: Link, message: bytes) -> None:
        """Record that a message was sent."""
        self._last = self.clock()
        self._size += len(message) + link.overhead * link.reliable
        if not self.is_due:
            self.is_due = True
            self._first = self._moved = self._last

    def _receive(self, timeout: float) -> list[Emitted]:
        """Wait for a message, process all that have arrived, return their events."""
        emitted: list[Emitted] = []
        try:
            while self._link and (message := self._link.receive(timeout)) is not None:
                if (fresh := self._take(message)) is not None:
                    emitted.append(fresh)
                timeout = 0
        except LinkError as error:
            self._leave(error)
        return emitted

    def _take(self, message: bytes) -> Emitted | None:
        progress, welcomes = self.session.progress, self.session.welcomes
        emitted = self.session.receive(message)
        if self.session.refused is not None:
            raise RefusalError(self.session.refused)
        self._last = self.clock()
        self._size = self._resends = 0
        if self.session.welcomes > welcomes and self._first is not None:
            self.trip = self._last - self._first
        # Other messages aren't progress: a cloud could send them forever.
        if emitted is not None or self.session.progress > progress:
            self._moved, self._failing = self._last, None
            if self._told:
                log.warning("the cloud answers again; the completion continues")
            self._told = False
        if emitted is not None:
            self._pause, self._rested = SHORTEST_PAUSE, False
        # After a resend, the answer could be to either message.
        if self._first is not None:
            self._timeout.learn(self._last - self._first)
        self._first = None
        self.is_due = self.session.waiting
        return emitted

    def _resend(self, link: Link) -> None:
        """Send again, or leave the link after too many attempts."""
        self._first = None
        if self._failing is None:
            self._failing = self._last
        if self._resends == (1 if link.reliable else RESENDS):
            self._leave(LinkError("no answer, also after sending again"))
            return
        self._resends += 1
        self._size *= not link.reliable  # a reliable link has delivered it by now
        self._timeout.double()
        self.session.resend()

    def _leave(self, error: LinkError) -> None:
        """Close a broken link, and pause before the next attempt.

        LinkError if there is no way to connect, or attempts have failed for too long.
        """
        link, now = self._link, self.clock()
        self._drop()
        if self._rested and link is not None:
            return
        if self._failing is None:
            self._failing = now
        if self.connect is None or self._rested:
            raise error
        if now - self._failing >= self._patience:
            raise LinkError(
                f"no answer from the cloud for {now - self._failing:.0f} s: {error}"
            ) from error
        if not self._told:
            log.warning("%s; retrying for %g s", error, self._patience)
            self._told = True
        self._sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _drop(self) -> None:
        """Close the link and count its bytes."""
        if (link := self._link) is not None:
            self._link = None
            link.close()
            self._sent += link.sent
            self._received += link.received
        self._first = None
        self._size = self._resends = 0
        self._timeout.reset()
        self.session.reconnect()
