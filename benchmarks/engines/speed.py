"""Measure rounds a second with 1, 8 and 32 sessions: engines side by side, in turns.

Sessions of SmolLM2 write answers at temperature 0.7, in rounds of five drafted tokens
(K = 64, l = 100). A few are played with a real draft model first; then each of many
goes through the rounds of one of them, so that nothing but verifying is timed. A
session sends its next round when it has the verdict on the last, which is held to the
one played. "One by one" is transformers as it comes: a session at a time, each with a
`DynamicCache`. Only one engine has work at any time.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from rich.console import Console
from tqdm import tqdm

from benchmarks.engines.make import PLENTY, maker, packages
from benchmarks.serve.measure import needed
from benchmarks.serve.replay import ROUND, Played, play
from benchmarks.tables import about, about_line, dim, table
from sqs_codec._codec.verify import Verdict, Wanted
from sqs_codec.cli.demo.run import own_prompts
from sqs_codec.cli.options import DROP_LAYERS, number
from sqs_codec.engine import Engine, EngineInfo
from sqs_codec.hf import Cloud
from sqs_codec.hf._models import CachedModel, Pair, smollm2_pair
from sqs_codec.session import Job
from sqs_codec.torch import verify_batch

WORDS = {"transformers": "ragged batch", "vllm": "vLLM", "one": "one by one"}


class OneByOne:
    """An `Engine` that reads one text at a time, as transformers' generation does."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._caches: dict[bytes, CachedModel] = {}
        self._turn = asyncio.Lock()

    async def open(self) -> EngineInfo:
        """Say what it is."""
        return EngineInfo("transformers", self._pair.vocab_size, 1 << 30)

    async def verify(self, job: Job) -> Verdict | Wanted | None:
        """Wait for those that came before, then verify."""
        async with self._turn:
            return await asyncio.to_thread(self._verify, job)

    def _verify(self, job: Job) -> Verdict | Wanted:
        cache = self._caches.setdefault(
            job.session, CachedModel(self._pair.target, self._pair.vocab_size)
        )
        drafted = [] if job.round_ is None else list(job.round_.tokens)
        rows = torch.from_numpy(cache.logits([*job.text, *drafted], len(drafted) + 1))
        [verdict] = verify_batch(
            [job.round_], rows, job.draws, temperature=job.sampling.temperature
        )
        return verdict

    def drop(self, session: bytes) -> None:
        """Forget a session."""
        self._caches.pop(session, None)

    def health(self) -> str | None:
        """Say that all is well."""

    async def close(self) -> None:
        """Forget all."""
        self._caches.clear()


@dataclass
class Case:
    """An engine and its sessions.

    Attributes
    ----------
    name : str
    sessions : int
    rates : list of float
        Rounds a second, of each turn.
    waits : list of float
        Seconds of each round.
    wrong : int
        Verdicts other than those that were played.
    """

    name: str
    engine: Engine
    played: Sequence[Sequence[Played]]
    sessions: int
    rates: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    wrong: int = 0

    def __post_init__(self) -> None:
        self._places = [7 * i for i in range(self.sessions)]

    async def fill(self) -> None:
        """Have the longest text of every session read, and let the engine warm up."""
        await asyncio.gather(
            *(self._do(i, self._rounds(i)[-1]) for i in range(self.sessions))
        )
        self.waits.clear()

    async def turn(self, seconds: float) -> None:
        """Let all sessions go on for some time; each does one round at least."""
        began, before = time.perf_counter(), len(self.waits)

        async def session(i: int) -> None:
            rounds = self._rounds(i)
            while True:
                self._places[i] += 1
                await self._do(i, rounds[self._places[i] % len(rounds)])
                if time.perf_counter() - began >= seconds:
                    return

        await asyncio.gather(*map(session, range(self.sessions)))
        self.rates.append((len(self.waits) - before) / (time.perf_counter() - began))

    def _rounds(self, i: int) -> Sequence[Played]:
        return self.played[i % len(self.played)]

    def _name(self, i: int) -> bytes:
        return bytes([self.sessions]) + i.to_bytes(15, "big")

    async def _do(self, i: int, turn: Played) -> None:
        began = time.perf_counter()
        verdict = await self.engine.verify(replace(turn.job, session=self._name(i)))
        self.waits.append(time.perf_counter() - began)
        self.wrong += verdict != turn.verdict


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what this measurement can be told."""
    add = parser.add_argument
    add("--engines", nargs="+", default=["transformers", "vllm"])
    add("--sessions", type=number(int, 1, 255), nargs="+", default=[1, 8, 32])
    add("--seconds", type=number(float, 0), default=5.0, help="of a turn")
    add("--turns", type=number(int, 1), default=7, help="of each case")
    add("--rounds", type=number(int, 1), default=8, help="played of each prompt")
    add("--context", type=number(int, 0), default=0, help="tokens before the prompt")
    add("--threads", type=number(int, 1), default=2)
    add("--seed", type=number(int, 0), default=0)


def main(args: argparse.Namespace) -> int:
    """Run it and print what came of it."""
    began = time.perf_counter()
    torch.set_num_threads(args.threads)
    pair = smollm2_pair(DROP_LAYERS)
    before = pair.encode(" ".join(own_prompts()))
    before = (before * (args.context // len(before) + 1))[: args.context]
    prompts = [[*before, *pair.encode(prompt)] for prompt in own_prompts()[:8]]
    cloud = Cloud(pair.target)
    played = play(pair, cloud, prompts, args.rounds, args.seed)
    room = needed(played, sum(args.sessions)) * cloud._model.layout.token_bytes
    memory = max(PLENTY, 2 * room >> 20)
    engines: dict[str, Engine] = {"one": OneByOne(pair)}
    for name in args.engines:
        engines[name] = maker(name)(target=None, max_memory=memory, batch_tokens=None)
    cases = [
        Case(WORDS.get(name, name), engine, played, sessions)
        for sessions in args.sessions
        for name, engine in engines.items()
    ]
    asyncio.run(run([*engines.values()], cases, args.turns, args.seconds))
    measured = about(*packages())
    measured |= {"seconds": time.perf_counter() - began}
    console = Console()
    console.print(
        about_line(measured) + f"{args.threads} threads, {args.turns} turns of "
        f"{args.seconds:g} s, {args.context} tokens of context, seed {args.seed}\n"
    )
    report(console, cases)
    return int(any(case.wrong for case in cases))


async def run(
    engines: Sequence[Engine], cases: Sequence[Case], turns: int, seconds: float
) -> None:
    """Give all cases their turns, each time in another order."""
    opened: list[Engine] = []
    rng = np.random.default_rng(0)
    try:
        for engine in engines:
            opened.append(engine)
            await engine.open()
        for case in cases:  # off the clock
            await case.fill()
        with tqdm(total=turns * len(cases), unit=" turns") as bar:
            for _ in range(turns):
                for at in rng.permutation(len(cases)):
                    await cases[at].turn(seconds)
                    bar.update()
    finally:
        for engine in opened:
            await engine.close()


def report(console: Console, cases: Sequence[Case]) -> None:
    """Print what was measured."""
    made = table(
        f"Rounds of {ROUND} drafted tokens",
        "",
        "sessions",
        "rounds/s",
        "from",
        "to",
        "times\none by one",
        "wait\nms",
        "other\nverdicts",
    )
    for case in cases:
        base = next(c for c in cases if c.sessions == case.sessions)
        rate = statistics.median(case.rates)
        made.add_row(
            case.name,
            str(case.sessions),
            f"{rate:.1f}",
            f"{min(case.rates):.1f}",
            f"{max(case.rates):.1f}",
            f"{rate / statistics.median(base.rates):.2f}",
            f"{1000 * statistics.median(case.waits):.0f}",
            str(case.wrong),
        )
    console.print(made, dim("medians of turns; the wait for a round, of all rounds"))
