"""A link in user space, between edges and a server on this machine.

Each direction is a bucket of tokens that fills at the link's rate: a datagram leaves
when its bits have dripped through, those behind it wait, and it arrives half a round
trip later. What leaves may be lost. Bits are those of IP: a datagram's own and 28 bytes
of headers.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np

__all__ = ["Link", "Relay", "check"]

HOST = "127.0.0.1"

HEADERS = 28
"""Bytes of IPv4 and UDP around a datagram."""

POLL_SECONDS = 0.1
"""How often an idle relay looks whether it is to stop."""

BUFFER = 1 << 20
"""Bytes that a socket may hold for a reader that is late; the system may allow less."""

LARGE, SMALL = 1172, 22
"""Bytes of the datagrams that measure a link: 1200 and 50 with their headers."""

MEASURED_SECONDS = 0.5
"""So long a link is kept busy to measure its rate,"""

FEWEST, MOST = 8, 2000
"""if that takes so many datagrams."""

ECHOES = 10
"""Datagrams that go to and fro alone, to measure the trip."""

PRESSURE = 1.25
"""How many times as fast as the link datagrams are sent to measure its rate."""

SHORTEST_SLEEP = 0.001
"""Seconds; datagrams that are due sooner are sent together."""

PATIENCE = 0.2
"""Seconds without a datagram after which no more is expected, beyond the link's own."""


@dataclass(frozen=True)
class Link:
    """What a link is like.

    Attributes
    ----------
    rate : float
        Bits per second to the server.
    trip : float
        Seconds of a round trip, of which each way takes half.
    down : float
        Bits per second from the server.
    jitter : float
        Deviation of the log of what a datagram takes one way. It is drawn anew once in
        a round trip, and no datagram overtakes another.
    loss : float
        Probability that a datagram is lost, once it has left.
    """

    rate: float
    trip: float
    down: float = math.inf
    jitter: float = 0.0
    loss: float = 0.0


class _Way:
    """One direction of a link."""

    def __init__(
        self, rate: float, delay: float, link: Link, rng: np.random.Generator
    ) -> None:
        self._rate, self._delay, self._link, self._rng = rate, delay, link, rng
        self.free = self._last = 0.0
        self._drawn = -math.inf
        self.bytes = 0

    def pass_on(self, size: int, now: float) -> float | None:
        """Return when a datagram arrives that came now, None if it is lost."""
        self.bytes += size + HEADERS
        self.free = max(self.free, now) + 8 * (size + HEADERS) / self._rate
        if self.free > self._drawn + self._link.trip:
            self._drawn = self.free
            self._noise = math.exp(self._link.jitter * self._rng.normal())
        if self._rng.random() < self._link.loss:
            return None
        self._last = max(self._last, self.free + self._delay * self._noise)
        return self._last


class Relay:
    """A link to a server: ``with Relay(server_port, Link(1e5, 0.05)) as relay:``.

    Edges connect to `port`. A thread passes on what they and the server send.

    Parameters
    ----------
    server_port : int
        Where the server is, on this machine.
    link : Link
    seed : int, optional
        Of jitter and loss.

    Attributes
    ----------
    port : int
    late : float
        Seconds by which datagrams so far were handed on later than the link says,
        because this machine had no time; their sum.
    """

    def __init__(self, server_port: int, link: Link, seed: int = 0) -> None:
        self._server = HOST, server_port
        ups, downs = np.random.default_rng(seed).spawn(2)
        self._up = _Way(link.rate, link.trip / 2, link, ups)
        self._down = _Way(link.down, link.trip / 2, link, downs)
        self._front = _udp()
        self.port: int = self._front.getsockname()[1]
        self._backs: dict[socket.socket, tuple[str, int]] = {}
        self._due: list[tuple[float, int, socket.socket, bytes, tuple[str, int]]] = []
        self._order = itertools.count()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)
        self.late = 0.0

    def __enter__(self) -> Relay:
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and forget what is on its way."""
        self._stopped = True
        self._thread.join()
        for each in (self._front, *self._backs):
            each.close()

    @property
    def bytes(self) -> tuple[int, int]:
        """Bytes of IP to and from the server so far, lost ones and headers included."""
        return self._up.bytes, self._down.bytes

    @property
    def busy(self) -> float:
        """Seconds until all that came so far from edges has left."""
        return max(0.0, self._up.free - time.monotonic())

    def _run(self) -> None:
        while not self._stopped:
            wait = POLL_SECONDS
            if self._due:
                wait = min(max(self._due[0][0] - time.monotonic(), 0.0), wait)
            # Unlike poll and epoll, select waits for less than a millisecond, too.
            ready, _, _ = select.select([self._front, *self._backs], [], [], wait)
            for source in ready:
                self._take(source)
            self._hand_on()

    def _take(self, source: socket.socket) -> None:
        """Take a datagram, and see when it is due."""
        with contextlib.suppress(OSError):  # the port it came from is gone
            data, address = source.recvfrom(1 << 16)
            now = time.monotonic()
            if source is self._front:
                back = self._back_of(address)
                due, out, to = self._up.pass_on(len(data), now), back, self._server
            else:
                due = self._down.pass_on(len(data), now)
                out, to = self._front, self._backs[source]
            if due is not None:
                heapq.heappush(self._due, (due, next(self._order), out, data, to))

    def _back_of(self, client: tuple[str, int]) -> socket.socket:
        """Return the socket that stands for a client on the server's side."""
        for back, known in self._backs.items():
            if known == client:
                return back
        back = _udp()
        self._backs[back] = client
        return back

    def _hand_on(self) -> None:
        """Send what is due."""
        while self._due and self._due[0][0] <= (now := time.monotonic()):
            due, _, out, data, to = heapq.heappop(self._due)
            with contextlib.suppress(OSError):  # nobody listens there: it is lost
                out.sendto(data, to)
            self.late += now - due


def _udp() -> socket.socket:
    """Return a socket of this machine that doesn't block."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((HOST, 0))
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    return made


def check(link: Link, seed: int = 0) -> dict[str, float]:
    """Measure a link, and return what it should be and what it is.

    The rate is that of datagrams that come faster than it, for half a second if that
    takes 8 to 2000 of them; the trip the median of small ones that are echoed, one at
    a time, without what their bits take; the loss the share of all those.

    Returns
    -------
    dict
        The attributes of `link`, and `measured_rate`, `measured_trip` and
        `measured_loss`.
    """
    with (
        _udp() as server,
        _udp() as client,
        Relay(server.getsockname()[1], link, seed) as relay,
    ):
        ends = _Ends(link, client, server, relay.port)
        rate = ends.flood()
        trips = [trip for _ in range(ECHOES) if (trip := ends.echo()) is not None]
    transfer = 8 * (SMALL + HEADERS) * (1 / link.rate + 1 / link.down)
    return {
        **asdict(link),
        "measured_rate": rate,
        "measured_trip": float(np.median(trips)) - transfer,
        "measured_loss": 1 - ends.arrived / ends.sent,
    }


class _Ends:
    """Both ends of a link that is measured."""

    def __init__(
        self, link: Link, client: socket.socket, server: socket.socket, port: int
    ) -> None:
        self._link, self._client, self._server = link, client, server
        self._address = HOST, port
        self.sent = self.arrived = 0

    def echo(self) -> float | None:
        """Return the seconds of a small datagram to and fro, None if it was lost."""
        began = time.monotonic()
        self._send(self._client, bytes(SMALL), self._address)
        there = self._receive(self._server)
        if there is None:
            return None
        self._send(self._server, *there)
        back = self._receive(self._client)
        return None if back is None else time.monotonic() - began

    def flood(self) -> float:
        """Return the bits per second of datagrams that come faster than the link."""
        rate = self._link.rate
        large = rate * MEASURED_SECONDS >= 8 * FEWEST * (LARGE + HEADERS)
        size = LARGE if large else SMALL
        bits = 8 * (size + HEADERS)
        count = int(np.clip(rate * MEASURED_SECONDS / bits, FEWEST, MOST))
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(self._pour, size, count, bits / (PRESSURE * rate))
            times: dict[int, float] = {}
            while len(times) < count and (found := self._receive(self._server)):
                times[int.from_bytes(found[0][:4], "big")] = time.monotonic()
            sending.result()
        numbers = np.array([*times], np.float64)
        return float(bits / np.polyfit(numbers, [*times.values()], 1)[0])

    def _pour(self, size: int, count: int, every: float) -> None:
        """Send so many numbered datagrams, one every so many seconds."""
        began = time.monotonic()
        for number in range(count):
            ahead = began + number * every - time.monotonic()
            if ahead > SHORTEST_SLEEP:
                time.sleep(ahead)
            data = number.to_bytes(4, "big").ljust(size, b"\0")
            self._send(self._client, data, self._address)

    def _send(self, end: socket.socket, data: bytes, to: tuple[str, int]) -> None:
        end.sendto(data, to)
        self.sent += 1

    def _receive(self, end: socket.socket) -> tuple[bytes, tuple[str, int]] | None:
        """Wait for a datagram, and longer than any takes that isn't lost."""
        slowest = min(self._link.rate, self._link.down)
        wait = PATIENCE + 2 * self._link.trip + 8 * (LARGE + HEADERS) / slowest
        if not select.select([end], [], [], wait)[0]:
            return None
        self.arrived += 1
        data, address = end.recvfrom(1 << 16)
        return data, address
