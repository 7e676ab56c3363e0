"""The HTTP server of an endpoint, with limits for connections.

A connection stays while its completion is written and its client reads. Waiting
connections have two limits, one without and one with the API key. Above a limit, the
server closes the longest silent connection of the host with the most.
"""

import asyncio
import functools
import socket
import time
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from sqs_codec.system._base.access import Certificate
from sqs_codec.system._base.crowd import Share, first_of_crowd, half_of_files

HEADER_BYTES = 1 << 14  # maximum sum of a request's headers

CONNECTIONS = 128  # maximum waiting connections, without the key and with it
SHAKING_SECONDS = 10.0  # time limit of TLS handshakes
READING_SECONDS = 30.0  # time limit of a body, and of a client that stops reading

SILENT_SECONDS = READING_SECONDS + 5.0
"""Time limit of a request, and of reading the whole answer. It exceeds the limit of a
body, so that a slow body gets an error."""

HOST_SHARE = 0.02
"""Share of the event loop's time for a host's connections without the key. Two dozen
such hosts leave half of the time."""

HANDSHAKE_COST = 1e-3  # seconds of processor time
STOPPING_SECONDS = 0.5  # for clients to read the last data when the server stops


class _Visitor(H11Protocol):
    """A connection; until it is `known` by the key, it gets only one answer."""

    # `since` is the time of its start, its key, or its last finished read or write.

    known = busy = False

    def __init__(self, host: Share, *, app_state: dict[str, Any], **given: Any) -> None:
        super().__init__(app_state={**app_state, "visitor": self}, **given)
        self.host, self.since = host, time.monotonic()
        self._paid = 0.0
        self._lost = self.loop.create_future()

    @property
    def waits(self) -> bool:
        """Whether it waits for its client to send or to read."""
        return not self.busy or self.flow.write_paused

    @property
    def gone(self) -> bool:
        return self.transport.is_closing()

    async def stay(self) -> None:
        """Wait until the connection is lost or was silent for too long."""
        waiting = 0
        while not self._lost.done():
            stuck, before = self.flow.write_paused, waiting
            waiting = self.transport.get_write_buffer_size()
            if self.known and waiting < before:  # the client reads slowly
                self.since = time.monotonic()
            end = self.since + (READING_SECONDS if stuck else SILENT_SECONDS)
            if time.monotonic() > end and (stuck or not self.busy):
                return
            await asyncio.wait({self._lost}, timeout=1.0)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._lost.set_result(None)

    def charge(self, seconds: float) -> None:
        self._paid += seconds
        self.host.use(seconds / HOST_SHARE)

    def data_received(self, data: bytes) -> None:
        """Process data; without the key, pause reading beyond the host's share."""
        began = time.thread_time()
        super().data_received(data)
        if self.known:
            return
        self.charge(time.thread_time() - began)
        if (wait := self.host.wait_seconds) > 0:
            self.flow.pause_reading()
            self.loop.call_later(wait, self._read_on)

    def on_response_complete(self) -> None:
        """Go on with the next request if the client is known, else close."""
        if self.known:
            self.charge(-self._paid)  # refund: it had the key
            if self.busy or not self.transport.get_write_buffer_size():
                self.since = time.monotonic()
            self.busy = False
            super().on_response_complete()
        elif not self.transport.is_closing():  # closing twice would confuse uvicorn
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.since = time.monotonic()

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()


class _Server(uvicorn.Server):
    """A server that accepts connections itself, to limit them before handshakes."""

    def __init__(self, config: uvicorn.Config, most: int) -> None:
        super().__init__(config)
        self._most = most
        self._share = functools.lru_cache(1024)(lambda host: Share())
        self._places: dict[_Visitor, asyncio.Task[None]] = {}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        self._doors = [asyncio.ensure_future(self._let_in(s)) for s in sockets or []]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, end completions with an error, then close."""
        for door in self._doors:
            door.cancel()
        await self.lifespan.shutdown()
        for place in self._places.values():
            asyncio.get_running_loop().call_later(STOPPING_SECONDS, place.cancel)
        await super().shutdown(sockets)

    async def _let_in(self, listener: socket.socket) -> None:
        listener.listen(self.config.backlog)
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listener)
            except OSError:  # too many open files
                await asyncio.sleep(0.1)
                continue
            visitor = _Visitor(
                self._share(address[0]),
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            )
            self._places[visitor] = loop.create_task(self._host(visitor, sock))
            self._make_room()
            await asyncio.sleep(0)  # let other tasks run between connections

    def _make_room(self) -> None:
        """If too many connections wait, close one of the host with the most."""
        for known in (False, True):
            found = [v for v in self._places if v.known is known and v.waits]
            found.sort(key=lambda visitor: visitor.since)
            while len(found) > self._most:
                gone = first_of_crowd(found, lambda v: id(v.host))
                found.remove(gone)
                self._places.pop(gone).cancel()

    async def _host(self, visitor: _Visitor, sock: socket.socket) -> None:
        """Run a connection until it ends or must end."""
        security = self.config.ssl
        try:
            while security and (wait := visitor.host.wait_seconds) > 0:
                await asyncio.sleep(wait)
            visitor.charge(HANDSHAKE_COST)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: visitor,
                sock,
                ssl=security,
                ssl_handshake_timeout=SHAKING_SECONDS if security else None,
            )
            await visitor.stay()
        except OSError:
            pass  # the handshake failed
        finally:
            self._places.pop(visitor, None)
            if visitor.transport is not None:
                visitor.transport.abort()
            sock.close()  # in case it has no transport


def make_server(
    app: Starlette, *, clients: int, certificate: Certificate | None = None
) -> uvicorn.Server:
    """Make a server for `clients` answers at a time; a certificate enables TLS."""
    config = uvicorn.Config(
        app,
        http=_Visitor,
        ws="none",
        log_level="error",  # anyone could fill the log with warnings
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=HEADER_BYTES,
        ssl_certfile=certificate.cert if certificate else None,
        ssl_keyfile=certificate.key if certificate else None,
    )
    room = (half_of_files() - clients) // 2
    return _Server(config, max(1, min(CONNECTIONS, room)))
