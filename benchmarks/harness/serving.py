"""A server around an engine, as in `sqs serve`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from sqs_codec.system import serve
from sqs_codec.system.engine import Engine
from tests.certificates import Issued
from tests.echo import running

HOST = "127.0.0.1"

STARTS: dict[str, Any] = {"grpc": serve.start_grpc, "datagram": serve.start_datagrams}

GRACE = 1.0
"""Seconds until a stopping server disconnects clients."""


@contextlib.asynccontextmanager
async def serving(
    engine: Engine,
    *transports: str,
    issued: Issued | None = None,
    steps: Mapping[int, float] | None = None,
) -> AsyncIterator[list[int]]:
    """Serve an engine and close it at the end; yield the port of each transport.

    Transports have the names of `connect`. Without a certificate, nothing is encrypted.
    """
    own = serve.Certificate(issued.cert, issued.key) if issued else serve.INSECURE
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(engine.close)
        info = await engine.open()
        service = serve.Service(
            engine, info, tokens=None, steps=steps, max_sessions=128
        )
        await service.start()
        ports = []
        for name in transports:
            server = await STARTS[name](service, HOST, 0, security=own)
            stack.push_async_callback(server.stop, GRACE)
            ports.append(server.port)
        stack.push_async_callback(service.stop, GRACE)
        yield ports


@contextlib.contextmanager
def served(
    engine: Engine, transport: str, issued: Issued, steps: Mapping[int, float]
) -> Iterator[int]:
    """Do the same in a thread; yield the port."""
    with running(lambda: _Server(engine, transport, issued, steps).start()) as server:
        yield server.port


class _Server:
    """A server for `running`."""

    port: int

    def __init__(self, engine: Engine, transport: str, *given: Any) -> None:
        issued, steps = given
        self._serving = serving(engine, transport, issued=issued, steps=steps)

    async def start(self) -> _Server:
        """Start it."""
        (self.port,) = await self._serving.__aenter__()
        return self

    async def stop(self, grace: float) -> None:
        """Stop it."""
        await self._serving.__aexit__(None, None, None)
