"""A simulated low-bandwidth link: times of messages, and errors."""

import threading
from collections import deque

import pytest

from sqs_codec.system.edge import ShapedLink
from sqs_codec.system.session import LinkError

PATIENCE = 30.0


class Wire:
    """A link with a clock that a test sets; its `receive` waits until it is woken."""

    reliable, max_message, overhead = False, 1000, 25

    def __init__(self):
        self.now = 0.0
        self.sent = self.received = 0
        self.log = []
        self.inbox = deque()
        self.broken = self.closed = False
        self._bell, self._idle = threading.Semaphore(0), threading.Semaphore(0)

    def send(self, message):
        if self.broken:
            raise LinkError("it broke")
        self.log.append((self.now, message))
        self.sent += len(message)

    def receive(self, timeout):
        if timeout != 0:
            self._idle.release()
            assert self._bell.acquire(timeout=PATIENCE)
        return self.inbox.popleft() if self.inbox else None

    def wake(self):
        self._bell.release()

    def close(self):
        self.closed = True

    def settle(self):
        """Wait until whoever has it waits in `receive`."""
        assert self._idle.acquire(timeout=PATIENCE)

    def at(self, now):
        """Let it be a time, and return what was sent by then."""
        self.now = now
        self.wake()
        self.settle()
        return self.log


@pytest.fixture
def wire():
    return Wire()


@pytest.fixture
def link(wire):
    """A link of 1000 bits per second with an RTT of 4 seconds."""
    shaped = ShapedLink(wire, 1000.0, 4.0, clock=lambda: wire.now)
    wire.settle()
    yield shaped
    shaped.close()
    assert wire.closed
    with pytest.raises(LinkError, match="closed"):
        shaped.send(b"late")
    shaped.close()
    shaped.wake()


def send(link, wire, message):
    link.send(message)
    wire.settle()


def test_messages_take_bandwidth_and_half_an_rtt(link, wire):
    one, two, three = b"1" * 100, b"2" * 225, b"3" * 100
    send(link, wire, one)  # a second, including the transport's overhead
    send(link, wire, two)  # two seconds, behind it
    assert (wire.at(2.99), link.sent) == ([], 0)
    assert wire.at(3.0) == [(3.0, one)]
    assert (wire.at(4.9), link.sent) == ([(3.0, one)], 100)
    assert wire.at(5.0)[1:] == [(5.0, two)]
    send(link, wire, three)  # the link was free
    assert wire.at(7.9)[2:] == []
    assert wire.at(8.0)[2:] == [(8.0, three)]
    send(link, wire, b"the end")
    link.close()  # which doesn't wait, and keeps nothing back
    assert wire.log[3:] == [(8.0, b"the end")]


def test_answers_take_half_an_rtt_at_any_rate(link, wire):
    wire.inbox += [b"a" * 1000, b"b"]
    wire.at(10.0)
    wire.now = 11.9
    assert link.receive(0) is None
    wire.now = 12.0
    assert (link.receive(0), link.receive(None)) == (b"a" * 1000, b"b")
    assert link.receive(0) is None


def test_a_waiting_receiver_is_woken(link):
    link.wake()
    assert link.receive(None) is None
    timer = threading.Timer(0.01, link.wake)
    timer.start()
    assert link.receive(None) is None
    timer.join()


def test_received_messages_come_before_a_link_error(link, wire):
    wire.inbox.append(b"the last word")
    wire.at(1.0)
    wire.broken = True
    send(link, wire, b"?")
    wire.now = 9.0
    wire.wake()
    link._thread.join(PATIENCE)
    assert link.receive(None) == b"the last word"
    for _ in range(2):
        with pytest.raises(LinkError, match="it broke"):
            link.receive(None)
    with pytest.raises(LinkError, match="it broke"):
        link.send(b"!")
