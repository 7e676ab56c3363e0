"""A service that answers every message, in place of one that has a model."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Protocol

from sqs_codec.system.session import Limits

TOKEN = "a-token-of-some-thirty-characters"


class EchoService:
    """Answers each message, `seconds` later, by `answer` of it, if that isn't None."""

    def __init__(
        self,
        answer: Callable[[bytes], bytes | None] = lambda message: message,
        seconds: float = 0.0,
        tokens: tuple[str, ...] | None = (TOKEN,),
    ) -> None:
        self.answer = answer
        self.seconds = seconds
        self.tokens = tokens
        self.limits = Limits()
        self.max_sessions = 64
        self.connections: list[EchoConnection] = []

    def authorize(self, token: str | None) -> str | None:
        if self.tokens is None:
            return ""
        return token if token in self.tokens else None

    def health(self) -> None: ...

    def connect(
        self,
        owner: str,
        send: Callable[[bytes], None],
        close: Callable[[str], None] | None = None,
    ) -> EchoConnection:
        self.connections.append(EchoConnection(self, send, close))
        return self.connections[-1]


class EchoConnection:
    """One client, and all that it has sent."""

    refused: str | None = None
    wait_seconds = 0.0

    def __init__(
        self,
        service: EchoService,
        send: Callable[[bytes], None],
        close: Callable[[str], None] | None,
    ) -> None:
        self.service = service
        self.messages: list[bytes] = []
        self.closed = False
        self._send = send
        self._close = close

    def receive(self, message: bytes) -> None:
        self.messages.append(message)
        answer = self.service.answer(message)
        if answer is not None:
            later = asyncio.get_running_loop().call_later
            later(self.service.seconds, self._send, answer)

    def end(self, kind: str, reason: str) -> None:
        if self._close is not None:
            self._close(reason)

    def close(self) -> None:
        self.closed = True


class Server(Protocol):
    """A started server of a transport."""

    @property
    def port(self) -> int: ...

    async def stop(self, grace: float) -> Any: ...


@contextlib.contextmanager
def running(start: Callable[[], Awaitable[Server]]) -> Iterator[Server]:
    """Run a server in a thread of its own, with an event loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="server")
    thread.start()

    def call(awaitable: Awaitable[Any]) -> Any:
        async def wait() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(wait(), loop).result(10)

    try:
        server = call(start())
        try:
            yield server
        finally:
            call(server.stop(0))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
