"""A link that imitates a low-bandwidth link."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable

from sqs_codec._base import checks
from sqs_codec.system.session import Link, LinkError


class ShapedLink:
    """A `Link` that limits another link's uplink rate and delays its messages.

    The uplink sends messages one after the other at the given rate, with the headers
    of transport and IP. Each direction adds half of the round-trip time. The other
    link belongs to a thread, which closes it.

    Parameters
    ----------
    link : Link
        The other link. Don't use it for anything else.
    rate : float
        Uplink rate in bits per second.
    trip : float
        Round-trip time to add, in seconds.
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
        self._up: deque[tuple[float, bytes]] = deque()  # with the time to deliver at
        self._down: deque[tuple[float, bytes]] = deque()
        self._free = 0.0  # when the last message has left
        self._woken = False
        self._error: Exception | None = None  # why the link has ended
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="sqs-link", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<ShapedLink of {self._rate:g} bit/s, {2e3 * self._half:g} ms>"

    @property
    def sent(self) -> int:
        """As `Link.sent`, without queued messages."""
        return self._link.sent

    @property
    def received(self) -> int:
        """As `Link.received`, including delayed messages."""
        return self._link.received

    def send(self, message: bytes) -> None:
        """Queue a message; it leaves when the rate allows."""
        with self._changed:
            self._check()
            bits = 8 * (len(message) + self.overhead)
            self._free = max(self._free, self._clock()) + bits / self._rate
            self._up.append((self._free + self._half, message))
        self._link.wake()

    def receive(self, timeout: float | None) -> bytes | None:
        """Return the next message, or None after `timeout` seconds."""
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
        """Make `receive` return at once."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def close(self) -> None:
        """Close both links. Queued messages, such as a farewell, leave at once."""
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
        except Exception as error:  # `receive` and `send` raise it
            self._error = self._error or error
        self._link.close()
        with self._changed:
            self._changed.notify()

    def _hand_on(self) -> float | None:
        """Send due messages; return the seconds until the next one is due."""
        while self._up:
            due, message = self._up[0]
            if (wait := due - self._clock()) > 0:
                return wait
            self._link.send(message)
            self._up.popleft()
        return None
