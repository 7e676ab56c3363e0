"""What a round costs on the wire, by counting packets."""

import pytest

from benchmarks.wire.__main__ import BARS, HEADER, PACKET, Wire, measure
from sqs_codec.system.serve._datagram.link import DatagramLink
from sqs_codec.system.serve._grpc.link import GrpcLink


@pytest.mark.parametrize("transport", BARS)
def test_a_round_keeps_to_its_bars(transport: str) -> None:
    try:
        wire = measure(transport, rounds=3)
    except PermissionError as error:
        pytest.skip(str(error))
    assert wire.passes, wire
    link = {"grpc": GrpcLink, "datagram": DatagramLink}[transport]
    assert overhead(wire) == (link.overhead, link.overhead), wire


def overhead(wire: Wire) -> tuple[int, int]:
    """The bytes around each round's message going up."""
    return wire.without_header[0] - PACKET, wire.with_header[0] - PACKET - HEADER
