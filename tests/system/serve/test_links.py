"""Whole texts over bad links, by both transports: nothing wrong, nothing lost."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from sqs_codec import Sampling
from sqs_codec.system.edge import FixedPlan, _line, generate
from sqs_codec.system.serve import INSECURE, connect, start_datagrams
from tests import relay as relays
from tests.relay import Relay, StreamRelay
from tests.system.serve.kit import (
    Draft,
    edge_session,
    greedy,
    serving,
    wait_until,
)

PROMPT = [5, 7, 11]
BAD = relays.Link(trip=0.01, loss=0.2, duplicate=0.2, reorder=0.3, truncate=0.03)
PLANS = FixedPlan(4), FixedPlan(6), FixedPlan(0)


@pytest.fixture(autouse=True)
def _short_timeouts(monkeypatch):
    """Here a round trip takes 10 ms whatever crosses, so nobody need wait for more."""
    names = "FIRST", "LEAST", "MOST", "SLOWEST"
    for name, value in zip(names, (0.1, 0.03, 0.3, 1e6), strict=True):
        monkeypatch.setattr(_line.Timeout, name, value)


@contextmanager
def serve():
    """Serve a toy by both transports."""
    with serving(max_sessions=16) as server:
        start = start_datagrams(server.service, "127.0.0.1", 0, security=INSECURE)
        datagrams = server.run(start)
        ports = {"grpc": server.grpc.port, "datagram": datagrams.port}
        yield SimpleNamespace(metric=server.metric, **ports)
        server.run(datagrams.stop())


def session(text=PROMPT, *, temperature=0.0, number=0, rounds=True):
    own = number.to_bytes(16, "big")
    return edge_session(
        text,
        rng=np.random.default_rng(number),
        sampling=Sampling(temperature),
        session_id=own,
        seed=own,
        rounds=rounds,
        max_message=1171,
    )


def direct(port, transport="datagram"):
    address = f"127.0.0.1:{port}"
    return lambda: connect(address, transport=transport, security=INSECURE)


def through(relay):
    """Connect by a link that is good for the handshake, which has its own tests."""

    def make():
        relay.link = relays.GOOD
        link = direct(relay.port)()
        relay.link = BAD
        return link

    return make


def tokens(steps):
    return [token for step in steps for token in step.tokens]


def each(run, *arguments):
    """Call a function for each of some arguments, all at once."""
    with ThreadPoolExecutor(len(arguments[0])) as pool:
        return [*pool.map(run, *arguments)]


def test_a_bad_link_changes_no_draw():
    """By any plan, at a temperature of 1: the text is that of a good link."""

    def run(number, make):
        edge = session(temperature=1.0, number=number)
        return tokens(generate(edge, Draft(), make, PLANS[number], max_tokens=20))

    def run_badly(number):
        with Relay(server.datagram, seed=number) as relay:
            return run(number, through(relay))

    with serve() as server:
        good = [run(number, direct(server.datagram)) for number in range(3)]
    with serve() as server:
        assert each(run_badly, range(3)) == good
    assert len({*map(tuple, good)}) == 3


def test_streams_that_stall_and_break():
    link = relays.Link(1e6, 0.004, 1e6, loss=0.05)
    with serve() as server, StreamRelay(server.grpc, link) as relay:
        text = []
        links = direct(relay.port, "grpc")
        steps = generate(session(), Draft(), links, FixedPlan(4), max_tokens=40)
        for step in steps:
            before, text = len(text), [*text, *step.tokens]
            if before < 10 <= len(text):
                relay.disconnect()
    assert text == greedy(PROMPT, 40)[len(PROMPT) :]


def test_a_stream_that_leads_nowhere_is_left(monkeypatch):
    """By the edge, after two silences: nobody tells it."""
    monkeypatch.setattr(_line, "SILENCE", 0.3)
    made = []

    def make():
        made.append(direct(relay.port, "grpc")())
        return made[-1]

    with serve() as server, StreamRelay(server.grpc) as relay:
        text = []
        edge = session(temperature=1.0, rounds=False)
        for step in generate(edge, Draft(), make, FixedPlan(0), max_tokens=300):
            before, text = len(text), [*text, *step.tokens]
            if before < 10 <= len(text):
                relay.strand()
        whole = session(temperature=1.0, rounds=False)
        steps = generate(whole, Draft(), make, FixedPlan(0), max_tokens=300)
        assert text == tokens(steps)
    assert len(made) >= 3


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_an_end_that_is_lost_is_told_again(lost):
    with serve() as server, Relay(server.datagram) as relay:
        make = direct(relay.port)
        steps = generate(session(), Draft(), make, FixedPlan(4), max_tokens=20)
        next(steps)
        assert server.metric("sqs_sessions") == 1
        relay.doomed = range(len(relay.seen), len(relay.seen) + lost)
        steps.close()
        # The server forgets the session right after it has said so.
        wait_until(lambda: server.metric("sqs_sessions") == 0)
