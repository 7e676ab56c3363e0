"""The endpoint: what may be asked, by whom, and what is answered."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sqs_codec.system.edge import MODES
from sqs_codec.system.proxy import _request
from sqs_codec.system.proxy._completer import Completer
from sqs_codec.system.proxy._errors import ApiError
from sqs_codec.system.proxy._guard import Guard
from sqs_codec.system.proxy._limits import MOST_BYTES, READING_SECONDS
from sqs_codec.system.proxy._metrics import CONTENT_TYPE_LATEST, ProxyMetrics
from sqs_codec.system.proxy._reply import Reply, refusal
from sqs_codec.system.session import Sampling

__all__ = ["make_app"]

NAME = "sqs"  # of the model, unless it has another
PAGE = Path(__file__).parent / "page"

PAGES = {"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript"}
"""Where its files are asked for, and what they are."""

HEALTH = "/health"
CLOSE = {"connection": "close"}  # as a stranger has one answer over a connection

SAFETY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
    **CLOSE,
}
"""Headers of the page."""

log = logging.getLogger(__name__)


def make_app(
    completer: Completer,
    *,
    names: Collection[str] = (),
    sampling: Sampling | None = None,
    api_key: str | None = None,
    hosts: Collection[str] = (),
    origins: Collection[str] = (),
) -> Starlette:
    """Make what answers clients.

    Parameters
    ----------
    completer : Completer
    names : collection of str
        What the model is called; ``*`` is any name. By default it is "sqs".
    sampling : Sampling, optional
        How texts are drawn where a client doesn't say.
    api_key : str, optional
        What clients have to give as a bearer token.
    hosts : collection of str
        Names by which the endpoint may be called, besides ``localhost`` and addresses.
    origins : collection of str
        Web sites whose pages may call it, as ``https://chat.example.org``.

    Returns
    -------
    starlette.applications.Starlette
        An ASGI application.
    """
    named = [name for name in names if name != "*"] or [NAME]
    models = [*named, "*"] if "*" in names else named
    calls = _Calls(completer, models, sampling or Sampling())
    chat, text = (partial(calls.complete, chat=chat) for chat in (True, False))

    def fixed(path: str, answer: Response) -> Route:
        return Route(path, answer, methods=["GET"])

    def page(path: str, kind: str) -> Route:
        file = PAGE / (path[1:] or "index.html")
        return fixed(path, Response(file.read_bytes(), 200, SAFETY, kind))

    async def metrics(_: Request) -> Response:
        page = calls.metrics.page()
        return Response(page, headers={"content-type": CONTENT_TYPE_LATEST})

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await completer.close()

    async def refuse(request: Request, error: Exception) -> Response:
        if isinstance(error, ApiError):
            return refusal(error, calls.metrics)
        if not isinstance(error, HTTPException):
            return Response(status_code=499)  # to nobody
        asked = f"{request.method[:9]} {request.scope['path'][:99]}"
        there = ", ".join(
            f"{'POST' if 'POST' in route.methods else 'GET'} {route.path}"
            for route in request.app.routes
        )
        said = f"there is no {asked} here, only {there}"
        status = error.status_code
        answer = refusal(
            ApiError(said, status=status, code="unknown_url"), calls.metrics
        )
        answer.headers.update(error.headers or {})
        return answer

    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type"],
    )
    guard = Middleware(
        Guard,
        metrics=calls.metrics,
        free={*PAGES, HEALTH},
        api_key=api_key,
        hosts=hosts,
        origins=origins,
    )
    return Starlette(
        routes=[
            *map(page, PAGES, PAGES.values()),
            fixed(HEALTH, JSONResponse({"status": "ok"}, 200, CLOSE)),
            Route("/metrics", metrics),
            Route("/v1/models", calls.models),
            Route("/v1/models/{model:path}", calls.model),
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/completions", text, methods=["POST"]),
        ],
        middleware=[cors, guard] if origins else [guard],
        exception_handlers=dict.fromkeys(
            (ApiError, HTTPException, ClientDisconnect), refuse
        ),
        lifespan=lifespan,
    )


class _Calls:
    """Answers the protocol's calls."""

    def __init__(
        self, completer: Completer, models: list[str], sampling: Sampling
    ) -> None:
        self._completer, self._models, self._sampling = completer, models, sampling
        self.metrics = ProxyMetrics()
        self._began = int(time.time())
        self._had_tools = False

    async def models(self, request: Request) -> Response:
        named = [name for name in self._models if name != "*"]
        listed = [self._model(name, request) for name in named]
        return JSONResponse({"object": "list", "data": listed})

    async def model(self, request: Request) -> Response:
        asked = request.path_params["model"]
        name = _request.check_model(asked, self._models)
        return JSONResponse(self._model(name, request))

    def _model(self, name: str, request: Request) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._began,
            "owned_by": "sqs",
            "sqs": {
                "sampling": asdict(self._sampling),
                # Modes are compared over one, so all have to be had.
                "thin_links": _is_local(request)
                and {*MODES} == {*self._completer.modes},
            },
        }

    async def complete(self, request: Request, *, chat: bool) -> Reply:
        asked = _request.parse(
            await _body(request),
            chat=chat,
            models=self._models,
            sampling=self._sampling,
        )
        if asked.link and not _is_local(request):
            raise ApiError(
                "a thin link is to be tried on this machine alone: call this endpoint "
                "at 127.0.0.1",
                status=403,
                param="sqs.link",
                code="not_local",
            )
        if asked.tools and not self._had_tools:
            self._had_tools = True
            log.warning("a client offers tools: answers are text, and call none")
        request.scope["state"]["visitor"].busy = True  # until it is answered
        answer = await self._completer.write(asked)
        return Reply(self.metrics, asked, answer, chat=chat)


def _is_local(request: Request) -> bool:
    """Whether a call came to an address of the loopback."""
    host, _ = request.scope.get("server") or ("", 0)
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


async def _body(request: Request) -> bytes:
    """Return a body, unless it is too long or takes too long."""
    too_long = ApiError(f"a body may have {MOST_BYTES} bytes", status=413)
    if int(request.headers.get("content-length", 0)) > MOST_BYTES:
        raise too_long

    async def read() -> bytes:
        data = b""
        async for chunk in request.stream():
            data += chunk
            if len(data) > MOST_BYTES:
                raise too_long
        return data

    try:
        return await asyncio.wait_for(read(), READING_SECONDS)
    except asyncio.TimeoutError:
        raise ApiError("the body takes too long to come", status=408) from None
