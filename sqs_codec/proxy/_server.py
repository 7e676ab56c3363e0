"""The server of an endpoint: who has a place in it, and for how long.

Whoever comes is let in. A connection for which a text is written keeps its place; of
the others, strangers and those who have shown the key, there are so many at most, and
the one that has been silent for longest makes room.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import time
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from sqs_codec.proxy._app import HEADER_BYTES, READING_SECONDS
from sqs_codec.proxy._visit import Visit
from sqs_codec.serve._address import File
from sqs_codec.serve._connection import Share, first_of_crowd, half_of_files

__all__ = ["make_server"]

CONNECTIONS = 64
"""Of strangers, and of those who have shown the key, besides one for each text."""

SHAKING_SECONDS = 10.0
"""For the handshake of TLS."""

SILENT_SECONDS = READING_SECONDS + 5.0
"""For a request, and for the whole answer to be read. A body has less, so that one
that takes too long is told so."""

HOST_SHARE = 0.02
"""What the strangers of a host may take of the event loop's time. Those of two dozen
hosts at once still leave half of it."""

MOST_OWED = 10.0
"""Seconds that they wait at most."""

MOST_HOSTS = 1024
"""Of which it is known what they have taken."""

STRANGER_COST = 1e-3
"""Seconds that a handshake takes, and a request besides reading it."""

STOPPING_SECONDS = 0.5
"""For last words to be read when the server stops."""


class _Visitor(H11Protocol):
    """A connection.

    A stranger waits while those of his host have taken more than their share of the
    event loop, as connections of `sqs serve` do.
    """

    def __init__(self, host: Share, *, app_state: dict[str, Any], **given: Any) -> None:
        self.host, self.visit = host, Visit()
        super().__init__(app_state={**app_state, "visit": self.visit}, **given)
        self._paid = 0.0
        self._lost = self.loop.create_future()
        self._stuck: asyncio.TimerHandle | None = None

    async def stay(self) -> None:
        """Wait until the connection is lost, or has been silent for too long."""
        while not self._lost.done():
            left = self.visit.since + SILENT_SECONDS - time.monotonic()
            if left < 0 and not self.visit.busy:
                return
            await asyncio.wait({self._lost}, timeout=left if left > 0 else 1.0)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that it is."""
        super().connection_lost(exc)
        self.resume_writing()
        self._lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Take data, and from a stranger no more for a while if it took long."""
        began = time.thread_time()
        super().data_received(data)
        if (wait := self.charge(time.thread_time() - began)) > 0:
            self.flow.pause_reading()
            self.loop.call_later(wait, self._read_on)

    def on_response_complete(self) -> None:
        """Go on with the next request; a stranger's may have to wait."""
        if not self.transport.get_write_buffer_size():
            self.visit.since = time.monotonic()
        if (wait := self.charge(STRANGER_COST)) > 0:
            self.loop.call_later(wait, super().on_response_complete)
        else:
            super().on_response_complete()

    def pause_writing(self) -> None:
        """Hang up if what waits isn't read in time."""
        super().pause_writing()
        self._stuck = self.loop.call_later(READING_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Be content that it is read."""
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def charge(self, seconds: float) -> float:
        """Return how long a stranger has to wait for what he took.

        Who shows the key has what he paid before returned.
        """
        paid = -self._paid if self.visit.known else seconds / HOST_SHARE
        self._paid += paid
        self.host.use(paid)
        return 0.0 if self.visit.known else self.host.wait_seconds


class _Server(uvicorn.Server):
    """A server that takes connections itself, to know them before their handshakes."""

    def __init__(self, config: uvicorn.Config, most: int) -> None:
        super().__init__(config)
        self._most = most
        self._share = functools.lru_cache(MOST_HOSTS)(lambda host: Share(MOST_OWED))
        self._places: dict[_Visitor, asyncio.Task[None]] = {}
        self._doors: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections."""
        await super().startup(sockets=[])
        for listener in sockets or []:
            listener.listen(self.config.backlog)
            listener.setblocking(False)
            self._doors.append(asyncio.ensure_future(self._let_in(listener)))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take none any more, end the texts with a word, then hang up."""
        for door in self._doors:
            door.cancel()
        await self.lifespan.shutdown()
        asyncio.get_running_loop().call_later(STOPPING_SECONDS, self._hang_up)
        await super().shutdown(sockets)

    def _hang_up(self) -> None:
        for place in self._places.values():
            place.cancel()

    async def _let_in(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listener)
            except OSError:  # there are no files left
                await asyncio.sleep(0.1)
                continue
            visitor = _Visitor(
                self._share(address[0]),
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            )
            self._places[visitor] = loop.create_task(self._host(visitor, sock))
            self._make_room(known=False)
            self._make_room(known=True)
            await asyncio.sleep(0)  # others go on, however many come

    def _make_room(self, *, known: bool) -> None:
        """Where too many only wait, hang up on one of the host that has most."""
        found = [v for v in self._places if v.visit.known is known and not v.visit.busy]
        if len(found) > self._most:
            found.sort(key=lambda visitor: visitor.visit.since)
            self._places.pop(first_of_crowd(found, lambda v: id(v.host))).cancel()

    async def _host(self, visitor: _Visitor, sock: socket.socket) -> None:
        """Have a connection as long as it may last."""
        security = self.config.ssl
        try:
            if security:
                while (wait := visitor.host.wait_seconds) > 0:
                    await asyncio.sleep(wait)
                visitor.charge(STRANGER_COST)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: visitor,
                sock,
                ssl=security,
                ssl_handshake_timeout=SHAKING_SECONDS if security else None,
            )
            await visitor.stay()
        except OSError:
            pass  # of the handshake
        finally:
            self._places.pop(visitor, None)
            if visitor.transport is not None:
                visitor.transport.abort()
            sock.close()  # if it never had one


def make_server(
    app: Starlette, *, clients: int, cert: File | None = None, key: File | None = None
) -> uvicorn.Server:
    """Make a server, to be run with a socket that listens.

    Parameters
    ----------
    app : Starlette
        As `make_app` makes it.
    clients : int
        How many texts are written at the same time.
    cert, key : path, optional
        PEM files, for TLS.
    """
    config = uvicorn.Config(
        app,
        http=_Visitor,
        ws="none",
        log_level="error",  # strangers could fill the log with warnings
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=HEADER_BYTES,
        ssl_certfile=cert,
        ssl_keyfile=key,
    )
    room = (half_of_files() - clients) // 2
    return _Server(config, max(1, min(CONNECTIONS, room)))
