"""A server on real sockets: exact completions, whatever peers and models do."""

import asyncio
import json
import logging
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import sqs_codec as sqs
from sqs_codec.system._base import crowd
from sqs_codec.system._base.crowd import Share
from sqs_codec.system._base.protocol import HINT_THRESHOLD, PART
from sqs_codec.system.edge import FixedPlan, Hints, generate
from sqs_codec.system.engine import EngineInfo
from sqs_codec.system.serve import (
    INSECURE,
    Certificate,
    Service,
    _connection,
    _metrics,
    _service,
    connect,
    start_datagrams,
    start_grpc,
)
from sqs_codec.system.serve._connection import Connection, Owner
from sqs_codec.system.serve._datagram import server as datagram_server
from sqs_codec.system.serve._grpc import server as grpc_server
from sqs_codec.system.serve._threshold import HintThreshold
from sqs_codec.system.session import EdgeSession, LinkError, Setting
from sqs_codec.system.session._wire import Refusal
from sqs_codec.system.session.transport import session_of
from tests.echo import EchoService, running
from tests.refusals import refuses
from tests.system.serve.kit import (
    PATIENCE,
    VOCAB,
    Draft,
    Toy,
    batch,
    both_transports,
    certificate,
    converse,
    draft_round,
    edge_session,
    exchange,
    greedy,
    send,
    serving,
    wait_until,
)

TOKENS = ["a-token-of-one-user", "a-token-of-another"]
PROMPT = [5, 6, 7]
REFUSED = 5
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
INFO = EngineInfo("a toy", VOCAB, 4096)
ROOT = Path(__file__).parents[3]
RECEIVED = "sqs_received_bytes_total"


@pytest.fixture(scope="module")
def server():
    """A server that two tokens open, for tests that leave it as it is."""
    with serving(tokens=TOKENS) as started:
        yield started


def refusal(link):
    """The reason of the next refusal; it ends the link."""
    while (message := link.receive(PATIENCE)) is not None and message[0] != REFUSED:
        pass
    reason = message[1:].decode()
    with pytest.raises(LinkError) as error:
        link.receive(PATIENCE)
    assert reason in str(error.value)
    return reason


def last_words(link):
    try:
        while link.receive(PATIENCE) is not None:
            pass
    except LinkError as error:
        return str(error)
    pytest.fail("the link is still there")


def send_round(edge, link):
    draft_round(edge)
    send(edge, link)


@pytest.mark.parametrize(
    ("token", "words"),
    [("wrong", "refused the access token"), (None, "needs an access token")],
)
def test_access_requires_a_token(server, token, words):
    with both_transports(server) as ports:
        for transport, port in ports.items():
            before = server.metric("sqs_refusals_total", reason="token")
            how = {"port": port, "transport": transport, "token": token}
            refuses(words, server.link, error=LinkError, **how)
            after = server.metric("sqs_refusals_total", reason="token")
            assert after == before + 1


def test_garbage_on_the_socket_does_no_harm(server):
    rng = np.random.default_rng(2)
    edge, link = edge_session(PROMPT), server.link(token=TOKENS[0])
    for trial in range(20):
        with socket.create_connection(("127.0.0.1", server.grpc.port)) as bad:
            bad.sendall(PREFACE * (trial % 2) + rng.bytes(1000))
        converse(edge, link, len(edge.text) + 1)
    assert edge.text == greedy(PROMPT, len(edge.text) - 3)


@pytest.mark.parametrize("size", [65537, 200_000])
def test_oversize_message(server, size):
    link = server.link(token=TOKENS[0])
    refuses("up to 65536 bytes, got", link.send, bytes(size))
    link.max_message = size  # a peer that doesn't care
    link.send(bytes(size))
    words = last_words(link)
    assert str(size) in words
    assert "65536" in words or "131072" in words


def test_a_session_belongs_to_an_access_token_and_a_connection(server):
    edge = edge_session(PROMPT, session_id=bytes(range(16)))
    owner = server.link(token=TOKENS[0])
    converse(edge, owner, 10)
    thief = server.link(token=TOKENS[1])
    send(edge_session(PROMPT, session_id=bytes(range(16))), thief)
    assert refusal(thief) == "the session belongs to another access token"
    assert converse(edge, owner, 30) == greedy(PROMPT, 27)
    new = server.link(token=TOKENS[0])
    edge.reconnect()
    assert converse(edge, new, 50) == greedy(PROMPT, 47)
    assert "a new connection" in last_words(owner)
    send(edge_session(PROMPT), new)
    assert refusal(new) == "a connection has one session at a time"


def test_many_messages_in_one_datagram_count_as_a_flood(monkeypatch):
    monkeypatch.setattr(_connection, "MESSAGE_SECONDS", 0.01)
    with serving() as server, both_transports(server) as ports:
        link = server.link(port=ports["datagram"], transport="datagram")
        for _ in range(30):
            link._endpoint.send(b"\x03")
        [datagram] = link._endpoint.datagrams()
        began = time.monotonic()
        link._socket.send(datagram)
        assert link.receive(PATIENCE) is not None  # the answer to the first
        time.sleep(0.1)
        assert taken_at_most(server, 0.0, began)


def taken_at_most(server, before, began):
    """Messages of 10 ms each: 5 per second, and 5 in advance."""
    taken = server.metric(RECEIVED) - before
    return taken <= 6 + 5 * (time.monotonic() - began)


def test_a_flood_is_slowed_down(monkeypatch):
    monkeypatch.setattr(_connection, "MESSAGE_SECONDS", 0.01)
    with serving() as server, both_transports(server) as ports:
        for transport, port in ports.items():
            before, began = server.metric(RECEIVED), time.monotonic()
            link = server.link(port=port, transport=transport)

            def more_come(link=link, least=before + 5):
                with suppress(LinkError):  # gRPC's says that they wait
                    link.send(b"\x03")
                return server.metric(RECEIVED) >= least

            for _ in range(200):
                more_come()
                time.sleep(0.005)
            assert taken_at_most(server, before, began)
            wait_until(more_come)
            link.close()


def test_an_expensive_message_delays_the_next(monkeypatch):
    """On this connection or the next one; more if all together take too much."""
    cpu = iter(np.arange(1000) * 0.06)  # seconds that each message takes
    monkeypatch.setattr(_connection, "time", SimpleNamespace(thread_time=cpu.__next__))
    monkeypatch.setattr(crowd, "time", SimpleNamespace(monotonic=lambda: 100.0))
    monkeypatch.setattr(_connection, "MESSAGE_SECONDS", 0.0)

    def leave(connection, *_):
        connection.leave()

    def nothing(*_): ...

    # 0.06 s at a share of 0.05, or at a 19th of the share of all, 0.5.
    for crowded, waits in (False, (0.2, 1.4, 2.0)), (True, (1.28, 2.0)):
        owner = Owner("")
        for _ in range(19):
            owner.open()
        owner.charge(Share(), 3.0 * crowded)
        for wait in waits:
            connection = Connection(
                owner, nothing, nothing, on_message=leave, on_end=nothing
            )
            connection.receive(b"")
            assert connection.wait_seconds == pytest.approx(wait)


@pytest.mark.parametrize("plan", [FixedPlan(0), FixedPlan(4), FixedPlan(hints=Hints())])
def test_a_broken_link_keeps_the_sessions_place(plan):
    """A full server refuses a newcomer for now, and gives it the place later."""

    def come():
        send(late, link := server.link())
        assert "sessions); try again later" in last_words(link)
        late.reconnect()

    def make():
        if links:
            wait_until(lambda: not server.service._connections)
            come()
        links.append(server.link())
        return links[-1]

    with serving(max_sessions=1) as server:
        links, late = [], edge_session([3, 1])
        steps = generate(edge_session([0, 1]), Draft(), make, plan, max_tokens=80)
        text = [0, 1, *next(steps).tokens]
        links[-1].close()
        for step in steps:
            if len(links) == 2 and len(text) < 60:
                come()  # it's refused again, although the edge has come back
            text += step.tokens
        assert (text, len(links)) == (greedy([0, 1], 80), 2)
        assert converse(late, server.link(), 20) == greedy([3, 1], 18)


def test_the_order_in_which_sessions_make_room(monkeypatch):
    """First idle ones, as their edges may come back, then one with a broken link."""
    with serving(max_sessions=2) as server:
        edges = [edge_session([i, 1]) for i in range(5)]
        links = [server.link() for _ in edges]
        for edge, link in zip(edges[:2], links[:2], strict=True):
            edge.hold_place()
            converse(edge, link, 10)
        exchange(edges[4], links[4])
        full = "the server is full (2 of 2 sessions); try again later"
        assert edges[4].refused == full
        links[0].close()
        wait_until(lambda: len(server.service._connections) == 3)
        assert edges[1].free_place()
        exchange(edges[1], links[1])
        converse(edges[2], links[2], 10)
        assert "another took its place" in last_words(links[1])
        monkeypatch.setattr(_service, "SILENT_SECONDS", 0.0)
        converse(edges[3], links[3], 10)
        monkeypatch.undo()
        links[3].close()  # without a connection or a place to hold
        edges[1].reconnect()
        links[1] = server.link()
        for i in 1, 2:
            assert converse(edges[i], links[i], 20) == greedy([i, 1], 18)


def test_a_vanished_edge_makes_room(monkeypatch):
    """Silently, as phones do. An edge that waits for an answer isn't silent."""

    def is_refused(server):
        edge, link = edge_session([3, 1]), server.link()
        exchange(edge, link)
        link.close()
        return "the server is full" in (edge.refused or "")

    go_on = threading.Event()
    toy = Toy(lambda jobs: go_on.wait(PATIENCE))
    with serving(toy, max_sessions=2) as server, both_transports(server) as ports:
        waiting, link = edge_session([0, 1]), server.link()
        exchange(waiting, link)
        send_round(waiting, link)
        phone = server.link(port=ports["datagram"], transport="datagram")
        exchange(edge_session([1, 1]), phone)
        phone._socket.close()  # no farewell
        assert is_refused(server)
        with monkeypatch.context() as patch:
            patch.setattr(_service, "SILENT_SECONDS", 0.0)
            late, another = edge_session([2, 1]), server.link()
            exchange(late, another)
        go_on.set()
        exchange(waiting, link)
        assert is_refused(server)
        for edge, on in ((waiting, link), (late, another)):
            assert converse(edge, on, 20) == greedy(edge.text[:2], 18)


@pytest.mark.parametrize("transport", ["grpc", "datagram"])
def test_a_short_prompt_waits_for_its_request(monkeypatch, transport):
    """However long after the text it comes."""
    monkeypatch.setattr(_service, "TOGETHER_SECONDS", PATIENCE)
    calls = []
    with serving(Toy(calls.append)) as server, both_transports(server) as ports:
        for plan in [FixedPlan(0), FixedPlan(0, hints=Hints()), FixedPlan(3)] * 3:
            link = server.link(port=ports[transport], transport=transport)
            edge = edge_session([1] * 50, max_message=link.max_message)
            list(generate(edge, Draft(), link, plan, max_tokens=1))
            [[job]] = calls
            assert job.wanted
            calls.clear()


@pytest.mark.parametrize("transport", ["grpc", "datagram"])
def test_edges_get_the_progress_of_a_prefill(monkeypatch, transport):
    """Of a prefill in several parts, and also while it stalls."""
    monkeypatch.setattr(_service, "PROGRESS_SECONDS", 0.01)
    gate, calls = threading.Event(), []

    def wait(jobs):
        calls.append(jobs)
        assert len(calls) < 3 or gate.wait(PATIENCE)

    with serving(Toy(wait)) as server, both_transports(server) as ports:
        link = server.link(port=ports[transport], transport=transport)
        max_message = link.max_message
        edge = edge_session([1] * 2000, max_message=max_message)
        exchange(edge, link)
        edge.generate(1)
        for _ in range(2):
            while edge.progress < 2000 + 2 * PART:
                exchange(edge, link)
            exchange(edge, link)  # the same again
            assert edge.progress == 2000 + 2 * PART
        gate.set()
        assert converse(edge, link, 2001, "generate") == greedy([1] * 2000, 1)


def test_nothing_is_computed_for_a_disconnected_edge():
    calls = []
    toy = Toy(lambda jobs: calls.append(time.sleep(0.01) or len(jobs)))
    with serving(toy) as server:
        edge, link = edge_session(PROMPT), server.link()
        exchange(edge, link)
        edge.generate(50)
        send(edge, link)
        wait_until(lambda: len(calls) > 5)
        link.close()
        wait_until(lambda: not server.service._connections)
        before = len(calls)
        time.sleep(0.2)
        assert len(calls) <= before + 1
        edge.reconnect()
        assert converse(edge, server.link(), 53) == greedy(PROMPT, 50)


def test_idle_sessions_are_forgotten():
    toy = Toy()
    with serving(toy) as server:
        edge, link = edge_session(PROMPT), server.link()
        converse(edge, link, 10)
        server.service._idle_seconds = 0.2
        server._loop.call_soon_threadsafe(server.service._sweep)
        assert "no message for 0.2 seconds" in last_words(link)
        assert server.metric("sqs_sessions") == 0
        assert toy.forgotten
        server.service._idle_seconds = PATIENCE
        edge.reconnect()
        assert converse(edge, server.link(), 30) == greedy(PROMPT, 27)


def test_a_connection_without_a_session_is_closed(monkeypatch):
    monkeypatch.setattr(_service, "HANDSHAKE_SECONDS", 0.1)
    with serving() as server:
        link = server.link()
        assert "no session was opened within 0.1 seconds" in last_words(link)


@pytest.mark.parametrize("grace", [PATIENCE, 0.1])
def test_shutdown_waits_for_running_jobs_for_a_time(grace):
    toy, begun, go_on = Toy(), threading.Event(), threading.Event()
    with serving(toy) as server, ThreadPoolExecutor(1) as pool:
        edge, link = edge_session(PROMPT), server.link()
        converse(edge, link, 10)
        toy.on_call = lambda jobs: begun.set() or go_on.wait(PATIENCE)
        send_round(edge, link)
        assert begun.wait(PATIENCE)
        stopping, length = pool.submit(server.stop, grace), len(edge.text)
        if grace == PATIENCE:
            go_on.set()
            exchange(edge, link)
            assert len(edge.text) > length
        assert "the server is shutting down" in last_words(link)
        go_on.set()
        stopping.result(PATIENCE)


def test_metrics(monkeypatch):
    with serving() as server, ExitStack() as stack:
        edge, link = edge_session(PROMPT), server.link()
        converse(edge, link, 60)
        link.close()
        monkeypatch.setattr(_metrics, "READING_SECONDS", 0.2)
        page = server.run(server.service.metrics.serve("127.0.0.1", 0))
        stack.callback(server._loop.call_soon_threadsafe, page.close)
        place = page.sockets[0].getsockname()
        with socket.create_connection(place, PATIENCE) as idle:
            assert not idle.recv(1)
        monkeypatch.setattr(_metrics, "READING_SECONDS", PATIENCE)
        url = f"http://127.0.0.1:{place[1]}"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url, timeout=PATIENCE)
        monkeypatch.setattr(server.engine, "health", lambda: "it has lost \x1b a GPU")
        with pytest.raises(urllib.error.HTTPError, match="503") as unwell:
            urllib.request.urlopen(f"{url}/health", timeout=PATIENCE)
        assert unwell.value.read() == b"it has lost <1b> a GPU\n"
        answer = urllib.request.urlopen(f"{url}/metrics", timeout=PATIENCE)
        lines = answer.read().decode().splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines)
        labels = 'engine="0",model_name="a toy"'  # vLLM's, for dashboards
        accepted = "vllm:spec_decode_num_accepted_tokens%s_total{%s}"
        at = [f'{labels},position="{position}"' for position in range(4)]
        counts = [float(values[accepted % ("_per_pos", each)]) for each in at]
        assert counts == sorted(counts, reverse=True)
        assert sum(counts) == float(values[accepted % ("", labels)])
        # Of messages, without what the transport adds.
        assert 0 < server.metric(RECEIVED) < link.sent
        assert 0 < server.metric("sqs_sent_bytes_total") < link.received


@pytest.mark.parametrize("said", [b"", b"GET /health HTTP/1.1\r\nHost: "])
def test_silent_readers_make_room(said, monkeypatch):
    """The first one of the host that has most."""
    monkeypatch.setattr(_metrics, "MOST_READERS", 8)
    monkeypatch.setattr(_metrics, "READING_SECONDS", PATIENCE)
    with serving() as server, ExitStack() as stack:
        page = server.run(server.service.metrics.serve("127.0.0.1", 0))
        place = page.sockets[0].getsockname()

        def come(host="127.0.0.1"):
            made = socket.create_connection(place, PATIENCE, (host, 0))
            made.sendall(said)
            return stack.enter_context(made)

        other, crowd = come("127.0.0.2"), []
        for _ in range(20):
            crowd.append(come())
            answer = urllib.request.urlopen(
                f"http://127.0.0.1:{place[1]}/health", timeout=PATIENCE
            )
            assert answer.status == 200
        for gone in crowd[:12]:
            with suppress(ConnectionResetError):
                assert not gone.recv(1)
        for stays in (other, *crowd[-3:]):
            stays.settimeout(0)
            with pytest.raises(BlockingIOError):
                stays.recv(1)
        server._loop.call_soon_threadsafe(page.close)


SMALL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from sqs_codec.system.serve._grpc import server as grpc_server
from sqs_codec.system.serve._threshold import HintThreshold
from tests.system.serve.kit import Server, Toy, both_transports
grpc_server.IDLE_SECONDS = 2.0
with both_transports(Server(Toy())) as ports:
    print(*ports.values(), flush=True)
    sys.stdin.read()
"""


def test_idle_connections_are_limited():
    """A further one gets an error; connections without a stream are closed."""
    with (
        subprocess.Popen(
            [sys.executable, "-c", SMALL],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        ) as process,
        ExitStack() as stack,
    ):
        stack.callback(process.kill)
        port, udp = map(int, process.stdout.readline().split())
        edge = edge_session(PROMPT)
        early = connect(f"127.0.0.1:{port}", security=INSECURE)
        converse(edge, early, 10)
        place = ("127.0.0.1", port)
        strangers = [
            stack.enter_context(socket.create_connection(place)) for _ in range(80)
        ]
        strangers[0].sendall(PREFACE + b"\0\0\0\4\0\0\0\0\0")
        with pytest.raises(LinkError, match="that it isn't full"):
            # Of another timeout, or gRPC would share the connection of `early`.
            connect(f"127.0.0.1:{port}", security=INSECURE, timeout=9.0)
        assert converse(edge, early, 30) == greedy(PROMPT, 27)
        strangers[0].settimeout(PATIENCE)
        while strangers[0].recv(1000):
            pass
        late = connect(f"127.0.0.1:{port}", security=INSECURE, timeout=8.0)
        address = f"127.0.0.1:{udp}"
        datagrams = connect(address, transport="datagram", security=INSECURE)
        for link in (late, datagrams):
            edge = edge_session(PROMPT, max_message=link.max_message)
            assert converse(edge, link, 30) == greedy(PROMPT, 27)
        for link in (early, late, datagrams):
            link.close()


def test_tls(tmp_path, monkeypatch):
    monkeypatch.setattr(grpc_server, "IDLE_SECONDS", 1.0)
    cert, key = certificate(tmp_path)
    own, trusted = Certificate(cert, key), Certificate(cert)
    with serving(security=own, tokens=TOKENS) as server:
        port = server.grpc.port
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as silent:
            assert not silent.recv(1)
        for host in ("localhost", "127.0.0.1"):
            how = {"security": trusted, "token": TOKENS[0]}
            with closing(connect(f"{host}:{port}", **how)) as link:
                assert converse(edge_session(PROMPT), link, 30) == greedy(PROMPT, 27)
        with pytest.raises(LinkError, match=r"trusted \(self signed certificate\)"):
            connect(f"localhost:{port}", token=TOKENS[0])
        with pytest.raises(LinkError, match="runs with --insecure, too"):
            connect(f"localhost:{port}", token=TOKENS[0], security=INSECURE)


def test_mismatched_certificates(server, tmp_path):
    for options, words in (
        ({"name": "example.org"}, "for another name"),
        ({"minutes": -30}, "certificate has expired"),
    ):
        cert, key = certificate(tmp_path, **options)
        trusted = {"security": Certificate(cert), "error": LinkError}
        with serving(security=Certificate(cert, key)) as other:
            refuses(words, connect, f"localhost:{other.grpc.port}", **trusted)
    refuses("plain text", connect, server.address, **trusted)


def test_no_server():
    with pytest.raises(LinkError, match="nothing listens on this port"):
        connect("127.0.0.1:1", security=INSECURE)
    with pytest.raises(LinkError, match="no host has this name"):
        connect("nowhere.invalid:1", timeout=5.0)
    with pytest.raises(LinkError, match="can't load the certificate"):
        connect("localhost:1", security=Certificate("nowhere.pem"))
    for address in ("localhost", "localhost:", ":1", "a:0", "a:99999", "::1:5", ""):
        refuses("must be HOST:PORT", connect, address, security=INSECURE)
    refuses("isn't this machine", connect, "192.0.2.1:1", security=INSECURE)
    refuses("transport must be one of", connect, "localhost:1", transport="pigeon")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        silent = f"127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(LinkError, match=r"didn't answer within 0\.3 seconds"):
            connect(silent, security=INSECURE, timeout=0.3)


HOSTILE = "\x1b]0;owned\x07\x1b[2J\n\u009b31m \u202e"


@pytest.mark.parametrize(
    ("transport", "start"), [("grpc", start_grpc), ("datagram", start_datagrams)]
)
def test_server_messages_cannot_control_the_terminal(transport, start):
    def refuse(message):
        service.connections[0].end("", HOSTILE)

    service = EchoService(refuse, tokens=None)
    how = {"security": INSECURE}
    with running(partial(start, service, "127.0.0.1", 0, **how)) as server:
        address = f"127.0.0.1:{server.port}"
        with closing(connect(address, transport=transport, **how)) as link:
            link.send(b"hello")
            with pytest.raises(LinkError, match=r"closed the conn.*owned<07>") as error:
                link.receive(PATIENCE)
    assert str(error.value).isprintable()
    edge = edge_session(PROMPT)
    edge.receive(Refusal(HOSTILE).to_bytes())
    assert edge.refused == "<1b>]0;owned<07><1b>[2J<0a><9b>31m <202e>"


@pytest.mark.parametrize("transport", ["grpc", "datagram"])
def test_a_waiting_link_is_woken(server, transport):
    with both_transports(server) as ports, ThreadPoolExecutor(1) as other:
        link = server.link(port=ports[transport], transport=transport, token=TOKENS[0])
        with closing(link):
            for timeout in (2 * PATIENCE, None):
                waiting = other.submit(link.receive, timeout)
                link.wake()  # while it waits, or before
                assert waiting.result(PATIENCE) is None
            for _ in range(300):
                link.wake()
            assert link.receive(0) is None
            exchange(edge_session([1]), link)  # nothing is lost by it
            link.close()  # for the first of two times
            refuses("closed", link.send, b"x", error=LinkError)
            refuses("closed", link.receive, 0, error=LinkError)
        link.wake()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tokens": []}, "at least one token"),
        ({"tokens": "abc"}, "a collection"),
        ({"tokens": ["a b"]}, "visible ASCII"),
        ({"tokens": [""]}, "1 to 512"),
        ({"max_sessions": 0}, "max_sessions must be at least 1"),
        ({"idle_seconds": float("nan")}, "idle_seconds must be finite"),
    ],
)
def test_bad_options(options, words):
    refuses(words, Service, batch(Toy()), INFO, **{"tokens": None} | options)


def test_the_first_session_does_not_wait_for_priors(monkeypatch):
    prior, info = sqs.Prior.builtin("smollm2"), EngineInfo("a toy", 49152, 4096)
    codec = sqs.Codec(49152, 37, prior=prior)  # of no other test
    service = Service(batch(Toy()), info, tokens=None)
    monkeypatch.setattr(sqs.Prior, "builtin", None)
    rng = np.random.default_rng(0)
    edge = EdgeSession([Setting(codec, sqs.TopK(8))], PROMPT, rng=rng)
    hello = edge.data_to_send()[0]
    cloud = service._cloud(session_of(hello))
    cloud.receive(hello)
    assert cloud.refused is None


def test_the_threshold_of_hints_rises_with_the_load():
    hinted = []
    toy = Toy(lambda jobs: time.sleep(0.02) or hinted.append(len(jobs[0].hints)))
    guess = greedy(PROMPT, 6)[len(PROMPT) :]
    with serving(toy, steps={1: 0.1, 6: 0.11}) as server:
        for given, read in (0, True), (10**6, False):  # tokens, to others just now
            server.service._threshold.count(given, server._loop.time())
            edge, link = edge_session(PROMPT), server.link()
            while edge.limits is None:
                exchange(edge, link)
            edge.generate(6)
            send(edge, link)
            edge.hint(len(PROMPT), [((), guess, [0.7] * 6)])
            assert converse(edge, link, 9) == greedy(PROMPT, 6)
            link.close()
            assert (max(hinted) > 1) is read
            hinted.clear()


def test_edges_get_the_times_of_recent_forward_passes():
    """A server started on a busy machine reports the load only for a while."""
    with serving(steps={1: 100.0, 6: 150.0}) as server:
        for told in (True, False):
            edge, link = edge_session(PROMPT), server.link()
            assert len(converse(edge, link, 90, "generate")) == 90
            assert (edge.target_steps == pytest.approx({1: 100.0, 6: 150.0})) is told
            link.close()
        assert edge.target_steps[6] == pytest.approx(1.5 * edge.target_steps[1], 0.1)
        assert edge.target_steps[1] < 10


def test_the_threshold_is_bounded_and_forgets():
    for steps in (None, {}, {1: 0.1}):
        assert HintThreshold(steps).at(0.0) == HINT_THRESHOLD
    noisy = HintThreshold({1: 0.1, 6: 0.09})
    noisy.count(100, 0.0)
    assert noisy.at(0.0) == 0.02
    busy = HintThreshold({1: 0.1, 6: 0.15})
    busy.count(1000, 0.0)
    assert busy.at(0.0) == 0.95
    assert busy.at(60.0) == pytest.approx(0.1)  # one token per forward pass


def test_an_invalid_hello_frees_its_place(caplog):
    """A lone surrogate, which a refusal would repeat, can't be encoded."""
    edge = edge_session(PROMPT)
    hello = json.loads(edge.data_to_send()[0][1:])
    hello["codecs"][0]["prior"] = "\ud800"
    message = b"\x01" + json.dumps(hello).encode()
    with serving() as server, both_transports(server) as ports:
        for transport, port in ports.items():
            link = server.link(port=port, transport=transport)
            link.send(message)
            assert "needs the prior" in refusal(link)
    assert not [r for r in caplog.records if r.exc_info]


def test_silent_connections_leave_room_for_others(monkeypatch):
    """Connections of one token without sessions can't block another token."""
    monkeypatch.setattr(datagram_server, "_MAX_CLIENTS", 24)
    with (
        serving(tokens=TOKENS, max_sessions=2) as server,
        both_transports(server) as ports,
    ):
        for transport, port in ports.items():
            place = {"port": port, "transport": transport, "timeout": 5.0}
            silent = [server.link(token=TOKENS[0], **place) for _ in range(40)]
            link = server.link(token=TOKENS[1], **place)
            edge = edge_session(PROMPT, max_message=link.max_message)
            assert converse(edge, link, 10) == greedy(PROMPT, 7)
            assert "more than 18 connections have no session" in last_words(silent[0])


def frame(kind, flags, stream, data):
    """A frame of HTTP/2."""
    head = len(data).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + data


def call_of(stream, path, token, *messages):
    """A call of gRPC that sends messages."""
    fields = {
        **{":method": "POST", ":scheme": "http", ":path": path, ":authority": "x"},
        **{"content-type": "application/grpc", "te": "trailers"},
        "authorization": f"Bearer {token}",
    }
    texts = [text.encode() for pair in fields.items() for text in pair]
    strings = [bytes([len(text)]) + text for text in texts]
    head = b"".join(b"\0" + k + v for k, v in zip(*[iter(strings)] * 2, strict=True))
    sent = (b"\0" + len(each).to_bytes(4, "big") + each for each in messages)
    return frame(1, 4, stream, head) + frame(0, 0, stream, b"".join(sent))


OPEN = "/sqs.Sessions/Open"
UNREAD = PREFACE + frame(4, 0, 0, b"\0\4\0\0\0\0")  # a window of no bytes


def test_a_client_that_reads_no_answers_is_disconnected(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    for name in ("SHARE", "OWNER_SHARE"):
        monkeypatch.setattr(_connection, name, 100.0)
    with serving(tokens=TOKENS) as server:
        place = ("127.0.0.1", server.grpc.port)
        with socket.create_connection(place) as peer:
            peer.sendall(UNREAD + call_of(1, OPEN, TOKENS[0], *[b"\2"] * 300))
            wait_until(lambda: server.metric("sqs_refusals_total", reason="slow") > 0)
    assert "(slow): the client hasn't read 256 messages" in caplog.text


@pytest.mark.parametrize(
    ("path", "token"), [("/grpc.health.v1.Health/Check", "none"), (OPEN, TOKENS[0])]
)
def test_a_client_that_does_not_read_loses_its_place(monkeypatch, path, token):
    """By itself gRPC keeps a call as long as its peer's window is shut."""
    for name in ("STRANGER_SECONDS", "CLOSING_SECONDS"):
        monkeypatch.setattr(grpc_server, name, 0.2)
    monkeypatch.setattr(_service, "HANDSHAKE_SECONDS", 0.2)
    with serving(tokens=TOKENS, max_sessions=2) as server, ExitStack() as stack:

        async def calls():
            names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]
            return names.count("_handle_exceptions")

        for _ in range(3):
            place = ("127.0.0.1", server.grpc.port)
            peer = stack.enter_context(socket.create_connection(place))
            peer.sendall(UNREAD)
            for i in range(20):
                peer.sendall(call_of(2 * i + 1, path, token, b"\2" * (path[1] == "s")))
        link = server.link(token=TOKENS[1])
        assert converse(edge_session(PROMPT), link, 10) == greedy(PROMPT, 7)
        wait_until(lambda: server.run(calls()) == 1)


def test_health_checks_hold_no_place(monkeypatch):
    """They need no token, so whoever watched could shut all edges out."""
    monkeypatch.setattr(grpc_server, "STRANGER_SECONDS", 1.0)
    with (
        serving(tokens=TOKENS, max_sessions=2) as server,
        grpc.insecure_channel(server.address) as channel,
        grpc.insecure_channel(server.address, [("another", 1)]) as other,
    ):
        stub = health_pb2_grpc.HealthStub(other)
        with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
            next(stub.Watch(health_pb2.HealthCheckRequest()))
        check = channel.stream_unary("/grpc.health.v1.Health/Check")
        never = threading.Event()
        unasked = [check.future(iter(never.wait, True)) for _ in range(100)]
        stub.Check(health_pb2.HealthCheckRequest())
        with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
            stub.Check(health_pb2.HealthCheckRequest(service="another"))
        link = server.link(token=TOKENS[0])
        assert converse(edge_session(PROMPT), link, 10) == greedy(PROMPT, 7)
        wait_until(lambda: all(call.done() for call in unasked))
        never.set()
