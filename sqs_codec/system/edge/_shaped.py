"""A link that is made thin, to try out what one is like."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable

from sqs_codec._base import checks
from sqs_codec.system.session import Link, LinkError


class ShapedLink:
    """A `Link` over another one, thinned to a rate and a round trip.

    What is sent drips through a bucket of tokens, each message with what transport and
    IP put around it, and arrives half a round trip later; what comes back takes the
    other half, at any rate. A thread of its own has the other link, and closes it.

    Parameters
    ----------
    link : Link
        Nobody else may use it from now on.
    rate : float
        Bits a second to the cloud.
    trip : float
        Seconds of a round trip, besides what the other link takes.
    clock : callable
        As `time.monotonic`.
    """

    def __init__(
        self,
        link: Link,
        rate: float,
        trip: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = checks.finite("rate", rate, 1.0, 1e12)
        self._half = checks.finite("trip", trip, 0.0, 60.0) / 2
        self._link, self._clock = link, clock
        self.reliable, self.max_message = link.reliable, link.max_message
        self.overhead = link.overhead
        self._up: deque[tuple[float, bytes]] = deque()  # by when they are due
        self._down: deque[tuple[float, bytes]] = deque()
        self._free = 0.0  # when all that was sent has left
        self._woken = False
        self._error: Exception | None = None  # why it is over
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="sqs-link", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<ShapedLink of {self._rate:g} bit/s, {2e3 * self._half:g} ms>"

    @property
    def sent(self) -> int:
        """As `Link.sent`, without what waits for its turn."""
        return self._link.sent

    @property
    def received(self) -> int:
        """As `Link.received`, with what is still on its way."""
        return self._link.received

    def send(self, message: bytes) -> None:
        """Queue a message; it is sent when its bits have dripped through."""
        with self._changed:
            self._check()
            bits = 8 * (len(message) + self.overhead)
            self._free = max(self._free, self._clock()) + bits / self._rate
            self._up.append((self._free + self._half, message))
        self._link.wake()

    def receive(self, timeout: float | None) -> bytes | None:
        """Return the next message; None if none came within `timeout` seconds."""
        end = math.inf if timeout is None else self._clock() + timeout
        with self._changed:
            while True:
                now = self._clock()
                due = self._down[0][0] if self._down else math.inf
                if due <= now:
                    return self._down.popleft()[1]
                if not self._down:
                    self._check()
                if self._woken or now >= end:
                    self._woken = False
                    return None
                wait = min(due, end) - now
                self._changed.wait(None if wait == math.inf else wait)

    def wake(self) -> None:
        """Have `receive` return at once."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def close(self) -> None:
        """Close both links; what waits, such as a session's end, leaves at once."""
        self._error = LinkError("the link is closed; make another")
        self._link.wake()
        self._thread.join()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while self._error is None:
                message = self._link.receive(self._hand_on())
                while message is not None:
                    with self._changed:
                        self._down.append((self._clock() + self._half, message))
                        self._changed.notify()
                    message = self._link.receive(0)
            for _, message in self._up:
                self._link.send(message)
        except Exception as error:  # whatever it is, who waits is told
            self._error = self._error or error
        self._link.close()
        with self._changed:
            self._changed.notify()

    def _hand_on(self) -> float | None:
        """Send what is due; return the seconds until more is."""
        while self._up:
            due, message = self._up[0]
            if (wait := due - self._clock()) > 0:
                return wait
            self._link.send(message)
            self._up.popleft()
        return None
