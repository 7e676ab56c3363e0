"""What a round costs on the wire, by counting packets."""

import pytest

from benchmarks.wire.__main__ import BARS, HEADER, PACKET, PLAIN, measure
from sqs_codec.system.serve._datagram.link import DatagramLink
from sqs_codec.system.serve._grpc.link import GrpcLink
from sqs_codec.system.serve._grpc.wire import ACK, MESSAGE, SETUP


@pytest.mark.parametrize("name", BARS)
def test_a_round_keeps_to_its_bars(name):
    try:
        wire = measure(name, rounds=3)
    except PermissionError as error:
        pytest.skip(str(error))
    assert wire.passes, wire
    if name == "datagram":
        assert overhead(wire) == (DatagramLink.overhead, DatagramLink.overhead), wire
        return
    # By these gRPC's bytes are reckoned, where no kernel counts them.
    plain = name == PLAIN
    assert plain or GrpcLink.overhead == MESSAGE[plain] + ACK
    assert overhead(wire) == (MESSAGE[plain] + ACK, MESSAGE[plain] + ACK), wire
    # Of connecting, an acknowledgement may cross alone or not.
    assert wire.setup == pytest.approx(SETUP[plain], abs=3 * ACK)


def overhead(wire):
    """The bytes around each round's message going up."""
    return wire.without_header[0] - PACKET, wire.with_header[0] - PACKET - HEADER
