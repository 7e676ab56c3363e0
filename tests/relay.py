"""Links in user space, between clients and a server on this machine.

Each direction is a bucket of tokens that fills at the link's rate: a datagram leaves
when its bits have dripped through, those behind it wait, and it arrives half a round
trip later. What leaves may be lost, come twice, be overtaken or lose its end. Bits are
those of IP: a datagram's own and 28 bytes of headers.
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
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from typing_extensions import Self

HOST = "127.0.0.1"

HEADERS = 28
"""Bytes of IPv4 and UDP around a datagram."""

OVERTAKEN_SECONDS = 0.02
"""The largest delay of an overtaken datagram."""

POLL_SECONDS = 0.1
"""How often an idle relay looks whether it is to stop."""

BUFFER = 1 << 20
"""Bytes that a socket may hold for a reader that is late; the system may allow less."""


@dataclass(frozen=True)
class Link:
    """The properties of a link."""

    rate: float = math.inf
    """Bits per second to the server."""
    trip: float = 0.0
    """Seconds of a round trip; each direction takes half."""
    down: float = math.inf
    """Bits per second from the server."""
    jitter: float = 0.0
    """Deviation of the log of a datagram's time one way. It is sampled once per round
    trip, and no datagram overtakes another."""
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    truncate: float = 0.0
    """Probabilities that a datagram is lost, once it has left, comes twice, is
    overtaken by those of the next 20 ms, or loses its end."""
    queue: float = math.inf
    """Seconds of datagrams that may wait; one that finds more is dropped."""


GOOD = Link()
"""A relay that forwards everything at once."""


class Way:
    """One direction of a link, to the server if it is `up`; it has no clock."""

    def __init__(self, link: Link, up: bool, rng: np.random.Generator) -> None:
        self.link = link
        """May be changed at any time."""
        self.free = 0.0
        """When all that came so far has left."""
        self.bytes = 0
        """Bytes of IP so far, lost ones and headers included."""
        self.dropped = 0
        """Datagrams that found the queue full."""
        self._up, self._rng = up, rng
        self._last = 0.0
        self._drawn = -math.inf

    def pass_on(self, data: bytes, now: float) -> list[tuple[float, bytes]]:
        """Return when what arrives of a datagram that came now, and what it is then."""
        copies = 2 if self._happens(self.link.duplicate) else 1
        found = [self._pass_one(data, now) for _ in range(copies)]
        return [each for each in found if each is not None]

    def _pass_one(self, data: bytes, now: float) -> tuple[float, bytes] | None:
        if self.free - now > self.link.queue:
            self.dropped += 1
            return None
        due = self._arrival(data, now)
        if self._happens(self.link.loss):
            return None
        if self._happens(self.link.reorder):
            due += self._rng.random() * OVERTAKEN_SECONDS
        if self._happens(self.link.truncate):
            data = data[: int(len(data) * self._rng.random())]
        return due, data

    def _arrival(self, data: bytes, now: float) -> float:
        """Return when it arrives if nothing happens to it."""
        link = self.link
        size = len(data) + HEADERS
        self.bytes += size
        rate = link.rate if self._up else link.down
        self.free = max(self.free, now) + 8 * size / rate
        if self.free > self._drawn + link.trip:
            self._drawn = self.free
            self._noise = math.exp(link.jitter * self._rng.normal())
        self._last = max(self._last, self.free + link.trip / 2 * self._noise)
        return self._last

    def _happens(self, probability: float) -> bool:
        return self._rng.random() < probability


class _Thread:
    """Waits for sockets, and for the time to forward messages.

    The server is on this machine; the seed determines all random events.
    """

    port: int

    def __init__(self, server_port: int, link: Link = GOOD, seed: int = 0) -> None:
        seeds = np.random.SeedSequence(seed).spawn(2)
        ups, downs = map(np.random.default_rng, seeds)
        self.server_port = server_port
        """May be changed at any time."""
        self.late = 0.0
        """Seconds by which datagrams so far were forwarded later than the link says,
        because this machine had no time; their sum."""
        self._up, self._down = Way(link, True, ups), Way(link, False, downs)
        self._sources: dict[socket.socket, Callable[[], None]] = {}
        self._due: list[tuple[float, int, Callable[[], Any]]] = []
        self._order = itertools.count()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and forget what is on its way."""
        self._stopped = True
        self._thread.join()
        for source in self._sources:
            source.close()

    @property
    def link(self) -> Link:
        """Its properties; may be set at any time."""
        return self._up.link

    @link.setter
    def link(self, link: Link) -> None:
        self._up.link = self._down.link = link

    @property
    def bytes(self) -> tuple[int, int]:
        """Bytes of IP to and from the server so far, lost ones and headers included."""
        return self._up.bytes, self._down.bytes

    @property
    def busy(self) -> float:
        """Seconds until all that came so far from clients has left."""
        return max(0.0, self._up.free - time.monotonic())

    def _run(self) -> None:
        while not self._stopped:
            wait = POLL_SECONDS
            if self._due:
                wait = min(max(self._due[0][0] - time.monotonic(), 0.0), wait)
            # Unlike poll and epoll, select waits for less than a millisecond, too.
            ready, _, _ = select.select([*self._sources], [], [], wait)
            for source in ready:
                self._sources.get(source, _nothing)()
            self._hand_on()

    def _at(self, due: float, action: Callable[[], Any]) -> None:
        heapq.heappush(self._due, (due, next(self._order), action))

    def _hand_on(self) -> None:
        while self._due and self._due[0][0] <= (now := time.monotonic()):
            due, _, action = heapq.heappop(self._due)
            action()
            self.late += now - due


class Relay(_Thread):
    """A link for datagrams: ``with Relay(server_port, Link(1e5, 0.05)) as relay:``.

    Clients connect to `port`. A thread forwards the messages of both sides.
    """

    def __init__(self, server_port: int, link: Link = GOOD, seed: int = 0) -> None:
        super().__init__(server_port, link, seed)
        self.broken = False
        """While true, nothing is forwarded."""
        self.seen: list[tuple[bool, bytes]] = []
        """All that came: whether it was for the server, and the datagram."""
        self.doomed: Collection[int] = ()
        """Lost datagrams: indices in `seen`."""
        self._front = udp()
        self.port = self._front.getsockname()[1]
        self._sources[self._front] = self._take_from_client
        self._backs: dict[tuple[str, int], socket.socket] = {}
        self._forgetful = False

    def renumber(self) -> None:
        """Send on from new ports, as a router does that has forgotten its clients."""
        self._forgetful = True

    def inject(self, data: bytes, *, up: bool = True) -> None:
        """Send a datagram to the server as if from each client, or the other way."""
        for client, back in [*self._backs.items()]:
            if up:
                _send(back, data, (HOST, self.server_port))
            else:
                _send(self._front, data, client)

    def _take_from_client(self) -> None:
        if self._forgetful:
            for back in self._backs.values():
                del self._sources[back]
                back.close()
            self._backs.clear()
            self._forgetful = False
        with contextlib.suppress(OSError):  # the port it came from is gone
            data, client = self._front.recvfrom(1 << 16)
            self._pass(True, data, self._back_of(client), (HOST, self.server_port))

    def _back_of(self, client: tuple[str, int]) -> socket.socket:
        """Return the socket that stands for a client on the server's side."""
        if client not in self._backs:
            back = self._backs[client] = udp()
            self._sources[back] = lambda: self._take_from_server(back, client)
        return self._backs[client]

    def _take_from_server(self, back: socket.socket, client: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):  # nobody listens there
            self._pass(False, back.recv(1 << 16), self._front, client)

    def _pass(
        self, up: bool, data: bytes, through: socket.socket, to: tuple[str, int]
    ) -> None:
        """Take a datagram, and see when what becomes of it is due."""
        self.seen.append((up, data))
        if self.broken or len(self.seen) - 1 in self.doomed:
            return
        way = self._up if up else self._down
        for due, piece in way.pass_on(data, time.monotonic()):
            self._at(due, partial(_send, through, piece, to))


class StreamRelay(_Thread):
    """A link for TCP that forwards everything at once."""

    def __init__(self, server_port: int) -> None:
        super().__init__(server_port)
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self._sources[self._listener] = self._take_client

    def _take_client(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection((HOST, self.server_port), timeout=5)
        except OSError:
            client.close()
            return
        self._sources[client] = lambda: self._take(client, server)
        self._sources[server] = lambda: self._take(server, client)

    def _take(self, source: socket.socket, to: socket.socket) -> None:
        """Forward a piece; a receiver that doesn't read holds up the link."""
        try:
            data = source.recv(BUFFER)
            to.sendall(data)
        except OSError:
            data = b""
        if not data:
            for each in source, to:
                self._sources.pop(each, None)
                each.close()


def _nothing() -> None:
    """Stand for a socket that was forgotten in the same turn."""


def udp() -> socket.socket:
    """Return a socket of this machine for datagrams that doesn't block."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((HOST, 0))
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    return made


def _send(through: socket.socket, data: bytes, to: tuple[str, int]) -> None:
    with contextlib.suppress(OSError):  # a full buffer, or nobody listens: it is lost
        through.sendto(data, to)
