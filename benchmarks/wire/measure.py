"""Rounds over a transport, with the pauses of two models that think."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.wire.capture import Capture, Packet, sizes
from benchmarks.wire.certificates import Issued, issue
from benchmarks.wire.echo import TOKEN, EchoService, Server, running
from sqs_codec.serve import connect

HOST = "127.0.0.1"

THINK = 0.06
"""Seconds that each end takes before it sends. Linux waits 40 ms before it
acknowledges, to send the ACK along with data, and here there is none by then."""

PACKET, HEADER, ANSWER = 100, 4, 4
"""Bytes of the codec's packet, of the session's header before it, and of an answer."""

BARS = {"grpc": (270, None), "datagram": (170, 80)}
"""Bytes that a round may take up and down."""


@dataclass(frozen=True)
class Wire:
    """What one transport put on the wire, in bytes up and down."""

    transport: str
    setup: tuple[int, int]
    """Until the link is there: handshakes, certificate, token."""

    first: tuple[int, int]
    """Set-up and the first round."""

    without_header: tuple[int, int]
    """A round whose message has `PACKET` bytes, the session's header among them."""

    with_header: tuple[int, int]
    """A round whose message has `HEADER` bytes before the `PACKET` bytes."""

    packets: list[Packet]
    """Those of one round with the header."""

    @property
    def passes(self) -> bool:
        """Whether a round with the header keeps to the bars."""
        return all(
            bar is None or size <= bar
            for size, bar in zip(self.with_header, BARS[self.transport], strict=True)
        )


def measure(transport: str, rounds: int) -> Wire:
    """Count the bytes of a transport: set-up, then the median of some rounds."""
    service = EchoService(lambda message: bytes(ANSWER), THINK)
    with tempfile.TemporaryDirectory() as folder:
        issued = issue(Path(folder), HOST)
        with running(_starter(transport, service, issued)) as server:
            return _measure(transport, server, issued.cert, rounds)


def _starter(
    transport: str, service: EchoService, issued: Issued
) -> Callable[[], Awaitable[Server]]:
    start: Any
    if transport == "grpc":
        from sqs_codec.serve._grpc.server import start_grpc as start
    else:
        from sqs_codec.serve._datagram.server import start_datagrams as start
    return partial(start, service, HOST, 0, cert=issued.cert, key=issued.key)


def _measure(transport: str, server: Server, cert: Path, rounds: int) -> Wire:
    with Capture(server.port) as capture:
        link = connect(
            f"{HOST}:{server.port}", transport=transport, cert=cert, token=TOKEN
        )

        def one_round(size: int) -> list[Packet]:
            link.send(bytes(size))
            if link.receive(10) is None:
                raise RuntimeError(f"no answer by {transport}")
            time.sleep(THINK)
            return capture.take()

        time.sleep(THINK)
        setup = sizes(capture.take())
        first = sizes(one_round(PACKET + HEADER))
        shorter = [one_round(PACKET) for _ in range(rounds)]
        longer = [one_round(PACKET + HEADER) for _ in range(rounds)]
        link.close()
    return Wire(
        transport,
        setup,
        (setup[0] + first[0], setup[1] + first[1]),
        _median(shorter),
        _median(longer),
        longer[-1],
    )


def _median(rounds: list[list[Packet]]) -> tuple[int, int]:
    """Return the bytes of the middle round, each way."""
    up, down = zip(*map(sizes, rounds), strict=True)
    return statistics.median_low(up), statistics.median_low(down)
