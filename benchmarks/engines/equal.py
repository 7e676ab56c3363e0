"""Compare an engine's verdicts with those of transformers in float32.

Sessions run once with SmolLM2 and the same model without two layers, after prompts in
ten languages, some of them long. Rounds have up to five tokens, with K = 64 and
l = 100; some jobs have four hints. The temperature is 0.7, or 0 in some sessions. Then
the engine does the same jobs with the same random numbers, in five ways. Verdicts may
differ due to rounding: a margin is the distance, in probability, of the random number
from the threshold. With --device cuda the sessions run on the GPU. In bfloat16 a part
of the verdicts always differs.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from tqdm import tqdm

import sqs_codec as sqs
from benchmarks.harness.make import PLENTY, Make, maker, packages
from benchmarks.harness.sessions import TEMPERATURE, Played, Session, play, texts_of
from benchmarks.harness.sessions import drafted as drafted_by
from benchmarks.pair import smollm2_pair
from benchmarks.tables import about, about_line, dim, table
from sqs_codec._codec.verify import Verdict
from sqs_codec.cli.options import DROP_LAYERS, number
from sqs_codec.system._base.kinds import DEVICES, DTYPES
from sqs_codec.system.hf import CachedModel, Cloud
from sqs_codec.system.session import Read, VerifyHints, VerifyRound

if TYPE_CHECKING:
    from benchmarks.pair import Pair
    from sqs_codec.system.engine import Engine
    from sqs_codec.system.session import Job

LEAST_EQUAL = 0.999
"""The required share of rounds with equal verdicts."""

QUICK = {"engine": "transformers", "rounds": 4, "sessions": 2, "long": [40]}

ROUNDS = 25
"""Rounds per session; without a long context, its text grows to about 120 tokens."""

LONG = (700, 1500)
"""Lengths of long contexts in tokens."""

LENGTHS = (5, 5, 3, 5, 1, 5, 4, 5, 0)
"""Drafted tokens of a session's rounds, in turns; 0 stands for hints."""

TEMPERATURES = (*(TEMPERATURE,) * 6, 0.0)
"""Temperatures of sessions in turns: 7, so that they shift in batches of 8 sessions."""

CHUNK = 32
"""The engine's tokens per forward pass for a chunked prefill of every prompt."""

MARGIN = 128
"""Additional tokens in the KV cache, because engines allocate whole blocks."""


@dataclass(frozen=True)
class Mode:
    """A schedule of the jobs."""

    name: str
    at_once: int
    """The number of parallel sessions."""
    times: int = 1
    """The number of times that each job is sent."""
    batch_tokens: int | None = None
    """The engine's limit on tokens per forward pass."""
    halved: bool = False
    """Whether the KV cache holds only half of the sessions' texts."""


def modes(at_once: int) -> list[Mode]:
    """Return the compared schedules."""
    return [
        Mode("one after the other", at_once=1),
        Mode(f"{at_once} sessions at once", at_once),
        Mode("everything sent twice", at_once, times=2),
        Mode("every prompt in chunks", at_once, batch_tokens=CHUNK),
        Mode("half the memory", 2 * at_once, halved=True),
    ]


@dataclass(frozen=True)
class Other:
    """A verdict that differs."""

    session: Session
    turn: Played
    got: Verdict | None


@dataclass
class Found:
    """The result of a mode."""

    mode: Mode
    rounds: int = 0
    seconds: float = 0.0
    others: list[Other] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The share of rounds that are equal."""
        return 1 - len(self.others) / self.rounds


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("--engine", default="vllm", help="vllm, transformers or MODULE:FUNCTION")
    add("--dtype", choices=DTYPES[1:], default="float32", help="dtype of the engine")
    add(
        "--device",
        choices=DEVICES[1:],
        default="cpu",
        help="device of engine and sessions",
    )
    add("--rounds", **number(int, 1), default=1000, help="minimum number")
    add("--sessions", **number(int, 1), default=8, help="number at a time")
    add("--long", type=int, nargs="*", default=LONG, help="lengths of long contexts")
    add("--threads", **number(int, 1), default=2)
    add("--seed", **number(int, 0), default=0)


def main(args: argparse.Namespace) -> int:
    """Run the comparison and print its results."""
    torch.set_num_threads(args.threads)
    make = maker(args.engine)
    given = {"dtype": args.dtype, "device": args.device}
    usual = {"dtype": "float32", "device": "cpu"}
    make = partial(make, **dict(given.items() - usual.items()))
    pair = smollm2_pair(DROP_LAYERS)
    pair.target.to(args.device)  # and the draft, which shares its weights
    sessions = play_all(pair, args)
    token_bytes = Cloud(pair.target)._model.token_bytes
    found = asyncio.run(run(make, sessions, modes(args.sessions), token_bytes))
    console = Console()
    ran = f"{args.engine}, {args.threads} threads, seed {args.seed}\n"
    console.print(about_line(about(*packages())) + ran)
    report(console, found, CachedModel(pair.target, pair.vocab_size))
    return int(any(one.share < LEAST_EQUAL for one in found))


def play_all(pair: Pair, args: argparse.Namespace) -> list[Session]:
    """Play sessions until there are enough rounds."""
    rounds, at_once = args.rounds, args.sessions
    cloud = Cloud(pair.target, vocab_size=pair.vocab_size)
    prompts = texts_of(pair, args.long)
    sessions: list[Session] = []
    each = min(ROUNDS, -(-rounds // at_once))
    with tqdm(desc="playing", total=rounds, unit=" rounds", mininterval=1.0) as bar:
        while bar.n < rounds:
            group = [*itertools.islice(prompts, at_once)]
            seeds = [args.seed, len(sessions)]
            played = play(cloud, pair, group, each, seeds, LENGTHS, TEMPERATURES)
            sessions += played
            bar.update(rounds_of(played))
    return sessions


def rounds_of(sessions: Sequence[Session]) -> int:
    """Return the sessions' number of rounds."""
    return sum(len(session.rounds) for session in sessions)


async def run(
    make: Make, sessions: Sequence[Session], modes: Sequence[Mode], token_bytes: int
) -> list[Found]:
    """Run all jobs in all modes, with a shared engine if possible."""
    half = half_of(sessions, max(mode.at_once for mode in modes), token_bytes)
    memory = {False: PLENTY, True: half}
    found = []
    for (halved, chunk), group in itertools.groupby(
        modes, lambda mode: (mode.halved, mode.batch_tokens)
    ):
        engine = make(target=None, max_memory=memory[halved], batch_tokens=chunk)
        print((await engine.open()).summary)
        try:
            found += [await do(engine, sessions, mode) for mode in group]
        finally:
            await engine.close()
    return found


def half_of(sessions: Sequence[Session], at_once: int, token_bytes: int) -> int:
    """Return MiB for half of the sessions' texts, or at least the longest one."""
    tokens = [session.tokens for session in sessions]
    some = min(at_once, len(tokens))
    room = max(some * sum(tokens) // len(tokens) // 2, max(tokens) + MARGIN)
    return -(-room * token_bytes >> 20)


async def do(engine: Engine, sessions: Sequence[Session], mode: Mode) -> Found:
    """Run all jobs in one mode."""
    found = Found(mode, rounds_of(sessions))
    waiting = deque(sessions)
    began = time.perf_counter()
    with tqdm(
        desc=mode.name, total=found.rounds, unit=" rounds", mininterval=1.0
    ) as bar:

        async def work() -> None:
            while waiting:
                session = waiting.popleft()
                for turn in session.played:
                    got = [await engine.verify(turn.job) for _ in range(mode.times)]
                    found.others += [
                        Other(session, turn, one) for one in got if one != turn.verdict
                    ]
                    bar.update(turn.verdict is not None)
                engine.drop(session.played[0].job.session)

        await asyncio.gather(*(work() for _ in range(mode.at_once)))
    found.seconds = time.perf_counter() - began
    return found


def report(console: Console, found: Sequence[Found], target: CachedModel) -> None:
    """Print the results of all modes, and different verdicts."""
    made = table("The same verdicts", "", "rounds", "equal", "other", "s")
    for one in found:
        counts = str(one.rounds), f"{100 * one.share:.2f} %", str(len(one.others))
        made.add_row(one.mode.name, *counts, f"{one.seconds:.0f}")
    console.print(made)
    held = "passes" if all(one.share >= LEAST_EQUAL for one in found) else "FAILS"
    console.print(dim(f"at least {100 * LEAST_EQUAL:g} % in every mode: {held}\n"))
    list_others(console, found, target)


def list_others(console: Console, found: Sequence[Found], target: CachedModel) -> None:
    """Print different verdicts."""
    others = table("Other verdicts", "", "T", "text", "played", "now", "margin")
    for one in found:
        for other in one.others:
            job, verdict = other.turn.job, other.turn.verdict
            others.add_row(
                one.mode.name,
                f"{other.session.temperature:g}",
                str(len(job.text)),
                words(verdict),
                words(other.got),
                "-"
                if verdict is None or other.got is None
                else f"{margin(target, job, verdict, other.got):.1e}",
            )
    if others.rows:
        console.print(others)


def words(verdict: Verdict | None) -> str:
    """Format a verdict."""
    return "none" if verdict is None else f"{verdict.accepted}, {verdict.token}"


def margin(model: CachedModel, job: Job, one: Verdict, other: Verdict) -> float:
    """Return the change in probability that would turn one verdict into the other.

    All probabilities come from the target's logits for this text only; the job's
    sampling has only a temperature. If the numbers of accepted tokens differ, the
    result is the distance of the random number from the acceptance probability at the
    first difference. If the sampled tokens differ, it is the distance from the other
    token's part of [0, 1). With a key, it is the loss of probability after which the
    winning token would have lost. At temperature 0, it is the difference of the two
    tokens' probabilities at temperature 1.
    """
    drafted = drafted_by(job)
    logits = torch.from_numpy(model.logits([*job.text, *drafted], len(drafted) + 1))
    counts = sorted((one.accepted, other.accepted))
    at = counts[0]
    assert not isinstance(job, Read)
    row, temperature = logits[at].double(), job.sampling.temperature
    if not temperature:
        first, second = row.softmax(-1).topk(2).values.tolist()
        return float(first - second)
    probs: NDArray[np.float64] = (row / temperature).softmax(-1).numpy()
    if isinstance(job, VerifyHints):
        tokens = [
            drafted[at] if at < verdict.accepted else verdict.token
            for verdict in (one, other)
        ]
        return _lead(probs, job, at, tokens)
    assert isinstance(job, VerifyRound)
    qs = job.round.distributions if job.round else ()
    if counts[0] < counts[1]:
        token = drafted[at]
        chance = min(1.0, probs[token] / qs[at].prob(token))
        return abs(float(job.draws[at] - chance))
    number = job.draws[at]
    if at < len(drafted):  # the rejection used one number
        probs = np.maximum(probs - qs[at].to_dense(np.float64), 0)
        number = job.draws[at + 1]
    ends = np.cumsum(probs) / probs.sum()
    return max(_distance(ends, verdict.token, number) for verdict in (one, other))


def _lead(
    probs: NDArray[np.float64], job: VerifyHints, at: int, tokens: Sequence[int]
) -> float:
    """Return how much probability the winner of two tokens could lose and still win."""
    with np.errstate(divide="ignore"):
        guesses = sqs.gumbel_guess(np.log(probs), job.key, len(job.text) + at, 8)
    chances = dict(zip(guesses.tokens, guesses.chances, strict=True))
    loser, winner = sorted(tokens, key=lambda token: chances.get(token, 0.0))
    if winner not in chances:
        return 1.0
    return float(probs[winner] * (1 - chances.get(loser, 0.0) / chances[winner]))


def _distance(ends: NDArray[np.float64], token: int, number: float) -> float:
    """Return the distance of a number from a token's part of [0, 1)."""
    start = ends[token - 1] if token else 0.0
    return float(max(start - number, number - ends[token], 0.0))
