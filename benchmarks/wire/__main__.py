"""Count the bytes on the wire of a round over each transport.

    python -m benchmarks.wire

A server and a client on this machine exchange rounds with TLS or DTLS. Every IP packet
between them is counted: headers, encryption, window updates, pure ACKs. A round is a
message of 100 bytes up and an answer of 4 bytes down. The session's 4-byte header is
in the message or before it. Each end waits 60 ms before it sends. Run it as root, as it
needs a raw socket. docs/benchmarks/links.md explains the figures.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console, Group
from rich.table import Table

from benchmarks.harness.serving import HOST, STARTS
from benchmarks.tables import about, command, dim, table
from benchmarks.wire.capture import Capture, Packet, sizes
from sqs_codec.cli.options import number
from sqs_codec.system.serve import INSECURE, Certificate, connect
from sqs_codec.system.session import Link
from tests.certificates import issue
from tests.echo import TOKEN, EchoService, Server, running

THINK = 0.06
"""Seconds between messages. Linux delays ACKs for 40 ms to send them with data; after
this time, they have been sent separately."""

PACKET, HEADER, ANSWER = 100, 4, 4
"""Bytes of the codec's packet, the session's header and an answer."""

PLAIN = "plain"  # gRPC without TLS

TRANSPORTS = "grpc", PLAIN, "datagram"


@dataclass(frozen=True)
class Wire:
    """A transport's bytes on the wire, up and down."""

    name: str
    setup: tuple[int, int]
    """Setup: handshakes, certificate, access token."""

    first: tuple[int, int]
    """Setup and the first round."""

    without_header: tuple[int, int]
    """A round with a message of `PACKET` bytes, including the session's header."""

    with_header: tuple[int, int]
    """A round with a message of `HEADER` plus `PACKET` bytes."""


def measure(name: str, rounds: int) -> Wire:
    """Count the bytes of a transport: set-up, then the median of some rounds."""
    transport = "grpc" if name == PLAIN else name
    service = EchoService(lambda message: bytes(ANSWER), THINK)
    with tempfile.TemporaryDirectory() as folder:
        issued = issue(Path(folder), HOST)
        plain = name == PLAIN
        how = INSECURE if plain else Certificate(issued.cert, issued.key)
        start = partial(STARTS[transport], service, HOST, 0, security=how)
        with running(start) as server:
            make = partial(connect, transport=transport, token=TOKEN, security=how)
            return _measure(name, server, make, rounds)


def _measure(
    name: str, server: Server, make: Callable[[str], Link], rounds: int
) -> Wire:
    with Capture(server.port) as capture:
        link = make(f"{HOST}:{server.port}")

        def one_round(size: int) -> list[Packet]:
            link.send(bytes(size))
            if link.receive(10) is None:
                raise RuntimeError(f"no answer by {name}")
            time.sleep(THINK)
            return capture.take()

        time.sleep(THINK)
        setup = sizes(capture.take())
        first = sizes(one_round(PACKET + HEADER))
        shorter = [one_round(PACKET) for _ in range(rounds)]
        longer = [one_round(PACKET + HEADER) for _ in range(rounds)]
        link.close()
    begun = setup[0] + first[0], setup[1] + first[1]
    return Wire(name, setup, begun, _median(shorter), _median(longer))


def _median(rounds: list[list[Packet]]) -> tuple[int, int]:
    """Return the bytes of the median round in each direction."""
    up, down = zip(*map(sizes, rounds), strict=True)
    return statistics.median_low(up), statistics.median_low(down)


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = command("wire", __doc__, rounds=3)
    said = "(default: %(default)s)"
    parser.add_argument("--rounds", **number(int, 1), default=20, help=said)
    args = parser.parse_args(argv)
    try:
        wires = [measure(name, args.rounds) for name in TRANSPORTS]
    except PermissionError as error:
        print(error, file=sys.stderr)
        return 1
    ran_on = about("grpcio", "pyOpenSSL", "cryptography")
    Console().print(
        Group(
            _sizes(wires),
            dim(
                f"median of {args.rounds} rounds; {ran_on['machine']}, "
                + ", ".join(f"{k} {v}" for k, v in ran_on["packages"].items())
            ),
        )
    )
    return 0


def _sizes(wires: list[Wire]) -> Table:
    """Return each transport's bytes, up and down."""
    columns = "set-up", "with a round", "round of 100", "of 104"
    made = table("Bytes up / down", "", *columns)
    for wire in wires:
        figures = (wire.setup, wire.first, wire.without_header, wire.with_header)
        made.add_row(wire.name, *(f"{up} / {down}" for up, down in figures))
    return made


if __name__ == "__main__":
    raise SystemExit(main())
