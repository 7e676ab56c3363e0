"""Measure what a session takes of a server's memory, besides keys and values.

Edges in a process of their own open sessions with a text and stay; what the server's
process has grown by is divided by them. The engine is a toy. Everything is encrypted.
"""

import argparse
import asyncio
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console

import sqs_codec as sqs
from benchmarks.data.drafts import VOCAB_SIZE
from benchmarks.engines.overhead import MAX_TEXT, Toy, exchange
from benchmarks.harness.serving import HOST, serving
from benchmarks.tables import about, about_line, table
from benchmarks.wire.certificates import issue
from sqs_codec.cli.options import number
from sqs_codec.system.serve import connect
from sqs_codec.system.session import EdgeSession, Link, Sampling, Setting

QUICK = {"sessions": 4}
FIRST = 8  # sessions that are there before: what a first one loads isn't its own

held: list[Link] = []


def stay(port: int, transport: str, cert: Path, length: int, sessions: int) -> None:
    """Open sessions with a text of some length."""
    for i in range(sessions):
        # Of another timeout, or gRPC would share a connection.
        link = connect(
            f"localhost:{port}", transport=transport, cert=cert, timeout=20 + len(held)
        )
        session = EdgeSession(
            [Setting(sqs.Codec(VOCAB_SIZE), sqs.TopK(64))],
            [i, *range(length - 1)],
            rng=np.random.default_rng(i),
            sampling=Sampling(),
            max_message=link.max_message,
        )
        exchange(link, session)
        session.generate(1)
        exchange(link, session)
        held.append(link)


async def measure(transport: str, length: int, sessions: int) -> float:
    """Return kB that the server takes for a session."""
    loop, process = asyncio.get_running_loop(), psutil.Process()
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, get_context("spawn")) as pool,
    ):
        issued = issue(Path(folder), "localhost", HOST)
        async with serving(Toy(), transport, issued=issued) as (port,):
            given = (port, transport, issued.cert, length)
            await loop.run_in_executor(pool, stay, *given, FIRST)
            before = process.memory_info().rss
            await loop.run_in_executor(pool, stay, *given, sessions)
            return (process.memory_info().rss - before) / sessions / 1000


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what this measurement can be told."""
    of = "of each kind, at most 120"
    parser.add_argument("--sessions", **number(int, 1, 120), default=100, help=of)


def main(args: argparse.Namespace) -> int:
    """Run it and print what came of it."""
    lengths = (100, MAX_TEXT - 96)
    made = table("kB a session", "", *(f"{length} tokens" for length in lengths))
    for transport in ("grpc", "datagram"):
        taken = [
            asyncio.run(measure(transport, length, args.sessions)) for length in lengths
        ]
        made.add_row(transport, *(f"{each:.0f}" for each in taken))
    Console().print(about_line(about("grpcio", "pyOpenSSL")), made)
    return 0
