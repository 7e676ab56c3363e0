"""Bytes on the wire of a connection whose socket belongs to gRPC.

On Linux the kernel counts them. To ask it, the link needs a descriptor of the socket.
It finds it with a mark: gRPC sets a time limit for pings on the socket, and each link
uses a different limit. On other systems the bytes are computed.
"""

import contextlib
import itertools
import os
import socket
import struct

PING_TIMEOUT, MARKS = 180_000, 10_000
"""Milliseconds that a server's ping may take, and the number of distinct marks."""

INFO = struct.Struct("=B4xB122xQII56xQ")
"""Linux's tcp_info: state, options, bytes received, packets out and in, bytes sent."""

ESTABLISHED, CLOSE_WAIT = 1, 8  # TCP states before this end closes

TIMESTAMPS = 1  # flag in tcp_info's options
SYN_OPTIONS = 8  # additional bytes of the first packet
OPEN = "/proc/self/fd"  # open files of this process

ACK = 52
SETUP = {True: (716, 407), False: (2395, 2761)}
MESSAGE = {True: 92, False: 114}
"""Bytes of an acknowledgment, of connecting (up, down), and of headers per message,
each by `insecure`; measured with ``python -m benchmarks.wire``."""

_numbers = itertools.count()


class Wire:
    """Bytes on the wire of a link; the channel's ping timeout must be `mark`."""

    def __init__(self, insecure: bool) -> None:
        self.mark = PING_TIMEOUT + 1 + next(_numbers) % MARKS
        self._message = MESSAGE[insecure]
        self._up, self._down = SETUP[insecure]
        self._socket: socket.socket | None = None
        self._ip, self._open = 0, True

    def find(self) -> None:
        """Look for the socket, once the connection is open."""
        self._socket, self._ip = _marked(self.mark) or (None, 0)

    def reckon(self, message: bytes, *, up: bool) -> None:
        """Add a message and its acknowledgment, for systems that don't count."""
        whole = self._message + len(message)
        self._up += whole if up else ACK
        self._down += ACK if up else whole

    def total(self) -> tuple[int, int]:
        """Return the bytes sent and received so far, with IP headers."""
        connection = self._socket
        if connection is not None:
            with contextlib.suppress(OSError):  # another thread may just have closed it
                state, options, received, out, into, sent = _counted(connection)
                self._open = state in (ESTABLISHED, CLOSE_WAIT)
                header = self._ip + (32 if options & TIMESTAMPS else 20)
                self._up = SYN_OPTIONS + sent + header * out
                self._down = SYN_OPTIONS + received + header * into
        return self._up, self._down

    def close(self) -> None:
        """Stop counting, and add the packets that will end the connection."""
        self.total()
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        if self._open:
            self._up += 2 * ACK
            self._down += ACK


def _marked(mark: int) -> tuple[socket.socket, int] | None:
    """Return a descriptor of the connection with a mark, and the size of IP headers."""
    if not hasattr(socket, "TCP_USER_TIMEOUT") or not os.path.isdir(OPEN):
        return None
    # SOCK_NONBLOCK keeps Python from changing the mode of the shared socket.
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
    for name in os.listdir(OPEN):
        with contextlib.suppress(OSError):  # it may be closed by now
            if not os.readlink(f"{OPEN}/{name}").startswith("socket:"):
                continue
            # AF_INET6 also works for IPv4 sockets.
            found = socket.fromfd(int(name), socket.AF_INET6, kind)
            # This fails for sockets other than TCP, and on old kernels.
            with contextlib.suppress(OSError, struct.error):
                option = socket.TCP_USER_TIMEOUT
                if found.getsockopt(socket.IPPROTO_TCP, option) == mark:
                    _counted(found)
                    host = found.getpeername()[0]
                    # ::ffff:127.0.0.1 is IPv4.
                    return found, 20 if "." in host else 40
            found.close()
    return None


def _counted(connection: socket.socket) -> tuple[int, ...]:
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO.size)
    return INFO.unpack(info)
