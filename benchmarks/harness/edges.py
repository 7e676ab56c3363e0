"""Edges that decode continuously to keep a server busy.

This module doesn't need torch, so that the edges' process starts quickly.
"""

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from benchmarks.harness.serving import HOST, serving
from sqs_codec import Sampling
from sqs_codec.system.edge import Draft, FixedPlan, generate
from sqs_codec.system.engine import Engine
from sqs_codec.system.serve import INSECURE, connect
from sqs_codec.system.session import EdgeSession, Setting

PATIENCE = 300.0
"""Seconds that an edge waits for a busy server."""

Came = list[tuple[float, int, bool]]
"""For each step: seconds since all edges had tokens, the number of tokens, and whether
the completion ended."""


@dataclass(frozen=True)
class Crowd:
    """The edges of one process, each with a thread."""

    edges: int
    transport: str
    """As for `connect`."""
    tokenizer: bytes
    """The server's fingerprint."""
    codec: sqs.Codec
    prompts: list[list[int]]
    """Edge i uses prompt i, modulo the number of prompts."""
    draft: Callable[[], Draft]
    """Makes an edge's draft model."""
    plan: FixedPlan
    tokens: int
    """Tokens per completion."""


class Lookup(Draft):
    """A draft that predicts the token after the last token's previous occurrence."""

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
) -> Came:
    """Serve a crowd with an engine, and close it; `steps` as for `Service`."""
    loop = asyncio.get_running_loop()
    async with serving(engine, crowd.transport, steps=steps) as (port,):
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return await loop.run_in_executor(pool, run_edges, crowd, port, seconds)


def run_edges(crowd: Crowd, port: int, seconds: float) -> Came:
    """Generate for some seconds after all edges have their first tokens."""
    all_warm = threading.Barrier(crowd.edges)

    def edge(number: int) -> Came:
        try:
            return _write(crowd, f"{HOST}:{port}", seconds, number, all_warm)
        except BaseException:
            all_warm.abort()
            raise

    with ThreadPoolExecutor(crowd.edges) as pool:
        return [*itertools.chain.from_iterable(pool.map(edge, range(crowd.edges)))]


def _write(
    crowd: Crowd, place: str, seconds: float, number: int, all_warm: threading.Barrier
) -> Came:
    """Run an edge until the time is up."""
    rng, draft = np.random.default_rng(number), crowd.draft()
    # The first completion has a random length, so that they don't all end together.
    length, began, came = int(rng.integers(1, crowd.tokens + 1)), 0.0, Came()
    while not came or came[-1][0] < seconds:
        session = EdgeSession(
            [Setting(crowd.codec, sqs.TopK(64))],
            crowd.prompts[number % len(crowd.prompts)],
            rng=rng,
            sampling=Sampling(0.7),
            tokenizer=crowd.tokenizer,
            max_message=1171,
        )
        steps = generate(
            session,
            draft,
            lambda: connect(place, transport=crowd.transport, security=INSECURE),
            crowd.plan,
            max_tokens=length,
            patience=PATIENCE,
        )
        left, length = length, crowd.tokens
        with contextlib.closing(steps):
            for step in steps:
                if not came:
                    all_warm.wait(PATIENCE)
                    began = time.monotonic()
                left -= len(step.tokens)
                now, done = time.monotonic() - began, left <= 0 or session.finished
                came.append((now, len(step.tokens), done))
                if now >= seconds:
                    break
    return came
