"""Answers to clients: completions, whole or streamed, and errors."""

import asyncio
import json
import time
import uuid
from dataclasses import asdict
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from sqs_codec.system._endpoint import errors
from sqs_codec.system._endpoint.errors import ApiError
from sqs_codec.system.proxy._completer import Chunk, Completion
from sqs_codec.system.proxy._metrics import ProxyMetrics
from sqs_codec.system.proxy._request import Request


def refusal(error: ApiError, metrics: ProxyMetrics) -> Response:
    """Return the response for an error, and count it."""
    metrics.requests.labels(status=error.status).inc()
    return errors.refusal(error)


class _Shape:
    """Makes the JSON objects of an answer, for chats and texts, whole or streamed."""

    def __init__(self, name: str, chat: bool) -> None:
        self._chat = chat
        self._base = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": name,
        }
        self._first = True

    def whole(self, texts: list[str], finish: list[str], usage: dict[str, Any]) -> Any:
        said: list[dict[str, Any]] = [{"text": text} for text in texts]
        if self._chat:
            said = [{"message": {"role": "assistant", "content": t}} for t in texts]
        return {
            **self._base,
            "object": "chat.completion" if self._chat else "text_completion",
            "choices": list(map(self._choice, said, finish, range(len(texts)))),
            "usage": usage,
        }

    def chunk(self, chunk: Chunk) -> Any:
        said: dict[str, Any] = {"text": chunk.text}
        if self._chat:
            delta = {"content": chunk.text} if chunk.text or self._first else {}
            said = {"delta": {"role": "assistant", **delta} if self._first else delta}
        self._first = False
        return self.piece(
            [self._choice(said, chunk.finish, chunk.index)],
            {"sqs": {"origin": chunk.origin, **_figures(chunk)}},
        )

    def piece(self, choices: list[Any], more: dict[str, Any]) -> Any:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return {**self._base, "object": kind, "choices": choices, **more}

    def _choice(self, said: dict[str, Any], finish: str | None, index: int) -> Any:
        return {"index": index, **said, "logprobs": None, "finish_reason": finish}


def _figures(chunk: Chunk) -> dict[str, Any]:
    found = asdict(chunk.figures)
    found["plan"] = found.pop("reason")
    found["seconds"] = round(found["seconds"], 4)
    del found["alone_tokens"], found["alone_seconds"]
    # null if this proxy hasn't measured the mode alone
    alone = chunk.figures.alone_per_second
    return {**found, "alone_per_second": round(alone, 2) if alone else None}


def _usage(answer: Completion, chunk: Chunk) -> dict[str, Any]:
    """Return the usage object, with our metrics in `sqs`."""
    prompt, text = answer.prompt_tokens, chunk.figures.tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": text,
        "total_tokens": prompt + text,
        "sqs": _figures(chunk),
    }


class Reply(Response):
    """An answer; it ends the completion when the client disconnects."""

    def __init__(
        self, metrics: ProxyMetrics, asked: Request, answer: Completion, *, chat: bool
    ) -> None:
        self._metrics, self._asked, self._answer = metrics, asked, answer
        self._shape = _Shape(asked.model, chat)
        self._last: Chunk | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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

    async def _next(self) -> Chunk:
        chunk = await self._answer.next()
        if self._last is None:
            self._metrics.first_token.observe(chunk.figures.seconds)
        self._last = chunk
        return chunk

    async def _send_whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        texts, finish = [""], list[str]()
        try:
            while True:
                chunk = await self._next()
                texts[-1] += chunk.text
                finish += [chunk.finish] if chunk.finish else []
                if chunk.last:
                    break
                texts += [""] if chunk.finish else []
        except ApiError as error:
            return await refusal(error, self._metrics)(scope, receive, send)
        self._metrics.requests.labels(status=200).inc()
        whole = self._shape.whole(texts, finish, _usage(self._answer, chunk))
        await JSONResponse(whole)(scope, receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            chunk = await self._next()  # before the status, which may be an error
        except ApiError as error:
            return await refusal(error, self._metrics)(scope, receive, send)
        self._metrics.requests.labels(status=200).inc()
        headers = {"content-type": "text/event-stream", "cache-control": "no-store"}
        start = Response(headers=headers)
        del start.headers["content-length"]
        await send(
            {"type": "http.response.start", "status": 200, "headers": start.raw_headers}
        )
        try:
            while not chunk.last:
                if chunk.text or chunk.finish:
                    await _event(send, self._shape.chunk(chunk))
                chunk = await self._next()
        except ApiError as error:
            await _event(send, error.body)
        else:
            await _event(send, self._shape.chunk(chunk))
            if self._asked.include_usage:
                usage = {"usage": _usage(self._answer, chunk)}
                await _event(send, self._shape.piece([], usage))
            await _event(send, "[DONE]")
        await send({"type": "http.response.body"})


async def _event(send: Send, content: Any) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    data = f"data: {text}\n\n".encode()
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
