"""A toy engine that does tricks for sessions of certain names."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from sqs_codec._codec.verify import Verdict
from sqs_codec.system.engine import BatchEngine, Engine, EngineInfo
from sqs_codec.system.ray._replica import application
from sqs_codec.system.session import Job, Read
from tests.system.serve.kit import Toy

if TYPE_CHECKING:
    from ray.serve import Application

Trick = Callable[[bytes], Awaitable[int]]


def job(session: bytes) -> Job:
    return Read(session, [1, 2, 3])


async def answers(engine: Engine, *sessions: bytes) -> list[int]:
    """Return an engine's answers to simultaneous jobs of n sessions."""
    verdicts = await asyncio.gather(*(engine.verify(job(each)) for each in sessions))
    return [verdict.token for verdict in verdicts if verdict]


class Tricks(BatchEngine):
    """A toy engine that obeys a command in a session's name."""

    def __init__(self) -> None:
        super().__init__(toy := Toy(), summary="a toy", tokenizer=b"tokenize")
        self._toy = toy
        self._sick: str | None = None
        self._cancelled = 0

    async def open(self) -> EngineInfo:
        """Take a second, as loading a model does, so that there is a recovery."""
        await asyncio.sleep(1)
        return await super().open()

    async def verify(self, job: Job) -> Verdict | None:
        name, _, argument = job.session.partition(b" ")
        trick: Trick | None = getattr(self, "_" + name.decode(errors="replace"), None)
        if trick is not None:
            return Verdict(0, await trick(argument))
        await asyncio.sleep(0.005)
        return await super().verify(job)

    async def _pid(self, argument: bytes) -> int:
        return os.getpid()

    async def _fail(self, argument: bytes) -> int:
        raise KeyError("a text that nobody likes")

    async def _die(self, argument: bytes) -> int:
        os._exit(1)

    async def _ail(self, argument: bytes) -> int:
        if int(argument.split()[0]) == os.getpid():
            self._sick = "a fever"
            raise MemoryError
        return os.getpid()

    async def _wait(self, argument: bytes) -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self._cancelled += 1
            raise
        return 0

    async def _cancels(self, argument: bytes) -> int:
        return self._cancelled

    async def _forgotten(self, argument: bytes) -> int:
        return self._toy.forgotten.count(argument.rpartition(b" ")[2])

    def health(self) -> str | None:
        return self._sick or super().health()


def make(config: object = None) -> Tricks:
    """Make the engine for any configuration."""
    return Tricks()


def app(args: Mapping[str, Any]) -> Application:
    """As `sqs_codec.system.ray.app`, with this engine."""
    assert not args
    return application(make)
