"""Ports for programs that can't report their own."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a port of this machine that the system gives to no other program.

    The port stays bound here. Linux lets a server listen on it all the same, because
    both set SO_REUSEADDR and this socket doesn't listen.
    """
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]
