"""An edge's way to the cloud: a link that is made anew, and a timer where it loses."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence

from sqs_codec.system.session import EdgeSession, Emitted, Link, LinkError
from sqs_codec.system.session.transport import unknown_session

RESENDS = 5
"""After so many resends without a word, a link that may lose messages is dropped."""

SILENCE, THINNEST = 3.0, 250.0
"""Seconds until the edge asks again on a link that loses nothing, and then until it
leaves the link, besides those of what was sent at 2 kbit/s, in bytes a second. After a
round of 300 bytes that is 10 s: a path that died holds a text up for 12 s at most. A
cloud whose model is busy answers."""

Begin = Callable[..., EdgeSession]  # makes one for links with such a `max_message`

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


class Timeout:
    """How long to wait for an answer before sending again, as in RFC 6298."""

    LEAST, MOST = 0.1, 10.0  # seconds: beyond the mean, as for a longer pass; in all
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
            base = self.mean + max(4 * self._deviation, self.LEAST)
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


class Line:
    """An edge's link for its texts, made anew where it breaks, with a timer."""

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
        self._sent = self._received = 0  # over the links before it, not yet counted
        self._timeout = Timeout()
        self.about: object = None  # as what texts its session can take
        self.trip: float | None = None  # of the last handshake, in seconds
        self._open(connect() if callable(connect) else connect, begin, patience)

    def _open(self, link: Link, begin: Begin, patience: float) -> None:
        """Begin a session, which is made when the size of messages is known."""
        self._link: Link | None = link
        try:
            self.session = begin(max_message=link.max_message)
            self._fit(link)
        except BaseException:
            link.close()
            raise
        self._start(patience)

    def renew(self, begin: Begin, patience: float) -> None:
        """End the session and begin another, on a link without words of the old one."""
        link = self._link
        if link is None or not (self._say_farewell(link, wait=True) and link.reliable):
            self._drop()
            assert self.connect is not None  # or the line wouldn't have rested
            link = self.connect()
        self._open(link, begin, patience)

    def resume(self, text: Sequence[int], patience: float) -> bool:
        """Go on with another text; say if session and cloud take it."""
        self._start(patience)
        self._rested = True
        self.session.hold_place()
        try:
            self.session.abort(text)
            self._receive(0)  # what came of the text before
            self.greet()
        except (ValueError, LinkError, RefusalError):
            return False
        return True

    def _start(self, patience: float) -> None:
        self._patience = patience
        self.is_due = False  # whether a word from the cloud is
        self._size = 0  # of what was sent since its last word
        self._last = self.clock()  # when something was last sent or heard
        # When the cloud last got on, or became due; later by what nobody waited since.
        self._moved = self._waited = self._last  # and when it was last waited for
        self._first: float | None = None  # when, if it was sent once only
        self._failing: float | None = None  # since when nothing has worked
        self._resends = 0
        self._told = False  # whether the log says that the link broke
        self._pause = SHORTEST_PAUSE
        self._rested = False  # whether the link has, and nothing has come of it since

    def count(self) -> tuple[int, int]:
        """Return the bytes sent and received since the last time, over all links."""
        link = self._link
        up = self._sent + (link.sent if link else 0)
        down = self._received + (link.received if link else 0)
        self._sent, self._received = self._sent - up, self._received - down
        return up, down

    def greet(self) -> None:
        """Send, and wait until a cloud has taken the session."""
        self.transmit()
        while self.session.state == "greeting":
            self.wait()

    def transmit(self) -> None:
        """Send what the session has to send."""
        while True:
            try:
                if self._link is None:
                    assert self.connect is not None  # or `_leave` had raised
                    self._link = self._fit(self.connect())
                    self._moved, self._rested = self.clock(), False
                for message in self.session.data_to_send():
                    self._link.send(message)
                    self._note(self._link, message)
                return
            except LinkError as error:
                self._leave(error)

    def _fit(self, link: Link) -> Link:
        """Refuse a link that might not take what was drafted for another one.

        It must not depend on what was drafted.
        """
        most = self.session.max_message
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
        began, last = self.clock(), self._last
        self._moved = min(self._moved + began - self._waited, began)
        again = last + self._silence(link)
        # Also if it is late: what came while nobody looked isn't silence.
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
        """Return how long a link may be silent before the edge asks again."""
        if not link.reliable:
            return self._timeout.seconds(self._size)
        if self.connect is None or self.session.sending_text:
            return math.inf  # no other link, or a text of many messages on its way
        return SILENCE + self._size / THINNEST

    def rest(self) -> bool:
        """Let the text go; say if session and link stay for another one."""
        if self._link is None or not self.session.free_place():
            return False
        with contextlib.suppress(LinkError):  # the next text finds out, too
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
        """End the session, again if that may be lost; say if the cloud has heard it."""
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
        """Remember that a message was sent now."""
        self._last = self.clock()
        self._size += len(message) + link.overhead * link.reliable
        if not self.is_due:
            self.is_due = True
            self._first = self._moved = self._last

    def _receive(self, timeout: float) -> list[Emitted]:
        """Wait for a message, take all there are, and return what they add."""
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
        # No other word is enough: a cloud could say it for ever, and never answer.
        if emitted is not None or self.session.progress > progress:
            self._moved, self._failing = self._last, None
            if self._told:
                log.warning("the cloud is there again; the text goes on")
            self._told = False
        if emitted is not None:
            self._pause, self._rested = SHORTEST_PAUSE, False
        # What was sent twice says nothing: which one was answered?
        if self._first is not None:
            self._timeout.learn(self._last - self._first)
        self._first = None
        self.is_due = self.session.waiting
        return emitted

    def _resend(self, link: Link) -> None:
        """Send again, or leave the link if that has been in vain too often."""
        self._first = None
        if self._failing is None:
            self._failing = self._last
        if self._resends == (1 if link.reliable else RESENDS):
            self._leave(LinkError("no answer, though the cloud was asked again"))
            return
        self._resends += 1
        self._size *= not link.reliable  # that had its time
        self._timeout.double()
        self.session.resend()

    def _leave(self, error: LinkError) -> None:
        """Close a broken link; after a pause another one can be tried.

        LinkError if none can be made, or nothing has worked for too long.
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
                f"no word from the cloud for {now - self._failing:.0f} s: {error}"
            ) from error
        if not self._told:
            log.warning("%s; trying again for %g s", error, self._patience)
            self._told = True
        self._sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _drop(self) -> None:
        """Close a link that is of no use any more."""
        if (link := self._link) is not None:
            self._link = None
            link.close()
            self._sent += link.sent
            self._received += link.received
        self._first = None
        self._size = self._resends = 0
        self._timeout.reset()
        self.session.reconnect()
