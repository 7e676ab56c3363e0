"""Whole texts by datagrams over bad links: nothing wrong, nothing lost."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sqs_codec import Sampling
from sqs_codec.system.edge import FixedPlan, _line, generate
from sqs_codec.system.serve import INSECURE, start_datagrams
from tests import relay as relays
from tests.relay import Relay
from tests.system.serve.kit import (
    Draft,
    edge_session,
    serving,
    wait_until,
)

BAD = relays.Link(trip=0.01, loss=0.2, duplicate=0.2, reorder=0.3, truncate=0.03)
PLANS = FixedPlan(4), FixedPlan(6), FixedPlan(0)


@pytest.fixture
def server(monkeypatch):
    """A server with a `port`, for links whose round trips take 10 ms."""
    names = "FIRST", "LEAST", "MOST", "SLOWEST"
    for name, value in zip(names, (0.1, 0.03, 0.3, 1e6), strict=True):
        monkeypatch.setattr(_line.Timeout, name, value)
    with serving() as server:
        start = start_datagrams(server.service, "127.0.0.1", 0, security=INSECURE)
        datagrams = server.run(start)
        server.port = datagrams.port
        yield server
        server.run(datagrams.stop())


def write(server, number, relay, link=relays.GOOD):
    """Yield the steps of a text at a temperature of 1."""

    def connect():
        """Shake hands over a good link, as handshakes have their own tests."""
        relay.link = relays.GOOD
        made = server.link(port=relay.port, transport="datagram")
        relay.link = link
        return made

    options = {"rng": np.random.default_rng(number), "seed": bytes([number] * 16)}
    edge = edge_session([5, 7, 11], sampling=Sampling(), max_message=1171, **options)
    return generate(edge, Draft(), connect, PLANS[number], max_tokens=20)


def test_a_bad_link_does_not_change_seeded_completions(server):
    def run(number, link):
        with Relay(server.port, seed=number) as relay:
            steps = write(server, number, relay, link)
            return [token for step in steps for token in step.tokens]

    good = [run(number, relays.GOOD) for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        assert [*pool.map(run, range(3), [BAD] * 3)] == good
    assert len({*map(tuple, good)}) == 3


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_the_end_of_a_session_is_sent_again_if_it_is_lost(server, lost):
    with Relay(server.port) as relay:
        steps = write(server, 0, relay)
        next(steps)
        assert server.metric("sqs_sessions") == 1
        relay.doomed = range(len(relay.seen), len(relay.seen) + lost)
        steps.close()
        # The server forgets the session right after it has said so.
        wait_until(lambda: server.metric("sqs_sessions") == 0)
