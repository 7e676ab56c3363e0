"""The ASGI application of an endpoint, around its routes."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sqs_codec.system._endpoint._guard import Guard
from sqs_codec.system._endpoint.errors import ApiError, refusal
from sqs_codec.system._endpoint.fields import check_model
from sqs_codec.system._endpoint.server import READING_SECONDS

HEALTH = "/health"
CLOSE = {"connection": "close"}  # a client without the key gets one answer


def make_endpoint(
    routes: Sequence[Route],
    *,
    free: Collection[str] = (),
    refuse: Callable[[ApiError], Response] = refusal,
    api_key: str | None = None,
    hosts: Collection[str] = (),
    origins: Collection[str] = (),
    lifespan: Any = None,
) -> Starlette:
    """Make an app of these routes and ``/health``; `free` paths need no key."""
    well = JSONResponse({"status": "ok"}, 200, CLOSE)
    routes = [*routes, Route(HEALTH, well, methods=["GET"])]
    there = ", ".join(
        f"{'POST' if 'POST' in (route.methods or ()) else 'GET'} {route.path}"
        for route in routes
    )

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, ApiError):
            return refuse(error)
        if not isinstance(error, HTTPException):
            return Response(status_code=499)  # the client has disconnected
        asked = f"{request.method[:9]} {request.scope['path'][:99]}"
        said = f"unknown path {asked}; use {there}"
        found = refuse(ApiError(said, status=error.status_code, code="unknown_url"))
        found.headers.update(error.headers or {})
        return found

    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type"],
    )
    guard = Middleware(
        Guard,
        refuse=refuse,
        free={*free, HEALTH},
        api_key=api_key,
        hosts=hosts,
        origins=origins,
    )
    return Starlette(
        routes=routes,
        middleware=[cors, guard] if origins else [guard],
        exception_handlers=dict.fromkeys(
            (ApiError, HTTPException, ClientDisconnect), answer
        ),
        lifespan=lifespan,
    )


def model_routes(
    models: Collection[str], about: Callable[[Request], dict[str, Any]]
) -> list[Route]:
    """Make the routes that list the model; `about` adds fields."""
    began = int(time.time())

    def model(name: str, request: Request) -> dict[str, Any]:
        own = {"id": name, "object": "model", "created": began, "owned_by": "sqs"}
        return own | about(request)

    async def every(request: Request) -> Response:
        listed = [model(name, request) for name in models if name != "*"]
        return JSONResponse({"object": "list", "data": listed})

    async def one(request: Request) -> Response:
        name = check_model(request.path_params["model"], models)
        return JSONResponse(model(name, request))

    return [Route("/v1/models", every), Route("/v1/models/{model:path}", one)]


async def read_body(request: Request, most: int) -> bytes:
    """Return the body of at most `most` bytes; ApiError if it is larger or too slow."""
    too_long = ApiError(f"a body may have up to {most} bytes", status=413)
    if int(request.headers.get("content-length", 0)) > most:
        raise too_long

    async def read() -> bytes:
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > most:
                raise too_long
        return bytes(data)

    try:
        return await asyncio.wait_for(read(), READING_SECONDS)
    except asyncio.TimeoutError:
        said = f"the body didn't arrive within {READING_SECONDS:g} seconds"
        raise ApiError(said, status=408) from None
