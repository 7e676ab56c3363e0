"""The server's end of sessions over gRPC; `sqs_codec.serve._grpc.link` is the edge's.

A session has one bidirectional stream, and each of its messages is one of ours.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from sqs_codec._base.address import join_address
from sqs_codec.serve._address import File, check_free, check_security
from sqs_codec.serve._connection import Connection
from sqs_codec.serve._grpc.link import (
    METHOD,
    MOST_WAITING,
    READY,
    SERVICE,
    SHARED_OPTIONS,
    Options,
)
from sqs_codec.serve._service import Service

__all__ = ["GrpcServer", "start_grpc"]

IDLE_SECONDS = 20.0
"""How long a connection may be without a stream."""

MOST_CONNECTIONS = 1 << 16
"""Where the system sets no limit."""

HEALTH = "grpc.health.v1.Health"
MOST_CHECKS, CHECK_SECONDS = 16, 5.0
"""Health checks that have still to say what of, and how long that may take."""

CLOSING_SECONDS = 20.0
"""How long a peer has to read the last words."""


class GrpcServer:
    """A gRPC server that `start_grpc` has started.

    Attributes
    ----------
    port : int
    """

    def __init__(self, service: Service, server: Any, port: int) -> None:
        self.port = port
        self._service = service
        self._server = server
        sessions = {METHOD: grpc.stream_stream_rpc_method_handler(self._open)}
        # As a stream of requests: for a single one gRPC would wait without end.
        check = grpc.stream_unary_rpc_method_handler(
            _Health(service).check,
            health_pb2.HealthCheckRequest.FromString,
            health_pb2.HealthCheckResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(SERVICE, sessions),
                grpc.method_handlers_generic_handler(HEALTH, {"Check": check}),
            ]
        )

    async def start(self) -> None:
        """Begin to serve."""
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Take no more connections, and end those there are after `grace` seconds.

        `Service.stop` ends them in good order, so call it before.
        """
        await self._server.stop(grace)

    async def _open(self, requests: object, context: Any) -> Any:
        """Serve one stream."""
        owner = self._service.authorize(_token_of(context))
        if owner is None:
            # This raises, as aborts do.
            return await context.abort(
                grpc.StatusCode.UNAUTHENTICATED, "the token isn't one of the server's"
            )
        stream = _Stream(context)
        connection = self._service.connect(owner, stream.send, stream.close)
        stream.connection = connection
        try:
            await context.send_initial_metadata((READY,))
            await stream.run()
        finally:
            connection.close()
        if stream.reason is not None:
            await context.abort(grpc.StatusCode.ABORTED, stream.reason)
        return None


class _Health:
    """Health checks. They need no token, so none may hold a place.

    Nobody can watch, who would take a stream for as long as it lasts. A check that
    doesn't say what it asks for goes after a while, or for another.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._unsaid: dict[asyncio.Future[Any], None] = {}  # the oldest first

    async def check(self, _: object, context: Any) -> Any:
        """Say how the service is."""
        said = asyncio.ensure_future(context.read())
        self._unsaid[said] = None
        if len(self._unsaid) > MOST_CHECKS:
            oldest = next(iter(self._unsaid))
            del self._unsaid[oldest]
            oldest.cancel()
        try:
            await asyncio.wait([said], timeout=CHECK_SECONDS)
        finally:
            self._unsaid.pop(said, None)
            said.cancel()
        read = said.done() and not said.cancelled() and said.exception() is None
        if not read or getattr(said.result(), "service", None) not in ("", SERVICE):
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        statuses = health_pb2.HealthCheckResponse
        well = self._service.health() is None
        return statuses(status=statuses.SERVING if well else statuses.NOT_SERVING)


class _Stream:
    """The server's end of a stream."""

    connection: Connection

    def __init__(self, context: Any) -> None:
        self.reason: str | None = None
        self._context = context
        self._outgoing: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._given_up = asyncio.Event()

    def send(self, message: bytes) -> None:
        """Queue a message, or give up on a peer that doesn't read."""
        if self._outgoing.qsize() < MOST_WAITING:
            self._outgoing.put_nowait(message)
        elif not self._given_up.is_set():
            self._given_up.set()
            self.connection.end(
                "slow", f"{MOST_WAITING} messages wait for this peer to read them"
            )

    def close(self, reason: str) -> None:
        """End the stream once everything is sent, or soon if the peer doesn't read."""
        self.reason = reason
        self._outgoing.put_nowait(None)
        asyncio.get_running_loop().call_later(CLOSING_SECONDS, self._given_up.set)

    async def run(self) -> None:
        """Pass messages until the peer has left or the service closes the stream."""
        tasks = {
            asyncio.ensure_future(step())
            for step in (self._read, self._write, self._given_up.wait)
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> None:
        """Take messages; those of a flood wait where they are."""
        while (message := await self._context.read()) is not grpc.aio.EOF:
            self.connection.receive(message)
            if (seconds := self.connection.wait_seconds) > 0:
                await asyncio.sleep(seconds)

    async def _write(self) -> None:
        while (message := await self._outgoing.get()) is not None:
            await self._context.write(message)


async def start_grpc(
    service: Service,
    host: str,
    port: int,
    *,
    cert: File | None = None,
    key: File | None = None,
    insecure: bool = False,
) -> GrpcServer:
    """Serve a service by gRPC, in the running event loop.

    Parameters
    ----------
    service : Service
        Started.
    host : str
        The address to listen at.
    port : int
        0 for any that is free.
    cert, key : path, optional
        PEM files of the certificate, or chain of them, and its private key.
    insecure : bool, optional
        Plain text instead, at a loopback address.

    Returns
    -------
    GrpcServer

    Raises
    ------
    ValueError
        The certificate doesn't load, or there is none, or the host isn't loopback.
    OSError
        The address can't be had.
    """
    check_security(host, cert, key, insecure=insecure)  # gRPC would say nothing
    check_free(host, port)  # gRPC's own error says little
    options: Options = [
        *SHARED_OPTIONS,
        # What is a little too large the service refuses in its own words.
        ("grpc.max_receive_message_length", 2 * service.limits.max_message),
        # Otherwise a second server would share the port in silence.
        ("grpc.so_reuseport", 0),
        # Pings that the peer may send without messages between them.
        ("grpc.http2.min_ping_interval_without_data_ms", 60_000),
        # A connection without a stream, and one that isn't through its handshakes.
        ("grpc.max_connection_idle_ms", round(1000 * IDLE_SECONDS)),
        ("grpc.server_handshake_timeout_ms", round(1000 * IDLE_SECONDS)),
        ("grpc.max_allowed_incoming_connections", _most_connections()),
    ]
    # Some to spare for health checks and for those that are about to be refused.
    server = grpc.aio.server(
        options=options,
        maximum_concurrent_rpcs=2 * service.max_sessions + 2 * MOST_CHECKS,
    )
    address = join_address(host, port)
    if insecure:
        port = server.add_insecure_port(address)
    else:
        assert cert is not None
        assert key is not None
        credentials = grpc.ssl_server_credentials(
            [(Path(key).read_bytes(), Path(cert).read_bytes())]
        )
        port = server.add_secure_port(address, credentials)
    started = GrpcServer(service, server, port)
    await started.start()
    return started


def _most_connections() -> int:
    """Return half of the files that this process may have open: the rest is for others.

    At the limit itself gRPC would let connections wait without a word.
    """
    files = os.sysconf("SC_OPEN_MAX") if hasattr(os, "sysconf") else -1
    return MOST_CONNECTIONS if files < 0 else min(files // 2, MOST_CONNECTIONS)


def _token_of(context: Any) -> str | None:
    for name, value in context.invocation_metadata() or ():
        if name == "authorization":
            scheme, _, token = value.partition(" ")
            return str(token) if scheme.lower() == "bearer" else None
    return None
