"""Links in user space, what they do to what they carry, and the virtual clock."""

import socket

import numpy as np
import pytest

from tests.relay import HEADERS, HOST, Link, Relay, StreamRelay, Way
from tests.world import World

CROWD = np.arange(2000) * 0.01


def way(**link):
    return Way(Link(**link), True, np.random.default_rng(0))


def passed(way, times, size=100):
    """What arrives of datagrams that come at some times."""
    return [each for now in times for each in way.pass_on(bytes(size), now)]


def test_datagrams_queue_for_a_thin_link():
    """100 bytes take 0.1 s at 8 kbit/s; a later one finds the link free again."""
    thin = way(rate=8000, trip=0.04)
    arrivals = [due for due, _ in passed(thin, (10, 10, 10.05, 20), 72)]
    assert arrivals == pytest.approx([10.12, 10.22, 10.32, 20.12])
    assert thin.bytes == 400


def test_a_full_queue_drops_datagrams():
    """One of 0.1 s leaves while another waits; the third finds 0.2 s of them."""
    thin = way(rate=8000, queue=0.15)
    arrivals = [due for due, _ in passed(thin, (10, 10, 10, 10.05), 72)]
    assert arrivals == pytest.approx([10.1, 10.2, 10.3])
    assert (thin.dropped, thin.bytes) == (1, 300)


def test_no_datagram_overtakes_another_for_jitter():
    """Trips vary by as much as is said, about what they are."""
    sent = np.arange(1000) * 0.2
    arrivals = np.array(passed(way(trip=0.1, jitter=0.3), sent), object)
    delays = (arrivals[:, 0] - sent).astype(float)
    assert np.log(delays / 0.05).std() == pytest.approx(0.3, abs=0.03)
    assert np.median(delays) == pytest.approx(0.05, rel=0.05)
    crowded = [due for due, _ in passed(way(trip=0.1, jitter=0.3), CROWD)]
    assert crowded == sorted(crowded)


def test_datagrams_are_lost_doubled_and_cut_as_often_as_is_said():
    assert len(passed(way(loss=0.2), CROWD)) == pytest.approx(1600, rel=0.05)
    assert len(passed(way(duplicate=0.2), CROWD)) == pytest.approx(2400, rel=0.05)
    sizes = np.array([len(data) for _, data in passed(way(truncate=0.2), CROWD)])
    assert np.mean(sizes < 100) == pytest.approx(0.2, abs=0.03)
    assert sizes[sizes < 100].mean() == pytest.approx(50, rel=0.1)
    assert passed(way(truncate=1), [0], 0) == [(0, b"")]


def test_the_relay_counts_what_it_carries():
    """Both ways, each datagram with its headers; and two clients don't mix."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HOST, 0))
        server.settimeout(5)
        with Relay(server.getsockname()[1], Link(1e8, 0.005)) as relay:
            clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in "ab"]
            for client, word in zip(clients, (b"a", b"bb"), strict=True):
                client.settimeout(5)
                client.sendto(word, (HOST, relay.port))
                data, address = server.recvfrom(100)
                server.sendto(2 * data, address)
                assert client.recv(100) == 2 * word
                client.close()
            assert relay.bytes == (3 + 2 * HEADERS, 6 + 2 * HEADERS)


def test_a_stream_is_whole_until_it_is_broken():
    data = np.random.default_rng(0).bytes(20_000)
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        link = Link(1e7, 0.002, loss=0.05)
        with (
            StreamRelay(port, link) as relay,
            socket.create_connection((HOST, relay.port), timeout=5) as client,
        ):
            client.sendall(data)
            far, _ = server.accept()
            far.settimeout(5)
            found = b""
            while len(found) < len(data):
                found += far.recv(1 << 16)
            assert found == data
            relay.disconnect()
            assert client.recv(1) == far.recv(1) == b""
            far.close()


def test_time_passes_from_event_to_event():
    world, seen = World(), []
    for due in (3, 1, 2):
        world.at(due, lambda due=due: seen.append((due, world.now)))
    world.sleep(2.5)
    assert seen == [(1, 1), (2, 2)]
    assert world.now == 2.5
    world.at(3, lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        world.wait(2)
