"""Measure what lies around an engine: sessions, gateway and Ray, in milliseconds.

The engine is a toy that takes no time and accepts everything. Edges, in a process of
their own, draft five tokens a round from the shipped logits of SmolLM2 (K = 64,
l = 100) after some 350 tokens of text, and wait for the answer; drafting is not timed.
What an edge and a session take by themselves is measured, too. Rows take turns. Without
Ray there are no rows of it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing import get_context
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from tqdm import tqdm

import sqs_codec as sqs
from benchmarks.data.drafts import VOCAB_SIZE
from benchmarks.harness import RESOLUTION, ROUND, TEMPERATURE, K
from benchmarks.harness.serving import HOST, serving
from benchmarks.sources import shipped
from benchmarks.tables import about, about_line, dim, table
from sqs_codec._codec.verify import Verdict
from sqs_codec.cli.options import number
from sqs_codec.system.engine import EngineInfo
from sqs_codec.system.serve import connect
from sqs_codec.system.session import (
    EdgeSession,
    Job,
    Link,
    LocalLink,
    Sampling,
    Setting,
)

if TYPE_CHECKING:
    from sqs_codec.system.engine import Engine

TURN = 50
"""Rounds of a turn, all of one session; one more begins it and doesn't count."""

PROMPT = 200
MAX_TEXT = 4096
PATIENCE = 20.0

QUICK = {"rounds": 2, "replicas": 0}


class Toy:
    """An `Engine` that takes no time and accepts everything."""

    async def open(self) -> EngineInfo:
        """Say what it is."""
        return EngineInfo("a toy", VOCAB_SIZE, MAX_TEXT)

    async def verify(self, job: Job) -> Verdict | None:
        """Accept everything."""
        return accept(job)

    def drop(self, session: bytes) -> None:
        """Forget nothing."""

    def health(self) -> str | None:
        """Say that all is well."""

    async def close(self) -> None:
        """Do nothing."""


class ToyVerifier:
    """The same for a `LocalLink`."""

    vocab_size, max_text = VOCAB_SIZE, MAX_TEXT

    def verify(self, jobs: list[Job]) -> list[Verdict | None]:
        """Accept everything."""
        return [*map(accept, jobs)]

    def forget(self, session: bytes) -> None:
        """Forget nothing."""


def accept(job: Job) -> Verdict | None:
    """Return the verdict that accepts everything."""
    return Verdict(job.wanted - 1, 0) if job.wanted else None


def make_toy(config: object = None) -> Toy:
    """Make a toy, whatever engine is asked for."""
    return Toy()


@lru_cache(maxsize=1)
def _rows() -> list[NDArray[np.float32]]:
    draft = shipped().sessions[0].draft
    return [draft[i] for i in range(min(len(draft), 40))]


def write(link: Link, seed: int) -> list[float]:
    """Write a text, and return the seconds of its rounds."""
    rows, times = _rows(), []
    session = EdgeSession(
        [Setting(sqs.Codec(VOCAB_SIZE, RESOLUTION), sqs.TopK(K))],
        range(PROMPT),
        rng=np.random.default_rng(seed),
        sampling=Sampling(TEMPERATURE),
        max_message=link.max_message,
    )
    exchange(link, session)
    for number_ in range(TURN + 1):
        for i in range(ROUND):
            session.push(rows[(number_ + i) % len(rows)])
        began = time.perf_counter()
        session.flush()
        exchange(link, session)
        times.append(time.perf_counter() - began)
    session.end()
    for message in session.data_to_send():
        link.send(message)
    link.close()
    return times[1:]


def exchange(link: Link, session: EdgeSession) -> None:
    """Carry messages until no answer is due."""
    while True:
        for message in session.data_to_send():
            link.send(message)
        if not session.waiting:
            return
        answer = link.receive(PATIENCE)
        if answer is None:
            raise RuntimeError(f"no answer in {PATIENCE:g} s")
        session.receive(answer)
        if session.refused is not None:
            raise RuntimeError(session.refused)


def write_alone(seed: int) -> list[float]:
    """Write a text with both ends in this process."""
    return write(LocalLink(ToyVerifier()), seed)


def write_over(transport: str, port: int, seed: int) -> list[float]:
    """Write a text over a socket."""
    link = connect(f"{HOST}:{port}", transport=transport, insecure=True)
    return write(link, seed)


@dataclass
class Way:
    """A way to a verdict."""

    name: str
    than: str | None
    """The way that it is compared with."""
    turn: Callable[[int], Awaitable[list[float]]]
    """Takes a seed and returns the seconds of some rounds."""
    times: list[float] = field(default_factory=list)

    def milliseconds(self, percent: float) -> float:
        """Return a percentile."""
        return 1000 * float(np.percentile(self.times, percent))


ENDS, GRPC = "edge and session alone", "gateway, gRPC"
DATAGRAMS, RAY = "gateway, DTLS", "gateway, gRPC, Ray"


async def run(rounds: int, replicas: int) -> list[Way]:
    """Take turns at all ways until each has so many rounds."""
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(1, get_context("spawn")))

        def edge(function: Callable[..., list[float]], *given: object) -> Callable:
            return lambda seed: loop.run_in_executor(pool, function, *given, seed)

        both = serving(Toy(), "grpc", "datagram")
        grpc, datagrams = await stack.enter_async_context(both)
        ways = [
            Way(ENDS, None, edge(write_alone)),
            Way(GRPC, ENDS, edge(write_over, "grpc", grpc)),
            Way(DATAGRAMS, ENDS, edge(write_over, "datagram", datagrams)),
        ]
        if replicas:
            engine = ray_engine(replicas)
            (grpc,) = await stack.enter_async_context(serving(engine, "grpc"))
            ways.append(Way(RAY, GRPC, edge(write_over, "grpc", grpc)))
        for way in ways:
            await way.turn(0)  # off the clock
        rng = np.random.default_rng(0)
        for turn in tqdm(range(-(-rounds // TURN)), unit=" turns"):
            for at in rng.permutation(len(ways)):
                ways[at].times += await ways[at].turn(turn)
    return ways


def ray_engine(replicas: int) -> Engine:
    """Return an engine of toys on Ray."""
    from sqs_codec.system.engine import EngineConfig
    from sqs_codec.system.ray import RayEngine, _engine

    class Toys(RayEngine):
        async def open(self) -> EngineInfo:
            with patch.object(_engine, "make_engine", make_toy):
                return await super().open()

    return Toys(EngineConfig(), replicas=replicas)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what this measurement can be told."""
    add = parser.add_argument
    add("--rounds", **number(int, 1), default=1000, help="of each way, at least")
    add("--replicas", **number(int, 0), default=2, help="on Ray; 0: without")


def main(args: argparse.Namespace) -> int:
    """Run it and print what came of it."""
    packages = ["grpcio"]
    has_ray = importlib.util.find_spec("ray") is not None
    replicas = args.replicas if has_ray else 0
    if replicas:
        packages.append("ray")
    ways = asyncio.run(run(args.rounds, replicas))
    console = Console()
    console.print(about_line(about(*packages)))
    if not has_ray:
        console.print("Ray isn't installed, so its rows are missing.\n")
    report(console, ways)
    return 0


def report(console: Console, ways: list[Way]) -> None:
    """Print what was measured."""
    made = table("Milliseconds a round", "", "median", "90 %", "more", "than")
    for way in ways:
        base = next((w for w in ways if w.name == way.than), None)
        made.add_row(
            way.name,
            f"{way.milliseconds(50):.3f}",
            f"{way.milliseconds(90):.3f}",
            f"{way.milliseconds(50) - base.milliseconds(50):.3f}" if base else "",
            base.name if base else "",
        )
    console.print(made, dim(f"{len(ways[0].times)} rounds of each"))
