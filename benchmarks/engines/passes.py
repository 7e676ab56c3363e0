"""Measure a pass of a GGUF file's engine beside llama.cpp's own time for its rows.

A pass verifies three tokens of each of 16 sessions, in rounds or as hints, after texts
that are cached: 64 rows. In turns with it, ``llama_decode`` is called with the batch
that the pass had, and the logits are fetched. Where other programs run meanwhile, the
ratio of the processor's time says more than that of the clock's.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from dataclasses import replace

import llama_cpp as llama
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import sqs_codec as sqs
from benchmarks.gguf_files import gguf_file
from benchmarks.harness import RESOLUTION, TEMPERATURE, K
from benchmarks.tables import about, about_line, dim, table
from sqs_codec.cli.options import number
from sqs_codec.system.engine import BatchEngine
from sqs_codec.system.llama_cpp import Cloud, Options
from sqs_codec.system.session import Job, Sampling

SESSIONS, LENGTH = 16, 3
"""How many, and tokens that are judged of each."""

QUICK = {"texts": [8], "turns": 1}

Turns = dict[str, list[NDArray[np.float64]]]
"""What turns took, [pass and llama.cpp, clock and processor], by what was judged."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what this measurement can be told."""
    add = parser.add_argument
    add("--file", help="a GGUF file (default: SmolLM2 in Q8_0)")
    add("--texts", **number(int, 1), nargs="+", default=[64, 1000], help="their tokens")
    add("--turns", **number(int, 1), default=15)
    add("--threads", **number(int, 1), default=1)


def main(args: argparse.Namespace) -> int:
    """Run it and print what came of it."""
    file = args.file or gguf_file("smollm2", "Q8_0")
    size = SESSIONS * (max(args.texts) + LENGTH)
    options = Options(threads=args.threads, parallel=SESSIONS, ctx_size=2 * size)
    cloud = Cloud(file, options=options)
    made = table(
        f"A pass of {SESSIONS * (LENGTH + 1)} rows, in ms",
        *("", "engine", "llama_decode", "ratio", "of CPU time"),
    )
    for length in args.texts:
        for name, turns in asyncio.run(timed(cloud, length, args.turns)).items():
            (ours, our_work), (theirs, their_work) = np.median(turns, axis=0)
            seconds = (f"{1e3 * each:.0f}" for each in (ours, theirs))
            ratios = (f"{each:.3f}" for each in (ours / theirs, our_work / their_work))
            made.add_row(f"{name} after {length} tokens", *seconds, *ratios)
    ran = f"{file}, threads: {args.threads}, medians of {args.turns} turns"
    Console().print(made, dim(about_line(about("llama-cpp-python")) + ran))
    return 0


async def timed(cloud: Cloud, length: int, turns: int) -> Turns:
    """Read texts and verify after them, in turns with llama.cpp alone."""
    rng, context = np.random.default_rng(0), cloud._context
    ids = rng.integers(cloud.vocab_size, size=(SESSIONS, length)).tolist()
    given = None, np.empty(0), Sampling(TEMPERATURE)
    texts = [Job(bytes([i]) * 16, text, *given) for i, text in enumerate(ids)]
    found: Turns = {"rounds": [], "hints": []}
    engine = BatchEngine(cloud)
    await engine.open()
    await asyncio.gather(*map(engine.verify, texts))
    for _, (name, took) in itertools.product(range(turns), found.items()):
        jobs = [judged(text, name, rng, cloud.vocab_size) for text in texts]
        began = clocks()
        await asyncio.gather(*map(engine.verify, jobs))
        ours = clocks() - began
        for place in range(SESSIONS):
            context.cut(place, length - 1)
        began = clocks()
        llama.llama_decode(context._pointer, context._batch)
        llama.llama_get_logits(context._pointer)
        took.append(np.array([ours, clocks() - began]))
    await engine.close()
    return found


def judged(text: Job, name: str, rng: np.random.Generator, vocab_size: int) -> Job:
    """Return the job after a text, with a round or with hints."""
    drawn = rng.choice(vocab_size, (LENGTH, K), replace=False)
    tokens = drawn[:, 0].tolist()
    if name == "hints":
        return replace(text, hints=tokens, key=bytes(16))
    counts = [1] * (K - 1) + [RESOLUTION - K + 1]
    kept = [
        sqs.SparseDistribution(sorted(x), counts, vocab_size) for x in drawn.tolist()
    ]
    return replace(text, round_=sqs.Round(kept, tokens), draws=rng.random(LENGTH + 1))


def clocks() -> NDArray[np.float64]:
    """Return the time, and that of the processor for this process."""
    return np.array([time.perf_counter(), time.process_time()])
