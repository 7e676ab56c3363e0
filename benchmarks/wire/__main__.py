"""Count the bytes on the wire of a round by each transport.

    python -m benchmarks.wire --json wire.json

A server and a client on this machine exchange rounds with TLS or DTLS, and every IP
packet between them is counted: headers, encryption, window updates, pure ACKs. A
round is a message of 100 bytes up, with the session's header of 4 among them or
before them, and an answer of 4 bytes down; each end waits 60 ms before it sends. It
needs a raw socket, so run it as root. docs/transports.md says what the figures mean.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console, Group
from rich.table import Table

from benchmarks.tables import about, dim, table, write_json
from benchmarks.wire.measure import BARS, Wire, measure
from sqs_codec.cli.options import number


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.wire",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rounds", type=number(int, 1), default=20, help="(default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="every figure")
    args = parser.parse_args(argv)
    try:
        wires = [measure(transport, args.rounds) for transport in BARS]
    except PermissionError as error:
        print(error, file=sys.stderr)
        return 1
    ran_on = about("grpcio", "pyOpenSSL", "cryptography")
    if args.json:
        write_json({"about": ran_on, "wires": [*map(asdict, wires)]}, args.json)
    Console().print(
        Group(
            _sizes(wires),
            _packets(wires),
            dim(
                f"median of {args.rounds} rounds; {ran_on['machine']}, "
                + ", ".join(f"{k} {v}" for k, v in ran_on["packages"].items())
            ),
        )
    )
    return 0 if all(wire.passes for wire in wires) else 1


def _sizes(wires: list[Wire]) -> Table:
    """Return what each transport takes, in bytes up and down."""
    made = table(
        "Bytes up / down", "", "set-up", "with a round", "round of 100", "of 104", "bar"
    )
    for wire in wires:
        bar = " / ".join(
            "any" if most is None else f"≤ {most}" for most in BARS[wire.transport]
        )
        figures = (wire.setup, wire.first, wire.without_header, wire.with_header)
        made.add_row(
            wire.transport,
            *(f"{up} / {down}" for up, down in figures),
            bar if wire.passes else f"{bar} FAIL",
        )
    return made


def _packets(wires: list[Wire]) -> Table:
    """Return the IP packets of one round."""
    made = table("The packets of a round of 104", "", "up", "down")
    for wire in wires:
        up, down = (
            " + ".join(str(packet.size) for packet in wire.packets if packet.up is way)
            for way in (True, False)
        )
        made.add_row(wire.transport, up, down)
    return made


if __name__ == "__main__":
    raise SystemExit(main())
