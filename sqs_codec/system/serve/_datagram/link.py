"""Connect to a server with datagrams: one message in each, encrypted with DTLS."""

import contextlib
import errno
import functools
import selectors
import socket
import time
from collections import deque
from typing import Any, NoReturn

from OpenSSL import SSL

from sqs_codec._base.words import shown
from sqs_codec.system._base.access import INSECURE, Certificate, Insecure
from sqs_codec.system._base.address import join_address
from sqs_codec.system.serve._datagram import dtls
from sqs_codec.system.session import Link, LinkError

_REPEAT_SECONDS = 1.0  # as in DTLS: twice the round-trip time of a slow link
_NEXT_SECONDS = 0.25  # until it tries the next address in parallel, as in RFC 8305
_PROBE_SECONDS = 5.0
_PROBES = 5
HEADERS = {socket.AF_INET: 28, socket.AF_INET6: 48}  # bytes of IP and UDP
_REMEMBERED = 64  # size of DTLS's replay window


def connect_datagram(
    host: str,
    port: int,
    *,
    security: Certificate | Insecure | None,
    token: str | None,
    timeout: float,
) -> Link:
    """Connect; `sqs_codec.system.serve.connect` describes the parameters."""
    request = dtls.TOKEN + (token or "").encode()
    context = dtls.client_context(security)
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise LinkError(f"can't resolve {host}: {error.strerror}") from error
    best = _best_address(host, port)
    places.sort(key=lambda place: place[4] not in best)
    name, end = join_address(host, port), time.monotonic() + timeout
    problem = LinkError(f"{host} has no address")
    links: list[DatagramLink] = []  # links that have sent a hello
    try:
        while places or links:
            try:
                if places:
                    family, _, _, _, address = places.pop(0)
                    links.append(DatagramLink(name, context, family))
                    links[-1].begin(address)
                wait = min(end - time.monotonic(), _NEXT_SECONDS)
                link = _first_answered(links, wait)
                if link is None:
                    for each in links:
                        each.repeat(end, timeout)
                else:
                    link.open(
                        request, end, timeout, None if security is INSECURE else host
                    )
                    best[:] = [link._socket.getpeername()]
                    links.remove(link)
                    return link
            except LinkError as error:
                problem = error
                links = [each for each in links if not each._gone]
        raise problem
    finally:
        for each in links:
            each.close()


@functools.lru_cache(maxsize=64)  # names
def _best_address(host: str, port: int) -> list[Any]:
    """Return a list in which the caller keeps the address that answered last."""
    return []


class DatagramLink:
    """The client's end of an association, a `Link`."""

    reliable = False
    max_message = dtls.MAX_MESSAGE
    overhead = HEADERS[socket.AF_INET] + dtls.RECORD  # without acknowledgments

    def __init__(
        self, name: str, context: SSL.Context, family: socket.AddressFamily
    ) -> None:
        self._name = name
        self._headers = HEADERS[family]
        self._endpoint = dtls.Endpoint(context, server=False)
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._rope, self._bell = socket.socketpair()  # `wake` writes to the rope
        self._selector = selectors.DefaultSelector()
        for end in (self._socket, self._bell):
            self._selector.register(end, selectors.EVENT_READ)
        for end in (self._rope, self._bell):
            end.setblocking(False)
        self._inbox: deque[bytes] = deque()
        self._tags: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._welcome = False
        self._probe_at: float | None = None
        self._probes = 0
        self._gone = ""
        self.sent = 0
        self.received = 0

    def __repr__(self) -> str:
        return f"<DatagramLink to {self._name}>"

    def begin(self, address: tuple[str | int, ...] | tuple[int, bytes]) -> None:
        """Send a hello to an address."""
        try:
            self._socket.connect(address)
        except OSError as error:
            self._fail(f"unreachable: {error.strerror}")
        self._endpoint.handshake()
        self._flush()

    def open(
        self, request: bytes, end: float, timeout: float, host: str | None
    ) -> None:
        """Complete the handshake, check the certificate, and send the access token."""
        while not self._endpoint.open:
            due = self._endpoint.timeout()
            left = self._left(end, timeout)
            if not self._take(left if due is None else min(left, due)):
                self.repeat(end, timeout)
        if host is not None:
            self._check_certificate(host)
        self._log_in(request, end, timeout)

    def send(self, message: bytes) -> None:
        self._check()
        if not 0 < len(message) <= dtls.MAX_MESSAGE:
            raise ValueError(
                f"message must have 1 to {dtls.MAX_MESSAGE} bytes, got {len(message)}"
            )
        self._encrypt(message)
        if self._probe_at is None:
            self._probe_at = time.monotonic() + _PROBE_SECONDS

    def receive(self, timeout: float | None) -> bytes | None:
        """Return the next message; meanwhile ping a silent server."""
        now = time.monotonic()
        end = float("inf") if timeout is None else now + timeout
        while not self._inbox:
            self._check()
            if self._probe_at is None:
                self._probe_at = now + _PROBE_SECONDS
            self._take(max(0, min(end, self._probe_at) - now))
            # Probe also after a datagram: anyone can send one without a message.
            now = time.monotonic()
            self._probe(now)
            if not self._inbox and (self._rings() or now >= end):
                return None
        return self._inbox.popleft()

    def wake(self) -> None:
        with contextlib.suppress(OSError):  # closed, or full of earlier calls
            self._rope.send(b"!")

    def _rings(self) -> bool:
        """Tell whether `wake` was called since the last time."""
        with contextlib.suppress(BlockingIOError):
            return bool(self._bell.recv(1 << 16))  # everything that it can hold
        return False

    def close(self) -> None:
        if not self._gone:
            self._gone = f"the link to {self._name} is closed"
            # Otherwise the server's idle time ends the association.
            with contextlib.suppress(SSL.Error, OSError):
                self._endpoint.close()
                for datagram in self._endpoint.datagrams():
                    self._send(datagram)
            for each in (self._selector, self._socket, self._rope, self._bell):
                each.close()

    def repeat(self, end: float, timeout: float) -> None:
        self._left(end, timeout)
        try:
            self._endpoint.repeat()
        except SSL.Error as error:  # too many repetitions
            self._fail(_explain(error))
        self._flush()

    def _check_certificate(self, host: str) -> None:
        certificate = self._endpoint.certificate()
        assert certificate is not None
        try:
            dtls.check_name(certificate, host)
        except ValueError as error:
            self._fail(
                f"its certificate {error}; connect to a name in the certificate, or "
                "give the server a certificate for this name"
            )

    def _log_in(self, request: bytes, end: float, timeout: float) -> None:
        """Send the access token until the server answers."""
        wait = _REPEAT_SECONDS
        while not self._welcome:
            self._encrypt(request)
            again = time.monotonic() + wait
            while not self._welcome and (now := time.monotonic()) < again:
                self._take(min(self._left(end, timeout), again - now))
            wait *= 2

    def _left(self, end: float, timeout: float) -> float:
        """Return the seconds left to connect; fail if none are left."""
        left = end - time.monotonic()
        if left <= 0:
            self._fail(
                f"no answer over UDP within {timeout:g} seconds; check the address, "
                "that the server serves datagrams, and that no firewall drops UDP"
            )
        return left

    def _probe(self, now: float) -> None:
        """Ping the server if it was silent for long enough."""
        if self._probe_at is None or now < self._probe_at:
            return
        if self._probes == _PROBES:
            self._fail("the server stopped answering; it or the network is down")
        self._encrypt(dtls.TOKEN)
        self._probes += 1
        self._probe_at = now + _PROBE_SECONDS

    def _encrypt(self, message: bytes) -> None:
        self._endpoint.send(message)
        self._flush()

    def _flush(self) -> None:
        """Send the endpoint's datagrams, and remember their tags."""
        self._socket.settimeout(None)
        for datagram in self._endpoint.datagrams():
            self._tags.append(datagram[-dtls.TAG :])
            try:
                self._send(datagram)
            except OSError as error:
                self._fail_by(error)

    def _send(self, datagram: bytes) -> None:
        self._socket.send(datagram)
        self.sent += self._headers + len(datagram)

    def _take(self, wait: float) -> bool:
        """Process a datagram; False if none arrives in `wait` seconds, or on `wake`."""
        if wait:
            self._selector.select(None if wait == float("inf") else wait)
        self._socket.settimeout(0)
        try:
            datagram = self._socket.recv(1 << 16)
        except BlockingIOError:
            return False
        except OSError as error:
            self._fail_by(error)
            return False
        self.received += self._headers + len(datagram)
        if datagram[:1] == dtls.UNKNOWN:
            if datagram[1:] in self._tags:
                self._fail(
                    "the server doesn't know this association: it was restarted, or "
                    "this machine's address has changed; connect again"
                )
            return True
        try:
            messages = self._endpoint.receive(datagram)
        except SSL.Error as error:
            self._fail(_explain(error))
        self._flush()
        for message in messages:
            self._on_message(message)
        if self._endpoint.closed:
            self._fail("the server has closed the association; connect again")
        return True

    def _on_message(self, message: bytes) -> None:
        self._probes = 0
        self._probe_at = None
        if message == dtls.TOKEN:
            self._welcome = True
        elif message[:1] == dtls.TOKEN:
            why = message[1:].decode("utf-8", "replace")
            self._fail(f"the server closed the connection: {why}")
        elif self._welcome:
            self._inbox.append(message)
        elif message[:1] == dtls.REFUSED:
            self._fail(message[1:].decode("utf-8", "replace"))

    def _check(self) -> None:
        if self._gone:
            raise LinkError(self._gone)

    def _fail_by(self, error: OSError) -> None:
        """Close the link, unless a datagram was too long for a router.

        That datagram is lost; the system sends later ones of its length in fragments.
        """
        if error.errno == errno.EMSGSIZE:
            return
        if isinstance(error, ConnectionRefusedError):
            self._fail(
                "nothing listens on this UDP port; check that the server runs and "
                "serves datagrams"
            )
        self._fail(f"unreachable: {error.strerror}")

    def _fail(self, problem: str) -> NoReturn:
        self.close()
        self._gone = shown(f"{self._name}: {problem}")
        raise LinkError(self._gone)


def _first_answered(links: list[DatagramLink], seconds: float) -> DatagramLink | None:
    """Return the first link that receives something, or None."""
    with selectors.DefaultSelector() as selector:
        for link in links:
            selector.register(link._socket, selectors.EVENT_READ, link)
        found = selector.select(max(seconds, 0))
    return found[0][0].data if found else None


def _explain(error: SSL.Error) -> str:
    said = dtls.reason(error)
    if "certificate verify failed" in said:
        return (
            "its certificate has no trusted issuer, or isn't valid now; pass the "
            "server's certificate, or its issuer's (--cert)"
        )
    return f"the handshake failed ({said}); check that this is the port of sqs serve"
