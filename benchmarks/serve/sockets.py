"""Measure a server with many edges over real sockets: tokens a second, errors, memory.

    python -m benchmarks.serve.sockets --seconds 60

One process serves SmolLM2 as `sqs serve` does; another one is all the edges, a thread
each. These draft what followed the last token before, which costs them nothing and is
seldom right, so the target model has all the work. docs/verifier.md says what the table
means.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

# Read by libraries as they load.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

import sqs_codec as sqs
from benchmarks.serve.measure import resident
from benchmarks.tables import about, about_line, table
from sqs_codec._options import DROP_LAYERS, number
from sqs_codec.demo.run import own_prompts
from sqs_codec.hf import Cloud
from sqs_codec.hf._models import Pair, smollm2_pair
from sqs_codec.serve import (
    BatchEngine,
    Service,
    connect,
    start_datagrams,
    start_grpc,
)
from sqs_codec.session import EdgeSession, FixedPlan, Sampling, Setting, generate

WARM = 5.0
"""Seconds at the start that don't count: connections are made and prompts read."""

ROUND = 4
MAX_TOKENS = 24
"""Of a text: few, so that texts end and begin while memory is watched."""
PLENTY = 1 << 40


@dataclass(frozen=True)
class Found:
    """What the edges saw, and what the server took."""

    name: str
    rate: float
    errors: list[str]
    growth: float


class Lookup:
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


class Edges:
    """Edges in threads, all of which write texts until the time is up."""

    def __init__(self, port: int, transport: str, tokenizer: bytes) -> None:
        self._port = port
        self._transport = transport
        self._tokenizer = tokenizer
        self._times: list[tuple[float, int]] = []
        self._errors: list[str] = []

    def run(
        self, prompts: list[list[int]], sessions: int, seconds: float
    ) -> tuple[float, list[str]]:
        """Return tokens a second, of all edges together, and errors."""
        began = time.monotonic()
        self._end = began + WARM + seconds
        threads = [
            threading.Thread(target=self._write, args=(i, prompts[i % len(prompts)]))
            for i in range(sessions)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        within = [n for at, n in self._times if began + WARM <= at < self._end]
        return sum(within) / seconds, self._errors

    def _write(self, seed: int, prompt: list[int]) -> None:
        prior = sqs.Prior.builtin("smollm2")
        codec = sqs.Codec(prior.vocab_size, prior=prior)
        rng = np.random.default_rng(seed)
        try:
            while time.monotonic() < self._end:
                self._write_text(codec, rng, prompt)
        except Exception as error:
            self._errors.append(f"{type(error).__name__}: {error}")

    def _write_text(
        self, codec: sqs.Codec, rng: np.random.Generator, prompt: list[int]
    ) -> None:
        session = EdgeSession(
            [Setting(codec, sqs.TopK(64))],
            prompt,
            rng=rng,
            sampling=Sampling(0.7),
            tokenizer=self._tokenizer,
            max_message=1171,
        )
        steps = generate(
            session,
            Lookup(codec.vocab_size),
            lambda: connect(
                f"127.0.0.1:{self._port}", transport=self._transport, insecure=True
            ),
            FixedPlan(ROUND),
            max_tokens=MAX_TOKENS,
            patience=300.0,
        )
        for step in steps:
            self._times.append((time.monotonic(), len(step.tokens)))
            if time.monotonic() >= self._end:
                steps.close()


def run_edges(
    port: int,
    transport: str,
    tokenizer: bytes,
    prompts: list[list[int]],
    sessions: int,
    seconds: float,
) -> tuple[float, list[str]]:
    """Run edges in this process."""
    return Edges(port, transport, tokenizer).run(prompts, sessions, seconds)


async def serve(
    pair: Pair, name: str, sessions: int, max_memory: int, args: argparse.Namespace
) -> Found:
    """Serve so many edges and return what came of it."""
    cloud = Cloud(pair.target, tokenizer=pair.tokenizer, max_memory=max_memory)
    engine = BatchEngine(cloud, tokenizer=cloud.fingerprint)
    service = Service(engine, await engine.open(), tokens=None, max_sessions=128)
    await service.start()
    start = {"grpc": start_grpc, "datagram": start_datagrams}[args.transport]
    server = await start(service, "127.0.0.1", 0, cert=None, key=None, insecure=True)
    prompts = [pair.encode(prompt) for prompt in own_prompts()]
    loop = asyncio.get_running_loop()
    sizes: list[int] = []
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        given = (server.port, args.transport, cloud.fingerprint, prompts)
        edges = loop.run_in_executor(pool, run_edges, *given, sessions, args.seconds)
        while not edges.done():
            await asyncio.sleep(1.0)
            sizes.append(resident())
        rate, errors = await edges
    await service.stop(1.0)
    await server.stop(1.0)
    await engine.close()
    # The first half is the allocator's, until it has held all sizes at once.
    first, second = np.array_split(sizes[len(sizes) // 2 :], 2)
    return Found(name, rate, errors, float(np.median(second) - np.median(first)))


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serve.sockets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--sessions", type=number(int, 1), default=64)
    add("--seconds", type=number(float, 1), default=60.0, help="of each case")
    add("--transport", choices=["grpc", "datagram"], default="grpc")
    add("--threads", type=number(int, 1), default=2)
    args = parser.parse_args(argv)
    began = time.perf_counter()
    torch.set_num_threads(args.threads)
    pair = smollm2_pair(DROP_LAYERS)
    longest = max(len(pair.encode(prompt)) for prompt in own_prompts()) + MAX_TOKENS
    token = Cloud(pair.target)._model.layout.token_bytes
    n = args.sessions
    found = [
        asyncio.run(serve(pair, *case, args))
        for case in (
            ("1 session", 1, PLENTY),
            (f"{n} sessions", n, PLENTY),
            (f"{n}, half the memory", n, n * longest * token // 2),
        )
    ]
    measured = about("torch", "transformers")
    measured |= {"seconds": time.perf_counter() - began}
    console = Console()
    console.print(about_line(measured) + f"{args.transport}, {args.threads} threads\n")
    made = table(
        f"Texts of {MAX_TOKENS} tokens",
        "",
        "tokens/s",
        "times\none",
        "errors",
        "growth\nMB",
    )
    for case in found:
        made.add_row(
            case.name,
            f"{case.rate:.1f}",
            f"{case.rate / found[0].rate:.2f}",
            str(len(case.errors)),
            f"{case.growth / 1e6:.1f}",
        )
    console.print(made)
    for error in sorted({error for case in found for error in case.errors}):
        console.print(error, markup=False)
    return int(any(case.errors for case in found))


if __name__ == "__main__":
    sys.exit(main())
