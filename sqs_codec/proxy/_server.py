"""The server of an endpoint, with limits on what strangers may send."""

from __future__ import annotations

import asyncio

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from sqs_codec.proxy._app import HEADER_BYTES, READING_SECONDS
from sqs_codec.serve._address import File

__all__ = ["make_server"]

CONNECTIONS = 64
"""Besides one for each client."""

STOPPING_SECONDS = 5
"""For answers that are on their way when the server is to stop."""


class _Impatient(H11Protocol):
    """A connection that is closed if at a look there is no request of which all came.

    One that waits for another request is closed sooner, by uvicorn.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # theirs
        """Begin to look."""
        super().connection_made(transport)
        self.loop.call_later(READING_SECONDS, self._look)

    def _look(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        elif not self.transport.is_closing():
            self.loop.call_later(READING_SECONDS, self._look)


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
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=_Impatient,
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=HEADER_BYTES,
            limit_concurrency=clients + CONNECTIONS,
            timeout_graceful_shutdown=STOPPING_SECONDS,
            ssl_certfile=cert,
            ssl_keyfile=key,
        )
    )
