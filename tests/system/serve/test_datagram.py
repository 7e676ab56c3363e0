"""Datagrams: encryption, access, and detection of failures."""

import errno
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, repeat
from unittest.mock import DEFAULT, Mock

import numpy as np
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from OpenSSL import _util

from sqs_codec.system import serve as serving
from sqs_codec.system._base.address import join_address
from sqs_codec.system.serve import INSECURE, Certificate
from sqs_codec.system.serve._datagram import dtls
from sqs_codec.system.serve._datagram import link as edge_end
from sqs_codec.system.serve._datagram import server as cloud_end
from sqs_codec.system.serve._datagram.server import start_datagrams
from sqs_codec.system.session import LinkError
from tests import relay as relays
from tests.certificates import issue
from tests.echo import TOKEN, EchoService, running
from tests.kit import mutate
from tests.refusals import refuses
from tests.relay import Relay, udp
from tests.system.serve.kit import PATIENCE, wait_until

HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def issued(tmp_path_factory):
    return issue(tmp_path_factory.mktemp("certificate"), HOST, "::1", "localhost")


@pytest.fixture
def service():
    return EchoService()


@pytest.fixture
def serve(issued, service):
    """Start a server, with other settings than the usual ones if they are given."""

    @contextmanager
    def start(**settings):
        settings = {"security": Certificate(issued.cert, issued.key)} | settings
        host = settings.pop("host", HOST)
        with running(lambda: start_datagrams(service, host, 0, **settings)) as server:
            yield server

    return start


@pytest.fixture
def server(serve):
    with serve() as server:
        yield server


@pytest.fixture
def connect(issued):
    """Connect to a port; all links are closed at the end."""
    links = []

    def open_link(port, host=HOST, **settings):
        settings = {"security": Certificate(issued.cert), "token": TOKEN} | settings
        address = join_address(host, port)
        links.append(serving.connect(address, transport="datagram", **settings))
        return links[-1]

    yield open_link
    for link in links:
        link.close()


def echoes(link, message):
    link.send(message)
    return link.receive(PATIENCE) == message


def test_messages_of_all_lengths(server, connect):
    link = connect(server.port)
    assert not link.reliable
    for size in (1, 100, link.max_message):
        assert echoes(link, bytes(size))
    assert link.receive(0) is None
    for size in (0, link.max_message + 1):
        refuses(f"1 to 1171 bytes, got {size}", link.send, bytes(size))


def test_ipv6(serve, connect):
    try:
        with serve(host="::1") as server:
            assert echoes(connect(server.port, "::1"), b"hi")
    except OSError as error:
        if isinstance(error, LinkError):
            raise
        pytest.skip(f"needs IPv6: {error}")


def test_datagrams_are_encrypted_and_fit(server, connect):
    with Relay(server.port) as relay:
        link = connect(relay.port)
        assert echoes(link, b"a secret" * 12)
        assert (link.sent, link.received) == relay.bytes
    crossed = b"".join(data for _, data in relay.seen)
    assert b"secret" not in crossed
    assert TOKEN.encode() not in crossed
    assert max(len(data) for _, data in relay.seen) <= 1200
    assert len(relay.seen[-1][1]) + 28 == 96 + link.overhead


def test_the_certificates_host_is_checked(tmp_path, service, serve, connect):
    authority = issue(tmp_path)
    by_name = issue(tmp_path, "localhost", issuer=authority)
    with serve(security=Certificate(by_name.cert, by_name.key)) as server:
        for trusted in (authority, by_name):
            how = {"host": "localhost", "security": Certificate(trusted.cert)}
            assert echoes(connect(server.port, **how), b"hi")
        with pytest.raises(LinkError, match=r"is for localhost, not for 127\.0\.0\.1"):
            connect(server.port, security=Certificate(authority.cert))
        with pytest.raises(LinkError, match=r"no trusted issuer.* \(--cert\)"):
            connect(server.port, "localhost")
        with pytest.raises(LinkError, match="no trusted issuer"):
            connect(server.port, "localhost", security=None)
    assert len(service.connections) == 2  # the others got no token


def test_invalid_certificate_files(tmp_path, issued, serve, connect):
    other = issue(tmp_path, HOST)
    empty = tmp_path / "empty"
    empty.write_text("")
    locked = tmp_path / "locked"
    how = PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    locked.write_bytes(other.private_key.private_bytes(Encoding.PEM, *how))
    for settings, message in (
        ({"key": None}, r"needs the key of .*: Certificate\(cert, key\)"),
        ({"key": other.key}, "a pair of PEM files .* key values mismatch"),
        ({"cert": empty}, "certificate .*/empty with the key .* PEM files"),
        ({"key": empty}, "with the key .*/empty, which must be .* PEM files"),
        ({"key": locked}, "without a password"),
        ({"cert": tmp_path / "none"}, "No such file"),
    ):
        own = Certificate(**{"cert": issued.cert, "key": issued.key} | settings)
        with pytest.raises(ValueError, match=message), serve(security=own):
            pass
    for security in None, (issued.cert, issued.key):
        said = "security must be a Certificate or INSECURE, got "
        with pytest.raises(TypeError, match=said), serve(security=security):
            pass
    with pytest.raises(TypeError, match="a Certificate or INSECURE, got str"):
        connect(1, security=str(issued.cert))
    with pytest.raises(LinkError, match=r"certificate .*/empty: .* no certificate"):
        connect(1, security=Certificate(empty))


def test_a_missing_server_is_reported(connect):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((HOST, 0))
        with pytest.raises(LinkError, match=r"no answer over UDP within 0\.1 seconds"):
            connect(silent.getsockname()[1], timeout=0.1)
        silent.connect(silent.getsockname())  # so that it takes nothing from others
        with pytest.raises(LinkError, match="nothing listens on this UDP"):
            connect(silent.getsockname()[1])
    with pytest.raises(LinkError, match=r"can't resolve nowhere\.invalid"):
        connect(1, "nowhere.invalid")


def test_a_dead_address_delays_the_first_connection_only(monkeypatch, server, connect):
    with Relay(1) as dead:
        dead.broken = True
        ends = (HOST, dead.port), (HOST, server.port)
        places = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", end) for end in ends]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [*places])
        assert echoes(connect(7, "localhost", timeout=3 * PATIENCE), b"first")
        hellos = len(dead.seen)
        assert 1 <= hellos < 5  # the fifth comes after 15 seconds
        assert echoes(connect(7, "localhost"), b"second")
        assert len(dead.seen) == hellos
        places[:] = places[:1]
        with pytest.raises(LinkError, match=r"no answer over UDP within 0\.1 seconds"):
            connect(7, "localhost", timeout=0.1)
        places[:] = [(*places[0][:4], end) for end in ends[::-1]]
        assert echoes(connect(7, "localhost"), b"third")


def test_any_datagram_of_a_handshake_may_be_lost(server, connect):
    def run(index):
        with Relay(server.port) as relay:
            relay.doomed = [index]
            return echoes(connect(relay.port), b"hi") and len(relay.seen) > 8

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, range(8)))


def test_replayed_messages_are_dropped(service, server, connect):
    with Relay(server.port, relays.Link(duplicate=0.5)) as relay:
        link = connect(relay.port)
        for i in range(20):
            assert echoes(link, b"%d" % i)
        for up, data in [*relay.seen]:  # the hellos and the rest of the handshake, too
            relay.inject(data, up=up)
        assert echoes(link, b"last")
        assert link.receive(0.05) is None
    assert len(service.connections) == 1
    assert service.connections[0].messages == [*(b"%d" % i for i in range(20)), b"last"]


def test_cut_or_changed_datagrams_are_dropped(service, server, connect):
    draw = random.Random(0)
    with Relay(server.port) as relay:
        link = connect(relay.port)
        assert echoes(link, b"first")
        relay.broken = True  # what is sent now is known, and didn't come
        link.send(b"second")
        wait_until(lambda: len(relay.seen) > 10 and relay.seen[-1][0])
        relay.broken = False
        record = relay.seen[-1][1]
        for size in range(len(record)):
            relay.inject(record[:size])
            relay.inject(record[:size], up=False)
        for i in range(500):
            forged = bytearray(record)
            for _ in range(draw.randint(1, 3)):
                forged[draw.randrange(len(record))] ^= 1 << draw.randrange(8)
            relay.inject(bytes(forged))
            relay.inject(bytes(forged), up=False)
            relay.inject(draw.randbytes(draw.randrange(200)))
            if i % 20 == 0:  # no faster than both ends can read
                assert link.receive(0.005) is None
        assert echoes(link, b"third")
    assert service.connections[0].messages == [b"first", b"third"]


def test_garbage_to_the_port(server, connect, caplog):
    """From a stranger, and from a client's own address, where its cookie is good."""
    rng = np.random.default_rng(0)
    with Relay(server.port) as relay, udp() as stranger:
        link = connect(relay.port)
        assert echoes(link, b"first")
        handshake = [data for up, data in relay.seen if up]
        for i in range(1500):
            data = mutate(rng, handshake[i % len(handshake)])
            relay.inject(data)
            stranger.sendto(data, (HOST, server.port))
            if i % 50 == 0:  # no faster than the server can read
                assert echoes(link, b"still here")
        assert echoes(link, b"last")
        assert echoes(connect(relay.port), b"hi")
    assert len(server._open) == 2
    assert not caplog.records


def test_a_broken_hello_leaves_no_error_for_the_next_client():
    client = dtls.Endpoint(dtls.client_context(INSECURE), server=False)
    client.handshake()
    (hello,) = client.datagrams()
    context = dtls.server_context(None, lambda _: b"", lambda *_: False)
    assert not dtls.Endpoint(context, server=True).listen(hello[:-1], (HOST, 1))
    assert _util.lib.ERR_peek_error() == 0  # which not every OpenSSL looks at


def test_no_state_is_kept_without_a_cookie(issued, service, serve, connect):
    with Relay(1) as relay, pytest.raises(LinkError, match="no answer"):
        connect(relay.port, timeout=1.0)
    hello = relay.seen[0][1]
    with serve() as server:
        for _ in range(200):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.settimeout(PATIENCE)
                stranger.sendto(hello, (HOST, server.port))
                assert len(stranger.recv(2000)) < len(hello)  # it amplifies nothing
        assert not server._young
        assert not server._open


def shake_half_way(server, host):
    """Send back the cookie, and no more."""
    client = dtls.Endpoint(dtls.client_context(INSECURE), server=False)
    client.handshake()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind((host, 0))
        stranger.connect((HOST, server.port))
        stranger.settimeout(PATIENCE)
        for _ in range(2):
            for datagram in client.datagrams():
                stranger.send(datagram)
            client.receive(stranger.recv(2000))


def test_handshakes_that_stop_half_way_make_room(monkeypatch, server, connect):
    """Those of the host with the most end first."""
    monkeypatch.setattr(cloud_end, "_MAX_HANDSHAKES", 3)
    for host in (HOST, "127.0.0.2", "127.0.0.2", "127.0.0.2", "127.0.0.2"):
        shake_half_way(server, host)
    assert [host for host, _ in server._young] == [HOST, "127.0.0.2", "127.0.0.2"]
    assert echoes(connect(server.port), b"hi")
    monkeypatch.setattr(cloud_end, "_SHAKE_SECONDS", 0.1)
    wait_until(lambda: not server._young)


def test_many_clients(monkeypatch, service, server, connect):
    monkeypatch.setattr(cloud_end, "_MAX_CLIENTS", 100)
    said = [*map(bytes, range(1, 101))]
    links = [connect(server.port) for _ in said]
    for link, message in zip(links, said, strict=True):
        link.send(message)
    assert [link.receive(PATIENCE) for link in links] == said
    refuses("the server is full", connect, server.port, error=LinkError)
    links[0].close()
    wait_until(lambda: service.connections[0].closed)
    assert echoes(connect(server.port), b"hi")
    monkeypatch.setattr(cloud_end, "SILENT_SECONDS", 0.0)
    assert echoes(connect(server.port), b"hi")
    assert [c.closed for c in service.connections[:3]] == [True, True, False]


def test_idle_clients_are_forgotten(monkeypatch, service, serve, connect):
    monkeypatch.setattr(cloud_end, "_IDLE_SECONDS", 0.6)
    closed = "closed the association; connect again"
    with serve() as server:
        idle, busy = connect(server.port), connect(server.port)
        wait_until(lambda: echoes(busy, b"hi") and service.connections[0].closed)
        for _ in range(2):
            refuses(closed, idle.receive, PATIENCE, error=LinkError)
        assert echoes(busy, b"hi")
    refuses(closed, busy.receive, PATIENCE, error=LinkError)


def test_a_restarted_server_is_noticed(serve, connect):
    with serve() as server, serve() as restarted, Relay(server.port) as relay:
        link = connect(relay.port)
        relay.server_port = restarted.port
        link.send(b"hi")
        unknown = "doesn't know this association: it was restarted"
        refuses(unknown, link.receive, PATIENCE, error=LinkError)
        assert echoes(connect(relay.port), b"hi")


def test_only_the_server_can_reset_a_connection(server, connect):
    draw = random.Random(0)
    with Relay(server.port) as relay:
        link = connect(relay.port)
        for size in (0, 8, 15, 16, 16, 16, 17):
            relay.inject(b"\0" + draw.randbytes(size), up=False)
        assert link.receive(0.05) is None
        assert echoes(link, b"hi")


def test_a_new_client_at_an_old_address(service, server, connect):
    """As if a program was killed and restarted on the same port."""
    link = connect(server.port)
    assert echoes(link, b"old")
    address = link._socket.getsockname()
    link._socket.close()

    class Bound(socket.socket):
        def connect(self, to):
            self.bind(address)
            super().connect(to)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", Bound)
        assert echoes(connect(server.port), b"new")
    assert [c.messages for c in service.connections] == [[b"old"], [b"new"]]
    assert service.connections[0].closed


@pytest.mark.parametrize("call", ["send", "recv"])
def test_a_path_with_a_smaller_mtu_loses_one_datagram(server, connect, call):
    """The system reports a router's answer at the next call."""
    link = connect(server.port)
    link._socket = Mock(wraps=link._socket)
    told = [OSError(errno.EMSGSIZE, "Message too long")]
    getattr(link._socket, call).side_effect = chain(told, repeat(DEFAULT))
    if call == "send":
        link.send(bytes(1171))
        assert link.receive(0.05) is None
    assert echoes(link, bytes(1171))
    assert getattr(link._socket, call).call_count > 1


def test_silence_is_noticed(monkeypatch, server, connect):
    """Also by an edge that gets junk all the time."""
    monkeypatch.setattr(edge_end, "_PROBE_SECONDS", 0.1)
    with Relay(server.port) as relay, ThreadPoolExecutor(1) as pool:
        link = connect(relay.port)

        def send_junk():
            for _ in range(2000):
                if not link._gone:
                    relay.inject(b"\x17", up=False)
                    time.sleep(0.005)

        junk = pool.submit(send_junk)
        assert link.receive(1.0) is None  # the server sends a sign of life
        relay.broken = True
        assert not junk.done()
        refuses("the server stopped answering", link.receive, None, error=LinkError)
