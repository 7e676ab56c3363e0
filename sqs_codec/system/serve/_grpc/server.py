"""The server's end of sessions over gRPC; the edge's is `serve._grpc.link`.

A connection is one bidirectional stream, whose messages are those of the session.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from sqs_codec.system._base import access
from sqs_codec.system._base.access import Certificate, Insecure, Pair
from sqs_codec.system._base.address import join_address
from sqs_codec.system._base.crowd import half_of_files
from sqs_codec.system.serve._connection import Connection
from sqs_codec.system.serve._grpc import link
from sqs_codec.system.serve._grpc.wire import PING_TIMEOUT
from sqs_codec.system.serve._service import Service

IDLE_SECONDS = 20.0  # how long a connection may be without a stream

CHECK = "/grpc.health.v1.Health/Check"
STRANGER_SECONDS = 5.0  # time limit of a call without an access token
CLOSING_SECONDS = 20.0  # how long a peer has to read the last messages

SPARE_STREAMS = 32
"""Streams of one connection in addition to `max_sessions`. For a stream that the peer
doesn't read, gRPC keeps about 14 kB."""


class GrpcServer(grpc.GenericRpcHandler):  # type: ignore[misc]  # it has no types
    """A running gRPC server, from `start_grpc`, and its `port`."""

    port: int

    def __init__(self, service: Service, server: Any) -> None:
        self._renewed: Any = None  # a certificate that isn't in use yet
        self._service = service
        self._server = server
        self._methods = {
            f"/{link.SERVICE}/{link.METHOD}": grpc.stream_stream_rpc_method_handler(
                self._open
            ),
            # A stream of requests: for a single request gRPC would wait without limit.
            CHECK: grpc.stream_unary_rpc_method_handler(
                self._check,
                health_pb2.HealthCheckRequest.FromString,
                health_pb2.HealthCheckResponse.SerializeToString,
            ),
        }
        self._unknown = grpc.stream_stream_rpc_method_handler(self._refuse)
        server.add_generic_rpc_handlers([self])

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of a method, with a time limit also for unknown ones."""
        return self._methods.get(handler_call_details.method, self._unknown)

    def renew(self, pair: Pair) -> Callable[[], None]:
        """Prepare a new certificate; calling the result puts it into use."""
        renewed = _configuration(pair)
        return lambda: setattr(self, "_renewed", renewed)

    def fetch(self) -> Any:
        """Return a new certificate, or None to keep the present one."""
        renewed, self._renewed = self._renewed, None
        return renewed

    async def stop(self, grace: float) -> None:
        """Accept no more connections, and close the others after `grace` seconds.

        Call `Service.stop` first: it ends sessions in good order.
        """
        await self._server.stop(grace)

    async def _open(self, requests: object, context: Any) -> Any:
        metadata = context.invocation_metadata() or ()
        found = (access.bearer(v) for k, v in metadata if k == "authorization")
        owner = self._service.authorize(next(found, None))
        if owner is None:
            _cancel_after(STRANGER_SECONDS)
            why = "the access token isn't valid"
            return await context.abort(grpc.StatusCode.UNAUTHENTICATED, why)  # raises
        stream = _Stream(context)
        connection = self._service.connect(owner, stream.send, stream.close)
        stream.connection = connection
        try:
            await context.send_initial_metadata((link.READY,))
            await stream.run()
        except asyncio.CancelledError:
            if stream.reason is None:
                raise  # the peer has left
        finally:
            connection.close()
        _cancel_after(CLOSING_SECONDS)
        if stream.reason is not None:
            await context.abort(grpc.StatusCode.ABORTED, stream.reason)
        return None

    async def _check(self, _: object, context: Any) -> Any:
        """Answer a health check. There is no Watch, which would hold a place."""
        _cancel_after(STRANGER_SECONDS)
        try:
            request = await context.read()
        except asyncio.CancelledError:  # the request didn't arrive in time
            request = None
            _cancel_after(STRANGER_SECONDS)
        if getattr(request, "service", None) not in ("", link.SERVICE):
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        statuses = health_pb2.HealthCheckResponse
        well = self._service.health() is None
        return statuses(status=statuses.SERVING if well else statuses.NOT_SERVING)

    async def _refuse(self, _: object, context: Any) -> Any:
        _cancel_after(STRANGER_SECONDS)
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown method")


class _Stream:
    """The server's end of a stream."""

    connection: Connection

    def __init__(self, context: Any) -> None:
        self.reason: str | None = None
        self._context = context
        self._call = asyncio.current_task()
        self._outgoing: asyncio.Queue[bytes | None] = asyncio.Queue()

    def send(self, message: bytes) -> None:
        """Queue a message, or close the connection of a peer that doesn't read."""
        if self._outgoing.qsize() < link.MOST_WAITING:
            self._outgoing.put_nowait(message)
        else:
            why = f"the client hasn't read {link.MOST_WAITING} messages"
            self.connection.end("slow", why)

    def close(self, reason: str) -> None:
        """End the stream after sending everything, or soon if the peer doesn't read."""
        self.reason = reason
        self._outgoing.put_nowait(None)
        _cancel_after(CLOSING_SECONDS, self._call)

    async def run(self) -> None:
        """Pass messages until the peer leaves or the service closes the stream."""
        reading = asyncio.ensure_future(self._read())
        writing = asyncio.ensure_future(self._write())
        try:
            await asyncio.wait([reading, writing], return_when=asyncio.FIRST_COMPLETED)
            if self.reason is not None:
                await asyncio.wait([writing])
        finally:
            reading.cancel()
            writing.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)

    async def _read(self) -> None:
        """Receive messages, no faster than the connection's share of time allows."""
        while self.reason is None:
            message = await self._context.read()
            if message is grpc.aio.EOF:
                return
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
    security: Certificate | Insecure,
) -> GrpcServer:
    """Serve a service over gRPC, in the running event loop.

    Parameters
    ----------
    service : Service
        A started service.
    host, port : str, int
        Address to listen on; port 0 is any free one.
    security : Certificate or INSECURE
        `INSECURE` is plain text and needs a loopback address.

    Raises
    ------
    ValueError
        The certificate doesn't load or has no key, or the host isn't loopback.
    OSError
        The address is in use or isn't this machine's.
    """
    # gRPC's own errors on certificates and ports don't name the cause.
    pair = access.check_security(host, security)
    access.check_free(host, port)
    options: link.Options = [
        *link.SHARED_OPTIONS,
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT),
        # Up to twice the limit, the service refuses a message with its own error.
        ("grpc.max_receive_message_length", 2 * service.limits.max_message),
        # Otherwise a second server could silently share the port.
        ("grpc.so_reuseport", 0),
        # The peer's pings without messages between them
        ("grpc.http2.min_ping_interval_without_data_ms", 60_000),
        # A connection without a stream, and one within its handshakes
        ("grpc.max_connection_idle_ms", round(1000 * IDLE_SECONDS)),
        ("grpc.server_handshake_timeout_ms", round(1000 * IDLE_SECONDS)),
        ("grpc.max_allowed_incoming_connections", half_of_files()),
        ("grpc.max_concurrent_streams", service.max_sessions + SPARE_STREAMS),
    ]
    server = grpc.aio.server(options=options)
    address = join_address(host, port)
    started = GrpcServer(service, server)
    if pair is None:
        started.port = server.add_insecure_port(address)
    else:
        own = _configuration(pair)
        credentials = grpc.dynamic_ssl_server_credentials(own, started.fetch)
        started.port = server.add_secure_port(address, credentials)
    await server.start()
    return started


def _configuration(pair: Pair) -> Any:
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.cert)])


def _cancel_after(seconds: float, call: asyncio.Task[Any] | None = None) -> None:
    """Limit the time of a call, by default the present one; gRPC has no limit."""
    call = call or asyncio.current_task()
    assert call is not None
    timer = asyncio.get_running_loop().call_later(seconds, call.cancel)
    call.add_done_callback(lambda _: timer.cancel())
