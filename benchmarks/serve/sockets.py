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
import contextlib
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

# Read by libraries as they load.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from rich.console import Console

import sqs_codec as sqs
from benchmarks.serve.edges import MAX_TOKENS, Crowd, Seen, run_edges
from benchmarks.serve.measure import resident
from benchmarks.tables import about, about_line, table
from sqs_codec.cli.demo.run import own_prompts
from sqs_codec.cli.options import DROP_LAYERS, number
from sqs_codec.engine import BatchEngine, Engine
from sqs_codec.hf import Cloud
from sqs_codec.hf._models import Pair, smollm2_pair
from sqs_codec.serve import Service, start_datagrams, start_grpc

PLENTY = 1 << 40


@dataclass(frozen=True)
class Found:
    """What the edges saw, and what the server took."""

    name: str
    rate: float
    errors: list[str]
    growth: float


async def run(crowd: Crowd, engine: Engine, seconds: float, sizes: list[int]) -> Seen:
    """Serve a crowd by an engine, which is closed then; `crowd.port` is yet to come.

    The bytes of this process, once in a second, are added to `sizes`.
    """
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(engine.close)
        service = Service(engine, await engine.open(), tokens=None, max_sessions=128)
        await service.start()
        start = {"grpc": start_grpc, "datagram": start_datagrams}[crowd.transport]
        host = "127.0.0.1"
        server = await start(service, host, 0, cert=None, key=None, insecure=True)
        stack.push_async_callback(server.stop, 1.0)
        stack.push_async_callback(service.stop, 1.0)
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            crowd = replace(crowd, port=server.port)
            edges = loop.run_in_executor(pool, run_edges, crowd, seconds)
            while not edges.done():
                await asyncio.wait([edges], timeout=1.0)
                sizes.append(resident())
            return await edges


def serve(
    pair: Pair, name: str, sessions: int, max_memory: int, args: argparse.Namespace
) -> Found:
    """Serve so many edges and return what came of it."""
    cloud = Cloud(pair.target, tokenizer=pair.tokenizer, max_memory=max_memory)
    prior = sqs.Prior.builtin("smollm2")
    crowd = Crowd(
        port=0,
        transport=args.transport,
        tokenizer=cloud.fingerprint,
        codec=sqs.Codec(prior.vocab_size, prior=prior),
        prompts=[pair.encode(prompt) for prompt in own_prompts()],
        edges=sessions,
    )
    engine = BatchEngine(cloud, tokenizer=cloud.fingerprint)
    sizes: list[int] = []
    seen = asyncio.run(run(crowd, engine, args.seconds, sizes))
    tokens, _ = seen.between(0, args.seconds)
    # The first half is the allocator's, until it has held all sizes at once.
    first, second = np.array_split(sizes[len(sizes) // 2 :], 2)
    growth = float(np.median(second) - np.median(first))
    return Found(name, tokens / args.seconds, seen.errors, growth)


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
        serve(pair, *case, args)
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
