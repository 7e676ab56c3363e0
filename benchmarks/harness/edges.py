"""Edges that write texts on and on, to keep a server busy.

Nothing here needs torch, so that their process starts at once.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from benchmarks.harness.serving import HOST, serving
from sqs_codec.system.edge import DraftModel, FixedPlan, generate
from sqs_codec.system.engine import Engine
from sqs_codec.system.serve import connect
from sqs_codec.system.session import EdgeSession, Sampling, Setting

ROUND = 4
MAX_TOKENS = 24
"""Of a text, unless told otherwise: few, so that texts end and begin while a server is
watched."""

PATIENCE = 300.0
"""Seconds that an edge waits for its turn at a busy server."""


@dataclass(frozen=True)
class Crowd:
    """Edges of one process, a thread each."""

    port: int
    """Of the server, on this machine."""
    transport: str
    """As `connect` takes it."""
    tokenizer: bytes
    """The server's."""
    codec: sqs.Codec
    prompts: list[list[int]]
    """Edge i writes texts after prompt i; they begin anew at the last one's end."""
    edges: int
    draft: Callable[[], DraftModel] | None = None
    """Makes an edge's draft model; a `Lookup`, which is free, unless given."""
    plan: FixedPlan = field(default_factory=lambda: FixedPlan(ROUND))
    tokens: int = MAX_TOKENS
    """Of a text."""


@dataclass
class Seen:
    """What edges saw."""

    tokens: list[tuple[float, int]] = field(default_factory=list)
    """When some came, in seconds since the edges were warm, and how many."""
    texts: list[float] = field(default_factory=list)
    """When a text was done."""
    errors: list[str] = field(default_factory=list)

    def between(self, start: float, end: float) -> tuple[int, int]:
        """Return how many tokens came and texts were done in an interval."""
        return (
            sum(n for at, n in self.tokens if start <= at < end),
            sum(start <= at < end for at in self.texts),
        )


class Lookup(DraftModel):
    """A draft model: what followed the last token before, or a few common tokens."""

    def __init__(self, vocab_size: int) -> None:
        self._row = np.full(vocab_size, -20.0, np.float32)
        self._row[200:216] = 0.0

    def logits(self, tokens: Sequence[int], last: int = 1) -> NDArray[np.float32]:
        """Return the row after the text, [1, V]."""
        row = self._row.copy()
        before = [i for i, token in enumerate(tokens[:-1]) if token == tokens[-1]]
        if before:
            row[tokens[before[-1] + 1]] = 3.0
        return row[None]


async def run(
    crowd: Crowd,
    engine: Engine,
    seconds: float,
    steps: Mapping[int, float] | None = None,
) -> Seen:
    """Serve a crowd by an engine, which is closed then; `crowd.port` is yet to come.

    `steps` are as `Service` takes them.
    """
    loop = asyncio.get_running_loop()
    async with serving(engine, crowd.transport, steps=steps) as (port,):
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            crowd = replace(crowd, port=port)
            return await loop.run_in_executor(pool, run_edges, crowd, seconds)


def run_edges(crowd: Crowd, seconds: float) -> Seen:
    """Write texts for so many seconds, once every edge has had its first tokens."""
    work = _Work(crowd, seconds)
    threads = [
        threading.Thread(target=work.write, args=(i,)) for i in range(crowd.edges)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return work.seen()


class _Work:
    """What the edges of a crowd do."""

    def __init__(self, crowd: Crowd, seconds: float) -> None:
        self._crowd, self._seconds = crowd, seconds
        self._start = self._end = math.inf
        self._warm: set[int] = set()
        self._seen = Seen()

    def seen(self) -> Seen:
        """Return what was seen, by the time since all were warm."""
        seen, start = self._seen, self._start
        return Seen(
            [(at - start, n) for at, n in seen.tokens],
            [at - start for at in seen.texts],
            seen.errors,
        )

    def write(self, number: int) -> None:
        """Be an edge until the time is up."""
        rng = np.random.default_rng(number)
        # The first text is shorter, so that the edges' texts don't all end at once.
        crowd = self._crowd
        length = int(rng.integers(1, crowd.tokens + 1))
        draft = crowd.draft() if crowd.draft else Lookup(crowd.codec.vocab_size)
        try:
            while time.monotonic() < self._end:
                self._write_text(number, draft, rng, length)
                length = crowd.tokens
        except Exception as error:
            self._seen.errors.append(f"{type(error).__name__}: {error}")
            self._note_warm(number)

    def _note_warm(self, number: int) -> None:
        """Begin to count when the last edge is warm, or has failed."""
        self._warm.add(number)
        if len(self._warm) == self._crowd.edges and self._start == math.inf:
            self._start = time.monotonic()
            self._end = self._start + self._seconds

    def _write_text(
        self, number: int, draft: DraftModel, rng: np.random.Generator, length: int
    ) -> None:
        crowd = self._crowd
        session = EdgeSession(
            [Setting(crowd.codec, sqs.TopK(64))],
            crowd.prompts[number % len(crowd.prompts)],
            rng=rng,
            sampling=Sampling(0.7),
            tokenizer=crowd.tokenizer,
            max_message=1171,
        )
        place = f"{HOST}:{crowd.port}"
        steps = generate(
            session,
            draft,
            lambda: connect(place, transport=crowd.transport, insecure=True),
            crowd.plan,
            max_tokens=length,
            patience=PATIENCE,
        )
        left = length
        for step in steps:
            self._note_warm(number)
            now = time.monotonic()
            self._seen.tokens.append((now, len(step.tokens)))
            left -= len(step.tokens)
            if left <= 0 or session.finished:
                self._seen.texts.append(now)
            if now >= self._end:
                steps.close()
