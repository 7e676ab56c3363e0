"""The cost of a round on the wire, with counted packets."""

import pytest

from benchmarks.wire.__main__ import HEADER, PACKET, PLAIN, TRANSPORTS, measure
from sqs_codec.system.serve._datagram.link import DatagramLink
from sqs_codec.system.serve._grpc.link import GrpcLink
from sqs_codec.system.serve._grpc.wire import ACK, MESSAGE, SETUP

TRIES = 10


@pytest.mark.parametrize("name", TRANSPORTS)
def test_links_count_the_overhead_of_a_message(name):
    plain = name == PLAIN
    # gRPC's bytes are estimated with these where no kernel counts them.
    each = DatagramLink.overhead if name == "datagram" else MESSAGE[plain] + ACK
    assert plain or name == "datagram" or GrpcLink.overhead == each
    # On a busy machine an acknowledgment may travel with data, or late: measure again.
    for _ in range(TRIES):
        try:
            wire = measure(name, rounds=3)
        except PermissionError as error:
            pytest.skip(str(error))
        fits = name == "datagram" or wire.setup == pytest.approx(
            SETUP[plain], abs=3 * ACK
        )
        sent = wire.without_header[0], wire.with_header[0] - HEADER
        if fits and sent == (PACKET + each, PACKET + each):
            break
    else:
        around = f"a message has {each} bytes around it"
        pytest.fail(f"{wire}, where {around}, and a connection {SETUP[plain]}")
