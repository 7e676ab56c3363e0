"""The endpoint: what may be asked, by whom, and what is answered."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import itertools
import json
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Collection
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sqs_codec.system._base.address import bearer
from sqs_codec.system.proxy import _request
from sqs_codec.system.proxy._errors import ApiError
from sqs_codec.system.proxy._metrics import CONTENT_TYPE_LATEST, Metrics
from sqs_codec.system.proxy._writer import Answer, Piece, Writer
from sqs_codec.system.session import Sampling

__all__ = ["make_app"]

NAME = "sqs"
"""Of the model, unless it has another."""

MOST_BYTES, HEADER_BYTES = 1 << 20, 1 << 14
"""Of a body, and of the headers before it."""

READING_SECONDS = 30.0
"""For a body to come, and for what waits of an answer to be read."""

PAGE = Path(__file__).parent / "page"

PAGES = {"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript"}
"""Where its files are asked for, and what they are."""

OPEN = {*PAGES, "/health"}
"""What needs no key."""

AUTHORITY = re.compile(
    r"(\[[0-9a-f]*:[0-9a-f:.]*\]|[0-9a-z_.-]+)(?::([0-9]{1,5}))?", re.I
)
"""A name or an address, and a port or none."""

CLOSE = {"connection": "close"}
"""As a stranger has one answer over a connection."""

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
    writer: Writer,
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
    writer : Writer
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
    endpoint = _Endpoint(writer, models, sampling or Sampling())

    def fixed(path: str, answer: Response) -> Route:
        return Route(path, answer, methods=["GET"])

    def page(path: str, kind: str) -> Route:
        file = PAGE / (path[1:] or "index.html")
        return fixed(path, Response(file.read_bytes(), 200, SAFETY, kind))

    async def metrics(_: Request) -> Response:
        page = endpoint.metrics.page()
        return Response(page, headers={"content-type": CONTENT_TYPE_LATEST})

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await writer.close()

    async def refuse(request: Request, error: Exception) -> Response:
        if isinstance(error, ApiError):
            return endpoint.refusal(error)
        if not isinstance(error, HTTPException):
            return Response(status_code=499)  # to nobody
        asked = f"{request.method[:9]} {request.scope['path'][:99]}"
        there = ", ".join(
            f"{'POST' if 'POST' in route.methods else 'GET'} {route.path}"
            for route in request.app.routes
        )
        said = f"there is no {asked} here, only {there}"
        status = error.status_code
        answer = endpoint.refusal(ApiError(said, status=status, code="unknown_url"))
        answer.headers.update(error.headers or {})
        return answer

    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type"],
    )
    guard = Middleware(
        _Guard, endpoint=endpoint, api_key=api_key, hosts=hosts, origins=origins
    )
    return Starlette(
        routes=[
            *map(page, PAGES, PAGES.values()),
            fixed("/health", JSONResponse({"status": "ok"}, 200, CLOSE)),
            Route("/metrics", metrics),
            Route("/v1/models", endpoint.models),
            Route("/v1/models/{model:path}", endpoint.model),
            Route("/v1/chat/completions", endpoint.chat, methods=["POST"]),
            Route("/v1/completions", endpoint.completions, methods=["POST"]),
        ],
        middleware=[cors, guard] if origins else [guard],
        exception_handlers={
            ApiError: refuse,
            HTTPException: refuse,
            ClientDisconnect: refuse,
        },
        lifespan=lifespan,
    )


class _Guard:
    """Refuses calls from web sites, by names that aren't ours, and without the key.

    A site whose name was made to point to this machine is still called by its name:
    who calls by an address or as ``localhost`` means this machine.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        endpoint: _Endpoint,
        api_key: str | None,
        hosts: Collection[str],
        origins: Collection[str],
    ) -> None:
        self._app, self._endpoint = app, endpoint
        self._key = None if api_key is None else api_key.encode()
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._origins = set(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on what may be handed on."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        # Of our own server, or else nobody's.
        visitor = scope.setdefault("state", {}).setdefault("visitor", SimpleNamespace())
        try:
            self._check(scope)
            if scope["path"] not in OPEN:
                self._check_key(scope)
                visitor.known, visitor.since = True, time.monotonic()
        except ApiError as error:
            return await self._endpoint.refusal(error)(scope, receive, send)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        if sum(map(len, itertools.chain(*scope["headers"]))) > HEADER_BYTES:
            said = f"the headers may have {HEADER_BYTES} bytes"
            raise ApiError(said, status=431)
        authority = _header(scope, "host")
        if not self._knows(authority):
            raise ApiError(
                f"this endpoint isn't called {authority[:99]!r}; if it is, start it "
                f"with --allow-host",
                status=403,
                code="unknown_host",
            )
        origin = _header(scope, "origin")
        own = f"{scope['scheme']}://{authority}"
        if origin and origin != own and origin not in self._origins:
            raise ApiError(
                f"pages of {origin[:99]} may not call this endpoint; to let them, "
                f"start it with --allow-origin",
                status=403,
                code="unknown_origin",
            )

    def _check_key(self, scope: Scope) -> None:
        shown = bearer(_header(scope, "authorization")) or ""
        if self._key and not hmac.compare_digest(shown.encode("latin-1"), self._key):
            raise ApiError(
                "the key isn't this endpoint's: it takes the one that it was started "
                "with, as a bearer token",
                status=401,
                code="invalid_api_key",
            )

    def _knows(self, authority: str) -> bool:
        found = AUTHORITY.fullmatch(authority)
        if found is None or int(found[2] or 0) > 65535:
            return False
        host = found[1].lower()
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(host.strip("[]"))
            return True
        return host in self._hosts


def _header(scope: Scope, name: str) -> str:
    """Return what a header says, which comes once, or nothing."""
    key = name.encode()
    found = [value for header, value in scope["headers"] if header == key]
    if len(found) > 1:
        raise ApiError(f"the header {name} may come once")
    return found[0].decode("latin-1") if found else ""


class _Endpoint:
    """Answers the protocol's calls."""

    def __init__(self, writer: Writer, models: list[str], sampling: Sampling) -> None:
        self._writer, self._models, self._sampling = writer, models, sampling
        self.metrics = Metrics()
        self._began = int(time.time())
        self._had_tools = False

    def refusal(self, error: ApiError) -> Response:
        """Return an error as an answer."""
        self.metrics.requests.labels(status=error.status).inc()
        return JSONResponse(error.body, error.status, error.headers)

    async def models(self, _: Request) -> Response:
        """Say which models there are."""
        listed = [self._model(name) for name in self._models if name != "*"]
        return JSONResponse({"object": "list", "data": listed})

    async def model(self, request: Request) -> Response:
        """Say what a model is."""
        asked = request.path_params["model"]
        return JSONResponse(self._model(_request.check_model(asked, self._models)))

    def _model(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._began,
            "owned_by": "sqs",
            "sqs": {"sampling": asdict(self._sampling)},
        }

    async def chat(self, request: Request) -> _Reply:
        """Answer in a chat."""
        return await self._complete(request, chat=True)

    async def completions(self, request: Request) -> _Reply:
        """Continue a text."""
        return await self._complete(request, chat=False)

    async def _complete(self, request: Request, *, chat: bool) -> _Reply:
        asked = _request.parse(
            await _body(request),
            chat=chat,
            models=self._models,
            sampling=self._sampling,
        )
        if asked.tools and not self._had_tools:
            self._had_tools = True
            log.warning("a client offers tools: answers are text, and call none")
        request.scope["state"]["visitor"].busy = True  # until it is answered
        answer = await self._writer.write(asked)
        return _Reply(self, asked, answer, _Shape(asked.model, chat))


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


class _Shape:
    """The objects of an answer: of a chat or of a text, whole or in pieces."""

    def __init__(self, name: str, chat: bool) -> None:
        self._chat = chat
        self._base = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": name,
        }
        self._first = True

    def whole(self, texts: list[str], finish: list[str], usage: dict[str, Any]) -> Any:
        """Return the only object of an answer."""
        said: list[dict[str, Any]] = [{"text": text} for text in texts]
        if self._chat:
            said = [{"message": {"role": "assistant", "content": t}} for t in texts]
        return {
            **self._base,
            "object": "chat.completion" if self._chat else "text_completion",
            "choices": list(map(self._choice, said, finish, range(len(texts)))),
            "usage": usage,
        }

    def chunk(self, piece: Piece) -> Any:
        """Return the object of a piece."""
        said: dict[str, Any] = {"text": piece.text}
        if self._chat:
            delta = {"content": piece.text} if piece.text or self._first else {}
            said = {"delta": {"role": "assistant", **delta} if self._first else delta}
        self._first = False
        return self._piece(
            [self._choice(said, piece.finish, piece.index)],
            {"sqs": {"origin": piece.origin, **_figures(piece)}},
        )

    def usage(self, usage: dict[str, Any]) -> Any:
        """Return the last object, if the client asks for the usage."""
        return self._piece([], {"usage": usage})

    def _piece(self, choices: list[Any], more: dict[str, Any]) -> Any:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return {**self._base, "object": kind, "choices": choices, **more}

    def _choice(self, said: dict[str, Any], finish: str | None, index: int) -> Any:
        return {"index": index, **said, "logprobs": None, "finish_reason": finish}


def _figures(piece: Piece) -> dict[str, Any]:
    """Return what a text has taken, for JSON."""
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in asdict(piece.figures).items()
    }


def _usage(answer: Answer, piece: Piece) -> dict[str, Any]:
    """Return the protocol's count of tokens, and ours beside it."""
    prompt, text = answer.prompt_tokens, piece.figures.tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": text,
        "total_tokens": prompt + text,
        "sqs": _figures(piece),
    }


class _Reply(Response):
    """An answer, which ends when its client hangs up."""

    def __init__(
        self,
        endpoint: _Endpoint,
        asked: _request.Request,
        answer: Answer,
        shape: _Shape,
    ) -> None:
        self._endpoint, self._metrics = endpoint, endpoint.metrics
        self._asked, self._answer, self._shape = asked, answer, shape
        self._last: Piece | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, and watch whether somebody listens."""
        write = self._stream if self._asked.stream else self._send_whole
        work = asyncio.ensure_future(write(scope, receive, send))
        watch = asyncio.ensure_future(_hung_up(receive))
        self._metrics.texts.inc()
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            self._answer.close()
            work.cancel()
            watch.cancel()
            await asyncio.wait({work, watch})
            self._metrics.texts.dec()
            if self._last is not None:
                self._metrics.count(self._last.figures)

    async def _next(self) -> Piece:
        piece = await self._answer.next()
        if self._last is None:
            self._metrics.first_token.observe(piece.figures.seconds)
        self._last = piece
        return piece

    async def _send_whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        texts, finish = [""], list[str]()
        try:
            while True:
                piece = await self._next()
                texts[-1] += piece.text
                finish += [piece.finish] if piece.finish else []
                if piece.last:
                    break
                texts += [""] if piece.finish else []
        except ApiError as error:
            return await self._endpoint.refusal(error)(scope, receive, send)
        self._metrics.requests.labels(status=200).inc()
        whole = self._shape.whole(texts, finish, _usage(self._answer, piece))
        await JSONResponse(whole)(scope, receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            piece = await self._next()  # or the status couldn't say what is wrong
        except ApiError as error:
            return await self._endpoint.refusal(error)(scope, receive, send)
        self._metrics.requests.labels(status=200).inc()
        headers = {"content-type": "text/event-stream", "cache-control": "no-store"}
        start = Response(headers=headers)
        del start.headers["content-length"]
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": start.raw_headers,
            },
        )
        try:
            while not piece.last:
                if piece.text or piece.finish:
                    await _event(send, self._shape.chunk(piece))
                piece = await self._next()
        except ApiError as error:
            await _event(send, error.body)
        else:
            await _event(send, self._shape.chunk(piece))
            if self._asked.include_usage:
                usage = _usage(self._answer, piece)
                await _event(send, self._shape.usage(usage))
            await _event(send, "[DONE]")
        await send({"type": "http.response.body"})


async def _event(send: Send, content: Any) -> None:
    """Send an event of a stream."""
    text = content if isinstance(content, str) else json.dumps(content)
    data = f"data: {text}\n\n".encode()
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _hung_up(receive: Receive) -> None:
    """Wait until the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
