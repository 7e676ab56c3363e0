"""The ASGI application of ``sqs distill serve``."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sqs_codec.distill import Dataset, Lookup, MissError
from sqs_codec.system._base.crowd import first_of_crowd
from sqs_codec.system._endpoint.app import make_endpoint, model_routes, read_body
from sqs_codec.system._endpoint.errors import ApiError
from sqs_codec.system._endpoint.fields import model_names
from sqs_codec.system._endpoint.server import CONNECTIONS, READING_SECONDS
from sqs_codec.system.teacher._lists import BLOCK, ListWriter, Passage
from sqs_codec.system.teacher._request import MOST_BYTES, parse

LIGHT = 1 << 14
"""Maximum bytes of a light request's body, some 2000 tokens. Light and heavy requests
have separate places and threads, so light ones never wait for heavy ones."""

CALLS = 2 * CONNECTIONS
"""Maximum number of simultaneous requests. At most `CONNECTIONS` clients can stall in
sending or reading, so other light requests find a place."""

HEAVY = 16
"""Maximum number of heavy requests. It bounds the memory: a body has up to 4 MiB, its
tokens up to 8 MiB."""

IDLE_SECONDS = 2.0
"""A client that stalls longer in sending or reading loses its place to a waiting
request. A body of 4 MiB arrives in time at 17 Mbit/s."""

CHOICE = (
    b'%b{"index": %d, "text": "", "logprobs": null, "finish_reason": "length", '
    b'"stop_reason": null, "prompt_logprobs": [null'
)


def make_app(
    data: Dataset, *, names: Collection[str] = (), fill: bool = False, **access: Any
) -> Starlette:
    """Make an ASGI application that answers trainers.

    It keeps the tokens of all texts in memory, 4 bytes each.

    Parameters
    ----------
    names : collection of str
        Names of the model, by default the file's; ``*`` accepts any name.
    fill : bool
        Give each position except the first a list with as many tokens as the request's
        maximum. Tokens without a count have the logarithm -9999.
    access : dict
        As in `sqs_codec.system.proxy.make_app`.
    """
    models = model_names(names, data.header.model or "teacher")
    calls = _Completions(data, models, fill)
    completions = Route("/v1/completions", calls, methods=["POST"])
    routes = [*model_routes(models, lambda request: {}), completions]
    return make_endpoint(routes, **access)


class _Completions:
    """Answers requests for completions with the lists of the prompt's positions."""

    def __init__(self, data: Dataset, models: list[str], fill: bool) -> None:
        self._header, self._models, self._fill = data.header, models, fill
        self._lookup, self._lists = Lookup(data), ListWriter(data.header)
        self._lanes = _Lane(CALLS - HEAVY), _Lane(HEAVY)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; it reads the body after it got a place."""
        request, visitor = HttpRequest(scope, receive), scope["state"]["visitor"]
        size = int(request.headers.get("content-length", 0))
        lane = self._lanes[size > LIGHT or "transfer-encoding" in request.headers]
        async with lane.place(visitor):
            pieces = self._answer(await read_body(request, MOST_BYTES))
            visitor.busy = True  # until the answer is complete
            work = partial(lane.work, request, pieces)
            while (piece := await work()) == b"":
                pass  # other requests get their turn
            if piece:
                answer = StreamingResponse(_chain(piece, work))
                answer.headers["content-type"] = "application/json"
                await answer(scope, receive, send)

    def _answer(self, data: bytes) -> Iterator[bytes]:
        """Yield the answer in pieces; they are empty until the request is checked."""
        model, prompts, k = parse(data, self._models, self._header)
        del data
        if self._fill and k > BLOCK:
            said = f"prompt_logprobs may be up to {BLOCK} with filled lists"
            raise ApiError(said, param="prompt_logprobs")
        for name, tokens in prompts.items():
            try:
                self._lookup.seek(tokens)
            except MissError as error:
                said, code = f"{name} isn't in the file: {error}", "unknown_text"
                raise ApiError(said, status=404, param=name, code=code) from None
            if k < self._header.codec.max_survivors:
                Passage(tokens, self._lookup.start(tokens)).check(name, k)
                yield b""
        about = {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion"}
        more = {"created": int(time.time()), "model": model}
        piece = bytearray(json.dumps(about | more)[:-1].encode() + b', "choices": [')
        for i, tokens in enumerate(prompts.values()):
            piece += CHOICE % (b", " * (i > 0), i)
            if tokens.size > 1:  # the first position has no list
                text = Passage(tokens, self._lookup.start(tokens))
                for block in self._lists.write(text, k if self._fill else 0):
                    yield bytes(piece + block)
                    piece.clear()
            piece += b"]}"
        n = sum(tokens.size for tokens in prompts.values())
        usage = {"prompt_tokens": n, "completion_tokens": 0, "total_tokens": n}
        yield bytes(piece) + b'], "usage": ' + json.dumps(usage).encode() + b"}"


class _Lane:
    """A queue of requests; those with a place work in turn."""

    def __init__(self, most: int) -> None:
        self._most, self._turn = most, asyncio.Lock()
        self._line, self._held = list[Any](), list[Any]()

    @asynccontextmanager
    async def place(self, visitor: Any) -> AsyncIterator[None]:
        """Wait for a place, in the order of arrival, and keep it."""
        end = time.monotonic() + READING_SECONDS
        self._line.append(visitor)
        try:
            while self._line[0] is not visitor or len(self._held) >= self._most:
                if visitor.gone:
                    raise ClientDisconnect
                if (now := time.monotonic()) > end:
                    said = "too many simultaneous requests; try again later"
                    raise ApiError(said, status=429, retry_after=1)
                then = now - IDLE_SECONDS
                if idle := [v for v in self._held if v.waits and v.since < then]:
                    first_of_crowd(idle, lambda v: id(v.host)).transport.abort()
                await asyncio.sleep(0.05)
            self._held.append(visitor)
        finally:
            self._line.remove(visitor)
        visitor.since = time.monotonic()
        try:
            yield
        finally:
            self._held.remove(visitor)

    async def work(self, request: HttpRequest, pieces: Iterator[bytes]) -> bytes | None:
        """Make the next piece in a thread, unless the client has disconnected."""
        async with self._turn:
            # Several turns, in which the event loop notices a disconnect.
            for _ in range(4):
                if await request.is_disconnected():
                    return None
            return await run_in_threadpool(next, pieces, None)


async def _chain(
    piece: bytes | None, following: Callable[[], Awaitable[bytes | None]]
) -> AsyncIterator[bytes]:
    while piece:
        yield piece
        piece = await following()
