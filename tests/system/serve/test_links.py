"""Whole texts over bad links, by both transports: nothing wrong, nothing lost."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from sqs_codec.system.edge import FixedPlan, _line, generate
from sqs_codec.system.engine import BatchEngine
from sqs_codec.system.serve import Service, connect, start_datagrams, start_grpc
from sqs_codec.system.session import EdgeSession, Sampling, Setting
from tests import relay as relays
from tests.certificates import issue
from tests.echo import TOKEN, running
from tests.relay import Relay, StreamRelay
from tests.system.serve.kit import CODEC, KEEP, Draft, Toy, greedy, wait_until

HOST = "127.0.0.1"
PROMPT = [5, 7, 11]
BAD = relays.Link(trip=0.01, loss=0.2, duplicate=0.2, reorder=0.3, truncate=0.03)
PLANS = FixedPlan(4), FixedPlan(6), FixedPlan(0)


class Cloud:
    """A service with an engine, and what transports it."""

    def __init__(self, engine, service, server):
        self._engine = engine
        self._service = service
        self._server = server
        self.port = server.port

    async def stop(self, grace):
        """Stop them."""
        await self._service.stop(grace)
        await self._server.stop(grace)
        await self._engine.close()


@pytest.fixture(autouse=True)
def _short_timeouts(monkeypatch):
    """Here a round trip takes 10 ms whatever crosses, so nobody need wait for more."""
    names = "FIRST", "LEAST", "MOST", "SLOWEST"
    for name, value in zip(names, (0.1, 0.03, 0.3, 1e6), strict=True):
        monkeypatch.setattr(_line.Timeout, name, value)


@pytest.fixture(scope="module")
def cert(tmp_path_factory):
    return issue(tmp_path_factory.mktemp("certificate"), HOST).cert


async def start_service(engine, **options):
    """Serve a toy model."""
    service = Service(engine, await engine.open(), tokens=[TOKEN], **options)
    await service.start()
    return service


@pytest.fixture
def serve(cert):
    @contextmanager
    def serving(start=start_datagrams):
        async def begin():
            engine = BatchEngine(Toy())
            service = await start_service(engine, max_sessions=16)
            security = {"cert": cert, "key": cert.with_suffix(".key")}
            return Cloud(engine, service, await start(service, HOST, 0, **security))

        with running(begin) as server:
            yield server

    return serving


def session(text=PROMPT, *, temperature=0.0, number=0):
    return EdgeSession(
        [Setting(CODEC, KEEP)],
        text,
        rng=np.random.default_rng(number),
        sampling=Sampling(temperature),
        session_id=number.to_bytes(16, "big"),
        seed=number.to_bytes(16, "big"),
        max_message=1171,
    )


def direct(port, cert, transport="datagram"):
    address = f"{HOST}:{port}"
    return lambda: connect(address, transport=transport, cert=cert, token=TOKEN)


def through(relay, cert):
    """Connect by a link that is good for the handshake, which has its own tests."""

    def make():
        relay.link = relays.GOOD
        link = direct(relay.port, cert)()
        relay.link = BAD
        return link

    return make


def tokens(steps):
    return [token for step in steps for token in step.tokens]


def each(run, *arguments):
    """Call a function for each of some arguments, all at once."""
    with ThreadPoolExecutor(len(arguments[0])) as pool:
        return [*pool.map(run, *arguments)]


def test_a_bad_link_changes_no_draw(serve, cert):
    """By any plan, at a temperature of 1: the text is that of a good link."""

    def run(number, make):
        edge = session(temperature=1.0, number=number)
        return tokens(generate(edge, Draft(), make, PLANS[number], max_tokens=20))

    def run_badly(number):
        with Relay(server.port, seed=number) as relay:
            return run(number, through(relay, cert))

    with serve() as server:
        good = [run(number, direct(server.port, cert)) for number in range(3)]
    with serve() as server:
        assert each(run_badly, range(3)) == good
    assert len({*map(tuple, good)}) == 3


def test_a_long_prompt_through_a_bad_link(serve, cert):
    prompt = [i * i % 64 for i in range(1800)]
    with serve() as server, Relay(server.port) as relay:
        make = through(relay, cert)
        steps = generate(session(prompt), Draft(), make, FixedPlan(4), max_tokens=8)
        assert tokens(steps) == greedy(prompt, 8)[len(prompt) :]


def test_a_cloud_is_restarted_and_an_address_changes(serve, cert):
    with serve() as server, serve() as restarted, Relay(server.port) as relay:
        text = []
        make = through(relay, cert)
        edge = session()
        for step in generate(edge, Draft(), make, FixedPlan(4), max_tokens=30):
            before, text = len(text), [*text, *step.tokens]
            if before < 10 <= len(text):
                relay.server_port = restarted.port
            if before < 20 <= len(text):
                relay.renumber()
    assert text == greedy(PROMPT, 30)[len(PROMPT) :]


def test_streams_that_stall_and_break(serve, cert):
    link = relays.Link(1e6, 0.004, 1e6, loss=0.05)
    with serve(start_grpc) as server, StreamRelay(server.port, link) as relay:
        text = []
        links = direct(relay.port, cert, "grpc")
        steps = generate(session(), Draft(), links, FixedPlan(4), max_tokens=40)
        for step in steps:
            before, text = len(text), [*text, *step.tokens]
            if before < 10 <= len(text):
                relay.disconnect()
    assert text == greedy(PROMPT, 40)[len(PROMPT) :]


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_an_end_that_is_lost_is_told_again(cert, lost):
    async def begin():
        engine = BatchEngine(Toy())
        services.append(service := await start_service(engine))
        key = cert.with_suffix(".key")
        server = await start_datagrams(service, HOST, 0, cert=cert, key=key)
        return Cloud(engine, service, server)

    services = []
    with running(begin) as server, Relay(server.port) as relay:
        make = direct(relay.port, cert)
        steps = generate(session(), Draft(), make, FixedPlan(4), max_tokens=20)
        next(steps)
        sessions = services[0].metrics.registry.get_sample_value
        assert sessions("sqs_sessions") == 1
        relay.doomed = range(len(relay.seen), len(relay.seen) + lost)
        steps.close()
        # The server forgets the session right after it has said so.
        wait_until(lambda: sessions("sqs_sessions") == 0)
