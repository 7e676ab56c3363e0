"""The stored teacher: what may be asked, and what is answered."""

import asyncio
import json
import time
import uuid
from collections.abc import Collection, Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sqs_codec.distill import Dataset, Lookup, MissError
from sqs_codec.system.endpoint.app import make_endpoint, model_routes, read_body
from sqs_codec.system.endpoint.errors import ApiError
from sqs_codec.system.endpoint.fields import model_names
from sqs_codec.system.teacher._lists import BLOCK, Lists, Text
from sqs_codec.system.teacher._request import MOST_BYTES, Tokens, parse

SEATS = 8  # requests that are in memory at the same time
CALLS = 256  # those, and others that wait for a seat

CHOICE = (
    b'%b{"index": %d, "text": "", "logprobs": null, "finish_reason": "length", '
    b'"stop_reason": null, "prompt_logprobs": ['
)


def make_app(
    data: Dataset, *, names: Collection[str] = (), fill: bool = False, **access: Any
) -> Starlette:
    """Make what answers trainers.

    It has the tokens of all texts in memory, 4 bytes each.

    Parameters
    ----------
    data : sqs_codec.distill.Dataset
    names : collection of str
        What the model is called; ``*`` is any name. By default the file's name for it.
    fill : bool
        Whether each list has as many tokens as a request says there may be, of which
        those without a count have the logarithm -9999, and each position but the first
        has a list.
    access : dict
        As `sqs_codec.system.proxy.make_app` takes it.
    """
    models = model_names(names, data.header.model or "teacher")
    calls = _Completions(data, models, fill)
    completions = Route("/v1/completions", calls, methods=["POST"])
    routes = [*model_routes(models, lambda request: {}), completions]
    return make_endpoint(routes, **access)


class _Completions:
    """Answers requests for completions, of which nothing but the prompt is wanted."""

    def __init__(self, data: Dataset, models: list[str], fill: bool) -> None:
        self._header, self._models, self._fill = data.header, models, fill
        self._lookup, self._lists = Lookup(data), Lists(data.header)
        self._calls, self._seats = 0, asyncio.Semaphore(SEATS)
        self._parsing = asyncio.Lock()  # as the event loop waits for it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, once there is a seat for it."""
        if self._calls >= CALLS:
            said = "as many requests as there may be wait for an answer"
            raise ApiError(said, status=429, retry_after=1)
        scope["state"]["visitor"].busy = True  # until it is answered
        self._calls += 1
        try:
            async with self._seats:
                request = HttpRequest(scope, receive)
                data = await read_body(request, MOST_BYTES)
                async with self._parsing:
                    model, prompts, k = await run_in_threadpool(
                        parse, data, self._models, self._header
                    )
                if self._fill and k > BLOCK:
                    said = f"prompt_logprobs may be {BLOCK} where lists are filled"
                    raise ApiError(said, param="prompt_logprobs")
                texts: list[Text] = []
                for name, tokens in prompts.items():
                    if await request.is_disconnected():
                        return  # nobody is told
                    texts += [await run_in_threadpool(self._find, name, tokens, k)]
                pieces = self._write(model, texts, k)  # in which nothing can be wrong
                answer = StreamingResponse(pieces, media_type="application/json")
                await answer(scope, receive, send)
        finally:
            self._calls -= 1

    def _find(self, name: str, tokens: Tokens, k: int) -> Text:
        try:
            text = Text(tokens, self._lookup.find(tokens))
        except MissError as error:
            said, code = f"{name} isn't in the file: {error}", "unknown_text"
            raise ApiError(said, status=404, param=name, code=code) from None
        text.check(name, k)
        return text

    def _write(self, model: str, texts: list[Text], k: int) -> Iterator[bytes]:
        """Yield the answer, in pieces."""
        head = {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion"}
        more = {"created": int(time.time()), "model": model}
        yield json.dumps(head | more)[:-1].encode() + b', "choices": ['
        for i, text in enumerate(texts):
            yield CHOICE % (b", " * (i > 0), i)
            yield from self._lists.write(text, k if self._fill else 0)
            yield b"]}"
        n = sum(text.tokens.size for text in texts)
        usage = {"prompt_tokens": n, "completion_tokens": 0, "total_tokens": n}
        yield b'], "usage": ' + json.dumps(usage).encode() + b"}"
