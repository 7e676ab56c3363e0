"""Bytes on the wire of a connection whose socket is gRPC's own.

On Linux the kernel counts them. It is asked by a descriptor of our own for the same
connection, which a mark finds: gRPC tells the kernel how long a ping may take, and each
link's may take another time. Elsewhere the bytes are reckoned.
"""

import contextlib
import itertools
import os
import socket
import struct

PING_TIMEOUT, MARKS = 180_000, 10_000
"""Milliseconds that a server's ping may take, and how many links are told apart."""

INFO = struct.Struct("=B4xB122xQII56xQ")
"""Linux's tcp_info: state, options, bytes received, packets out and in, bytes sent."""

ESTABLISHED, CLOSE_WAIT = 1, 8  # states before this end has begun to close

TIMESTAMPS = 1  # among the options
SYN_OPTIONS = 8  # bytes that the first packet has besides
OPEN = "/proc/self/fd"  # what this process has open

ACK = 52
SETUP = {True: (716, 407), False: (2395, 2761)}
MESSAGE = {True: 92, False: 114}
"""Bytes of an acknowledgement, of connecting up and down, and around a message; in
plain text and with TLS, as ``python -m benchmarks.wire`` counts them."""

_numbers = itertools.count()


class Wire:
    """What a link puts on the wire; its `mark` is for the channel's pings."""

    def __init__(self, insecure: bool) -> None:
        self.mark = PING_TIMEOUT + 1 + next(_numbers) % MARKS
        self._message = MESSAGE[insecure]
        self._up, self._down = SETUP[insecure]
        self._socket: socket.socket | None = None
        self._ip, self._open = 0, True

    def find(self) -> None:
        """Look for the connection, as it is there now."""
        self._socket, self._ip = _marked(self.mark) or (None, 0)

    def reckon(self, message: bytes, *, up: bool) -> None:
        """Add a message and its acknowledgement, in case nobody counts."""
        whole = self._message + len(message)
        self._up += whole if up else ACK
        self._down += ACK if up else whole

    def total(self) -> tuple[int, int]:
        """Return the bytes of IP up and down so far."""
        connection = self._socket
        if connection is not None:
            with contextlib.suppress(OSError):  # another thread has closed it now
                state, options, received, out, into, sent = _counted(connection)
                self._open = state in (ESTABLISHED, CLOSE_WAIT)
                header = self._ip + (32 if options & TIMESTAMPS else 20)
                self._up = SYN_OPTIONS + sent + header * out
                self._down = SYN_OPTIONS + received + header * into
        return self._up, self._down

    def close(self) -> None:
        """Count no more. The packets that end the connection mostly come after it."""
        self.total()
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        if self._open:
            self._up += 2 * ACK
            self._down += ACK


def _marked(mark: int) -> tuple[socket.socket, int] | None:
    """Return a descriptor of this process's connection with a mark, and IP's header."""
    if not hasattr(socket, "TCP_USER_TIMEOUT") or not os.path.isdir(OPEN):
        return None
    # Of any other kind Python might change whether those wait who have the socket.
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
    for name in os.listdir(OPEN):
        with contextlib.suppress(OSError):  # it is closed by now
            if not os.readlink(f"{OPEN}/{name}").startswith("socket:"):
                continue
            # The family of the longer addresses; those of the other fit.
            found = socket.fromfd(int(name), socket.AF_INET6, kind)
            # Another is no TCP, or a kernel counts less.
            with contextlib.suppress(OSError, struct.error):
                option = socket.TCP_USER_TIMEOUT
                if found.getsockopt(socket.IPPROTO_TCP, option) == mark:
                    _counted(found)
                    host = found.getpeername()[0]
                    # ::ffff:127.0.0.1 is IPv4, too.
                    return found, 20 if "." in host else 40
            found.close()
    return None


def _counted(connection: socket.socket) -> tuple[int, ...]:
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO.size)
    return INFO.unpack(info)
