"""A link in user space, held to its own settings."""

from __future__ import annotations

import select
import socket
import time
from dataclasses import asdict

import numpy as np

from benchmarks.relay import HEADERS, HOST, Link, Relay, udp

__all__ = ["check"]

LARGE, SMALL = 1172, 22
"""Bytes of the datagrams that measure a link: 1200 and 50 with their headers,"""

FAST = 1e5
"""the large ones from so many bits per second on."""

MEASURED_SECONDS = 0.5
"""So long a link is kept busy to measure its rate,"""

FEWEST, MOST = 4, 100
"""if that takes so many datagrams: what the system holds for who is late."""

ECHOES = 10
"""Datagrams that go to and fro alone, to measure the trip."""

PATIENCE = 0.2
"""Seconds without a datagram after which no more is expected, beyond the link's own."""


def check(link: Link, seed: int = 0) -> dict[str, float]:
    """Measure a link, and return what it should be and what it is.

    The rate is that of datagrams that come all at once; the trip the median of those
    that are echoed, one at a time, without what their bits take; the loss the share of
    all those.

    Returns
    -------
    dict
        The attributes of `link`, and `measured_rate`, `measured_trip` and
        `measured_loss`.
    """
    size = LARGE if link.rate >= FAST else SMALL
    bits = 8 * (size + HEADERS)
    slowest = min(link.rate, link.down)
    patience = PATIENCE + 2 * link.trip + 2 * bits / slowest
    count = int(np.clip(link.rate * MEASURED_SECONDS / bits, FEWEST, MOST))
    arrived, trips = 0, []
    times: dict[int, float] = {}

    def take(end: socket.socket) -> tuple[bytes, tuple[str, int]] | None:
        """Wait for a datagram, and longer than any takes that isn't lost."""
        if not select.select([end], [], [], patience)[0]:
            return None
        data, address = end.recvfrom(1 << 16)
        return data, address

    with (
        udp() as server,
        udp() as client,
        Relay(server.getsockname()[1], link, seed) as relay,
    ):
        for number in range(count):
            client.sendto(number.to_bytes(size, "big"), (HOST, relay.port))
        while len(times) < count and (found := take(server)):
            times[int.from_bytes(found[0], "big")] = time.monotonic()
        for _ in range(ECHOES):
            began = time.monotonic()
            client.sendto(bytes(SMALL), (HOST, relay.port))
            if there := take(server):
                arrived += 1
                server.sendto(*there)
                if take(client):
                    trips.append(time.monotonic() - began)
    transfer = 8 * (SMALL + HEADERS) * (1 / link.rate + 1 / link.down)
    slope = np.polyfit([*times], [*times.values()], 1)[0]
    lost = 1 - (len(times) + arrived + len(trips)) / (count + ECHOES + arrived)
    return {
        **asdict(link),
        "measured_rate": bits / float(slope),
        "measured_trip": float(np.median(trips)) - transfer,
        "measured_loss": lost,
    }
