"""Links that lose, repeat, reorder, cut, delay and break, as real ones do.

A link stands between a client and a server on this machine and relays what they send,
in a thread of its own. What it does to it is drawn from a seed.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

HOST = "127.0.0.1"


class _Relay:
    """A thread that waits for sockets and for the time to pass things on."""

    def __init__(
        self, server_port: int, *, delay: float, rate: float | None, seed: int
    ) -> None:
        self.server_port = server_port
        self.delay = delay
        self.rate = rate
        self.random = random.Random(seed)
        self._free = {True: 0.0, False: 0.0}
        """When each direction, up or down, has sent what it was given."""
        self._due: list[tuple[float, int, Callable[[], Any]]] = []
        self._order = itertools.count()
        self._selector = selectors.DefaultSelector()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=type(self).__name__)

    def __enter__(self) -> int:
        """Start, and return the port to connect to."""
        self._thread.start()
        return self.port

    def __exit__(self, *_: object) -> None:
        """Stop, and close all sockets."""
        self._stopped = True
        self._thread.join()
        for key in [*self._selector.get_map().values()]:
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _read(self, source: socket.socket, action: Callable[[], None]) -> None:
        """Call `action` whenever there is something to read."""
        source.setblocking(False)
        self._selector.register(source, selectors.EVENT_READ, action)

    def _forget(self, *sources: socket.socket) -> None:
        for source in sources:
            if source.fileno() >= 0:
                self._selector.unregister(source)
                source.close()

    def _sent_at(self, up: bool, size: int) -> float:
        """Return when a direction has sent `size` bytes more."""
        start = max(time.monotonic(), self._free[up])
        self._free[up] = start + (size * 8 / self.rate if self.rate else 0)
        return self._free[up]

    def _at(self, due: float, action: Callable[[], Any]) -> None:
        heapq.heappush(self._due, (due, next(self._order), action))

    def _run(self) -> None:
        while not self._stopped:
            wait = self._due[0][0] - time.monotonic() if self._due else 0.02
            for key, _ in self._selector.select(max(0.0, min(wait, 0.02))):
                key.data()
            while self._due and self._due[0][0] <= time.monotonic():
                heapq.heappop(self._due)[2]()


class LossyLink(_Relay):
    """Relay datagrams: `with LossyLink(server_port, loss=0.2) as port:`.

    Parameters
    ----------
    server_port : int
    loss, duplicate, reorder, truncate : float
        How likely a datagram is lost, comes twice, is overtaken by those of the next
        `reorder_delay` seconds, or loses its end.
    delay : float
        Seconds that each takes one way.
    rate : float or None
        Bits a second of each direction, 28 bytes of IP and UDP counted. What would wait
        for more than `queue` seconds is dropped.
    seed : int

    The settings are attributes, and may be changed while the link is up. So may
    `down`: if true, nothing passes. `seen` has all that came, as (up, data), and those
    whose index in it is in `doomed` are lost.
    """

    def __init__(
        self,
        server_port: int,
        *,
        loss: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        reorder_delay: float = 0.02,
        truncate: float = 0.0,
        delay: float = 0.0,
        rate: float | None = None,
        queue: float = 5.0,
        seed: int = 0,
    ) -> None:
        super().__init__(server_port, delay=delay, rate=rate, seed=seed)
        self.loss = loss
        self.duplicate = duplicate
        self.reorder = reorder
        self.reorder_delay = reorder_delay
        self.truncate = truncate
        self.queue = queue
        self.down = False
        self.doomed: Collection[int] = ()
        self.seen: list[tuple[bool, bytes]] = []
        self._front = _udp()
        self._front.bind((HOST, 0))
        self.port: int = self._front.getsockname()[1]
        self._backs: dict[tuple[str, int], socket.socket] = {}
        self._renumber = False
        self._read(self._front, self._on_front)

    def renumber(self) -> None:
        """Send on from new ports, as a router does that has forgotten its clients."""
        self._renumber = True

    def inject(self, data: bytes, *, up: bool = True) -> None:
        """Send a datagram to the server as if from each client, or the other way."""
        for client, back in [*self._backs.items()]:
            if up:
                self._send(back, data, (HOST, self.server_port))
            else:
                self._send(self._front, data, client)

    def _on_front(self) -> None:
        if self._renumber:
            self._forget(*self._backs.values())
            self._backs.clear()
            self._renumber = False
        data, client = self._front.recvfrom(1 << 16)
        if client not in self._backs:
            back = self._backs[client] = _udp()
            back.bind((HOST, 0))
            self._read(back, lambda: self._on_back(back, client))
        self._pass(True, data, self._backs[client], (HOST, self.server_port))

    def _on_back(self, back: socket.socket, client: tuple[str, int]) -> None:
        try:
            data, _ = back.recvfrom(1 << 16)
        except OSError:
            return  # the port is gone, in the same turn
        self._pass(False, data, self._front, client)

    def _pass(
        self, up: bool, data: bytes, through: socket.socket, to: tuple[str, int]
    ) -> None:
        """Pass a datagram on, or what the link makes of it."""
        self.seen.append((up, data))
        waits = self._free[up] - time.monotonic()
        doomed = self.down or len(self.seen) - 1 in self.doomed
        if doomed or waits > self.queue or self._happens(self.loss):
            return
        for _ in range(2 if self._happens(self.duplicate) else 1):
            whole = not self._happens(self.truncate)
            piece = data if whole else data[: self.random.randrange(len(data))]
            due = self._sent_at(up, len(piece) + 28) + self.delay
            if self._happens(self.reorder):
                due += self.random.random() * self.reorder_delay
            self._at(due, lambda piece=piece: self._send(through, piece, to))

    def _happens(self, probability: float) -> bool:
        return self.random.random() < probability

    @staticmethod
    def _send(through: socket.socket, data: bytes, to: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):  # a full buffer or a closed port: lost
            through.sendto(data, to)


class LossyStream(_Relay):
    """Relay TCP connections: `with LossyStream(server_port, delay=0.05) as port:`.

    Parameters
    ----------
    server_port : int
    delay : float
        Seconds that each piece takes one way.
    stall : float
        How likely a piece waits 200 ms longer, and all after it: what a lost packet
        does to TCP.
    rate : float or None
        Bits a second of each direction.
    seed : int

    `disconnect` breaks all connections.
    """

    def __init__(
        self,
        server_port: int,
        *,
        delay: float = 0.0,
        stall: float = 0.0,
        rate: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(server_port, delay=delay, rate=rate, seed=seed)
        self.stall = stall
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._broken = False
        self._read(self._listener, self._on_client)

    def disconnect(self) -> None:
        """Break all connections."""
        self._at(0.0, lambda: [self._forget(*pair) for pair in self._pairs])

    def _on_client(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection((HOST, self.server_port), timeout=5)
        except OSError:
            client.close()
            return
        pair = (client, server)
        self._pairs.append(pair)
        self._read(client, lambda: self._on_data(True, client, server))
        self._read(server, lambda: self._on_data(False, server, client))

    def _on_data(self, up: bool, source: socket.socket, to: socket.socket) -> None:
        try:
            data = source.recv(1400)
        except OSError:
            data = b""
        if self.random.random() < self.stall:
            self._free[up] = max(self._free[up], time.monotonic()) + 0.2
        due = self._sent_at(up, len(data)) + self.delay
        if data:
            self._at(due, lambda: self._send(source, to, data))
        else:
            self._forget(source)
            self._at(due, lambda: self._forget(to))

    def _send(self, source: socket.socket, to: socket.socket, data: bytes) -> None:
        """Send all of a piece; a reader that doesn't read holds up the link."""
        try:
            to.setblocking(True)
            to.sendall(data)
            to.setblocking(False)
        except OSError:
            self._forget(source, to)


def _udp() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
