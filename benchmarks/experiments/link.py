"""A link in user space, held to its own settings."""

from __future__ import annotations

import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import numpy as np

from benchmarks.relay import HEADERS, HOST, Link, Relay, udp

__all__ = ["check"]

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
        udp() as server,
        udp() as client,
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
