"""A link's bytes are those of its own connection, counted or computed."""

import os
import sys
from functools import partial

import pytest

from sqs_codec.system.serve import INSECURE, connect, start_grpc
from sqs_codec.system.serve._grpc import wire
from tests.echo import EchoService, running
from tests.system.serve.kit import PATIENCE

MESSAGE = bytes(1000)


@pytest.fixture
def address():
    """A server that echoes every message."""
    service = EchoService(tokens=None)
    with running(
        partial(start_grpc, service, "127.0.0.1", 0, security=INSECURE)
    ) as server:
        yield f"127.0.0.1:{server.port}"


def carry(link, messages):
    """Send messages there and back; return the growth of the link's counts."""
    sent, received = link.sent, link.received
    for _ in range(messages):
        link.send(MESSAGE)
        assert link.receive(PATIENCE) == MESSAGE
    return link.sent - sent, link.received - received


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere bytes are reckoned")
def test_links_of_one_process_are_distinguished(address):
    links = [connect(address, security=INSECURE) for _ in range(3)]
    assert all(300 < link.sent < 1500 for link in links)
    idle = [link.sent for link in (links[0], links[2])]
    for grown in carry(links[1], 20):
        # How many go without an acknowledgment of their own, the machine decides.
        assert 20 * (1000 + 60) < grown < 20 * (1000 + 92 + 2 * wire.ACK)
    now = [link.sent for link in (links[0], links[2])]
    assert now == pytest.approx(idle, abs=3 * wire.ACK)  # of connecting
    for link in links:
        counted = link.sent
        link.close()
        assert counted <= link.sent < counted + 1000
        assert link.sent == link.sent > 300


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is looked for")
def test_a_connection_search_leaves_nothing_open():
    before = os.listdir(wire.OPEN)
    assert wire._marked(1) is None
    assert os.listdir(wire.OPEN) == before


def test_bytes_are_computed_without_kernel_counters(address, monkeypatch):
    monkeypatch.setattr(wire, "_marked", lambda mark: None)
    link = connect(address, security=INSECURE)
    assert (link.sent, link.received) == wire.SETUP[True]
    assert carry(link, 20) == (20 * (1000 + 92 + 52), 20 * (1000 + 92 + 52))
    link.close()
