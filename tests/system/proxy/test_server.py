"""``sqs proxy`` under attack: limits of connections."""

import asyncio
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any
from unittest.mock import Mock

import pytest

from sqs_codec.system._base.protocol import MODES
from sqs_codec.system._endpoint.errors import ApiError
from sqs_codec.system._endpoint.server import make_server
from sqs_codec.system.edge._metrics import EdgeMetrics
from sqs_codec.system.proxy import make_app
from sqs_codec.system.proxy._completer import Chunk, Completion
from sqs_codec.system.proxy._draft import GoneError, link
from sqs_codec.system.serve import Certificate
from tests.system.serve.kit import (
    PATIENCE,
    certificate,
    wait_until,
)

KEY = "a-key-of-the-tests"
AUTHORIZED = f"Authorization: Bearer {KEY}\r\n"


class Played:
    """In place of a `Completer`: texts without end."""

    modes = MODES

    def __init__(self, text="sea "):
        self.text = text
        self.answers = []

    async def write(self, request):
        self.answers.append(Completion())
        asyncio.ensure_future(self._play(self.answers[-1]))  # noqa: RUF006  # it ends
        return self.answers[-1]

    async def _play(self, answer):
        while not answer.gone.done():
            answer.put(Chunk(self.text, "draft", EdgeMetrics()))
            await asyncio.sleep(0.01)

    async def close(self):
        for answer in self.answers:
            answer.put(ApiError("it stops", status=503))
            answer.close()


class Endpoint:
    """A server in a thread."""

    def __init__(self, app, *, clients=8, own=None):
        self.server = make_server(app, clients=clients, certificate=own)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self.server.run, args=[[self._listener]])
        self._thread.start()
        self._opened = ExitStack()
        wait_until(lambda: self.server.started)

    def close(self):
        self._opened.close()
        self.server.should_exit = True
        self._thread.join()
        self._listener.close()

    def open(self, host="127.0.0.1"):
        raw = socket.create_connection(("127.0.0.1", self.port), 20, (host, 0))
        return self._opened.enter_context(raw)

    def ask(self, path, more=AUTHORIZED, host="localhost"):
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n"
        with self.open() as raw:
            raw.sendall(head.encode("latin-1"))
            return b"".join(iter(lambda: raw.recv(65536), b""))

    def status(self, *given):
        return int(self.ask(*given).split()[1])


def playing(completer=None, own=None, **options):
    app = make_app(completer or Played(), api_key=KEY, **options)
    return closing(Endpoint(app, own=own))


@pytest.fixture(scope="module")
def endpoint():
    with playing(hosts=["edge.example.org"]) as endpoint:
        yield endpoint


def stream(raw):
    body = json.dumps({"prompt": "why", "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{AUTHORIZED}"
    raw.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def ended(raw):
    raw.settimeout(0)
    try:
        while raw.recv(1 << 20):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


OURS = "LOCALHOST:8080 127.0.0.1 [::1]:8080 Edge.example.org"
STRANGE = """localhost/../x? localhost/../../../../../../../etc/passwd? user@localhost
evil.example@localhost localhost:99999 localhost:8:0 localhost: localhost. ::1 127.1
[127.0.0.1] [fe80::1%evil.example] [::1%25evil] evil.example ["""


def test_only_known_hosts_are_served(endpoint):
    expected = dict.fromkeys(OURS.split(), 200) | dict.fromkeys(STRANGE.split(), 403)
    for host, status in (
        expected | {"": 403, "localhost\r\nHost: localhost": 400}
    ).items():
        answer = endpoint.ask("/", "", host)
        assert int(answer.split()[1]) == status, host
        assert (b"<html" in answer) == (status == 200)


def test_repeated_headers(endpoint):
    assert endpoint.status("/metrics", f"authorization: bEaReR {KEY}\r\n") == 200
    assert endpoint.status("/metrics", f"Authorization: Basic {KEY}\r\n") == 401
    assert endpoint.status("/metrics", "Authorization: Bearer \xe9\r\n") == 401
    assert endpoint.status("/metrics", AUTHORIZED * 2) == 400
    assert endpoint.status("/metrics", AUTHORIZED + "A: b\r\n" * 100) == 200
    assert endpoint.status("/metrics", "A: 0123456789\r\n" * 1500) == 431


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_a_client_without_the_key_gets_one_answer(method):
    head = f"{method} /health HTTP/1.1\r\nHost: localhost\r\nOrigin: https://a.example"
    asked = f"{head}\r\nAccess-Control-Request-Method: POST\r\n\r\n"
    with playing(origins=["https://a.example"]) as endpoint:
        raw = endpoint.open()
        raw.sendall(2 * asked.encode())
        assert b"".join(iter(lambda: raw.recv(65536), b"")).count(b" 200 OK") == 1


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHo", b"GET /page.js HTTP"])
def test_silent_clients_without_the_key_make_room(said, monkeypatch):
    monkeypatch.setattr("sqs_codec.system._endpoint.server.CONNECTIONS", 4)
    if said.endswith(b"HTTP"):  # what is asked for isn't read
        said = (said + b"/1.1\r\nHost: localhost\r\n\r\n") * 500
    with playing() as endpoint:
        writes, known = endpoint.open(), endpoint.open()
        stream(writes)
        assert writes.recv(4096)
        asks = f"GET /v1/models HTTP/1.1\r\nHost: [::1]\r\n{AUTHORIZED}\r\n"
        known.sendall(asks.encode())
        assert b" 200 " in known.recv(4096)
        alone = endpoint.open("127.0.0.2")
        crowd = []
        for _ in range(12):
            crowd.append(endpoint.open())
            crowd[-1].sendall(said)
            assert endpoint.status("/metrics") == 200
        wait_until(lambda: all(map(ended, crowd[:8])))
        assert not ended(alone)  # the crowd's host makes room
        assert not ended(known)
        assert writes.recv(4096)


def test_answers_not_read_in_time(monkeypatch):
    """A stream with the key; its places must be freed."""
    monkeypatch.setattr("sqs_codec.system._endpoint.server.READING_SECONDS", 0.2)
    completer = Played("sea " * 20_000)
    with playing(completer) as endpoint, endpoint.open() as raw:
        stream(raw)
        wait_until(lambda: bool(completer.answers) and completer.answers[0].gone.done())
        wait_until(lambda: not endpoint.server.server_state.connections)


class Late(Played):
    """A text that comes after a while, all at once."""

    async def _play(self, answer):
        await asyncio.sleep(1.2)
        answer.put(Chunk(self.text, "draft", EdgeMetrics()))
        answer.put(Chunk("", "cloud", EdgeMetrics(), "stop", 0, True))


def test_a_slow_reader_gets_everything(monkeypatch):
    """A text that takes longer to write and to read than the limit of silence."""
    monkeypatch.setattr("sqs_codec.system._endpoint.server.SILENT_SECONDS", 0.5)
    monkeypatch.setattr("sqs_codec.system._endpoint.server.READING_SECONDS", 1.5)
    with playing(Late("x" * 16_000_000)) as endpoint, endpoint.open() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        stream(raw)
        size = 0
        while size < 16_000_000 and (data := raw.recv(1 << 17)):
            size += len(data)
            time.sleep(0.02)
        assert size >= 16_000_000


def test_a_client_that_does_not_read_makes_room(monkeypatch):
    """Though a text is written for it."""
    monkeypatch.setattr("sqs_codec.system._endpoint.server.CONNECTIONS", 4)
    completer = Played("sea " * 500_000)
    with playing(completer) as endpoint:
        places, answers = endpoint.server._places, completer.answers
        for i in range(8):
            stream(endpoint.open())
            wait_until(lambda: len(answers) == i + 1)  # noqa: B023  # at once
            wait_until(lambda: all(v.flow.write_paused for v in places))
        assert endpoint.status("/metrics") == 200
        wait_until(lambda: sum(answer.gone.done() for answer in answers) == 4)
        assert [answer.gone.done() for answer in answers] == [True] * 4 + [False] * 4


def test_a_queued_client_is_answered(monkeypatch):
    monkeypatch.setattr("sqs_codec.system._endpoint.server.CONNECTIONS", 4)

    all_came = threading.Event()

    class Full(Played):
        async def write(self, request):
            await asyncio.to_thread(all_came.wait, PATIENCE)
            raise ApiError("there is no seat", status=429)

    with playing(Full()) as endpoint:
        waiting, places = [], endpoint.server._places
        for _ in range(12):
            waiting.append(endpoint.open())
            stream(waiting[-1])
            wait_until(lambda: sum(v.known for v in [*places]) == len(waiting))
        all_came.set()
        answers = [raw.recv(12) for raw in waiting]
    assert answers == 12 * [b"HTTP/1.1 429"]


def test_handshakes_that_stop_half_way(tmp_path, monkeypatch):
    monkeypatch.setattr("sqs_codec.system._endpoint.server.SHAKING_SECONDS", 0.5)
    monkeypatch.setattr("sqs_codec.system._endpoint.server.CONNECTIONS", 8)
    cert, key = certificate(tmp_path)
    with playing(own=Certificate(cert, key)) as endpoint:
        half = [endpoint.open("127.0.0.2") for _ in range(50)]
        for each in half:
            each.sendall(b"\x16\x03\x01\x02\x00\x01")
        context = ssl.create_default_context(cafile=str(cert))
        with context.wrap_socket(endpoint.open(), server_hostname="localhost") as raw:
            raw.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 200 " in raw.recv(4096)
        wait_until(lambda: all(map(ended, half)))
        began = time.monotonic()
        endpoint.server._share("127.0.0.3").use(1.5)  # so it has to wait for 0.5
        with context.wrap_socket(
            endpoint.open("127.0.0.3"), server_hostname="localhost"
        ):
            assert time.monotonic() - began > 0.3


def test_clients_without_the_key_have_a_share_of_time(endpoint):
    """A client with the key is answered at once during a flood from the same host."""
    said = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
    with endpoint.open("127.0.0.3") as stranger, endpoint.open("127.0.0.3") as known:
        stranger.sendall(said % (b"health", b"") * 400)
        known.sendall(said % (b"v1/models", AUTHORIZED.encode()) * 400)
        answers = b""
        while answers.count(b"HTTP/1.1 200") < 400:
            answers += known.recv(1 << 20)
        assert 0 < stranger.recv(1 << 20).count(b"HTTP/1.1 200") < 400


def test_streams_end_with_an_error_at_shutdown():
    with playing() as endpoint:
        raw = endpoint.open()
        stream(raw)
        assert b" 200 " in raw.recv(4096)
        endpoint.server.should_exit = True
        rest = b"".join(iter(lambda: raw.recv(65536), b""))
    assert b"it stops" in rest.split(b"data: ")[-1]
    assert rest.endswith(b"0\r\n\r\n")


def test_an_interrupted_command_exits_at_once():
    said = "import atexit, _sqs_command; from sqs_codec.cli import main\n"
    said += "main.main = lambda: 130; atexit.register(print, 'later')\n"
    command = [sys.executable, "-c", said + "_sqs_command.main()"]
    done = subprocess.run(command, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_a_link_opened_for_a_lost_client_is_reused():
    """The link of a client that disconnected early serves the next client."""
    comes, made = threading.Event(), list[Any]()

    def make():
        made.append(made_now := Mock(**{"receive.return_value": b"word"}))
        comes.wait(20)
        return made_now

    links, gone = ThreadPoolExecutor(1), Future[None]()
    gone.set_result(None)
    for _ in range(3):
        with pytest.raises(GoneError):
            link(links, make, gone)
    assert len(made) == 1
    comes.set()
    wait_until(lambda: made[0].close.called)
    assert link(links, make, Future()).receive(1) == b"word"
    assert not made[1].close.called


def test_a_waiting_thread_is_woken_when_the_client_leaves():
    """Once, when no client waits for the completion any more."""
    bell, asked = threading.Event(), list[float]()
    before, gone = Future[None](), Future[None]()

    def receive(timeout):
        asked.append(timeout)
        bell.wait(timeout)

    links = ThreadPoolExecutor(2)
    leash = link(links, lambda: Mock(receive=receive, wake=bell.set), before)
    leash.hold(gone)  # the link is kept for another text
    before.set_result(None)
    bell.clear()
    waiting = links.submit(leash.receive, PATIENCE)
    wait_until(lambda: asked == [PATIENCE])
    gone.set_result(None)
    assert isinstance(waiting.exception(PATIENCE / 2), GoneError)
    assert asked == [PATIENCE]
