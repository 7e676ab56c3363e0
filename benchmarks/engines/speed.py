"""Measure rounds and tokens a second of many sessions: engines side by side, in turns.

Sessions of SmolLM2 write answers at temperature 0.7, in rounds of five drafted tokens
(K = 64, l = 100). A few are played with a real draft model first; then each of many
goes through the rounds of one of them, so that nothing but verifying is timed. A
session sends its next round when it has the verdict on the last, which is held to the
one played. "One by one" is transformers as it comes: a session at a time, each with a
`DynamicCache`. Only one engine has work at any time. With --half the most sessions have
half the memory that their keys and values need, too.
"""

import argparse
import asyncio
import statistics
from collections.abc import Sequence

import torch
from rich.console import Console

from benchmarks.harness import ROUND
from benchmarks.harness.make import PLENTY, maker, packages
from benchmarks.harness.measure import Case, OneByOne, needed, run
from benchmarks.harness.sessions import play, prompts_of
from benchmarks.pair import smollm2_pair
from benchmarks.tables import about, about_line, dim, table
from sqs_codec.cli.options import DROP_LAYERS, number
from sqs_codec.system.engine import Engine
from sqs_codec.system.hf import Cloud

WORDS = {"transformers": "ragged batch", "vllm": "vLLM", "one": "one by one"}


QUICK = {"engines": ["transformers"], "sessions": [2], "half": True, "seconds": 0.0}
QUICK |= {"turns": 2, "rounds": 1}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what this measurement can be told."""
    add = parser.add_argument
    add("--engines", nargs="+", default=["transformers", "vllm"])
    add("--sessions", **number(int, 1, 255), nargs="+", default=[1, 8, 32])
    add("--half", action="store_true", help="the most with half the memory, too")
    add("--seconds", **number(float, 0), default=5.0, help="of a turn")
    add("--turns", **number(int, 1), default=7, help="of each case")
    add("--rounds", **number(int, 1), default=8, help="played of each prompt")
    add("--context", **number(int, 0), default=0, help="tokens before the prompt")
    add("--threads", **number(int, 1), default=2)
    add("--seed", **number(int, 0), default=0)


def main(args: argparse.Namespace) -> int:
    """Run it and print what came of it."""
    torch.set_num_threads(args.threads)
    pair = smollm2_pair(DROP_LAYERS)
    cloud = Cloud(pair.target)
    prompts = prompts_of(pair, args.context)
    played = play(cloud, pair, prompts, args.rounds, [args.seed])
    token = cloud._model.layout.token_bytes

    def make(name: str, memory: int) -> Engine:
        return maker(name)(target=None, max_memory=memory, batch_tokens=None)

    room = needed(played, sum(args.sessions)) * token
    engines: dict[str, Engine] = {"one": OneByOne(pair)}
    for name in args.engines:
        engines[name] = make(name, max(PLENTY, 2 * room >> 20))
    cases = [
        Case(WORDS.get(name, name), engine, played, sessions)
        for sessions in args.sessions
        for name, engine in engines.items()
    ]
    if args.half:
        most = max(args.sessions)
        half = -(-needed(played, most) * token >> 21)
        cases += [
            Case(f"{WORDS.get(name, name)}, half", make(name, half), played, most)
            for name in args.engines
        ]
    asyncio.run(run(cases, args.turns, args.seconds))
    console = Console()
    console.print(
        f"{about_line(about(*packages()))}{args.threads} threads, {args.turns} turns "
        f"of {args.seconds:g} s, {args.context} tokens of context, seed {args.seed}\n"
    )
    report(console, cases, token)
    return int(any(case.wrong for case in cases))


def report(console: Console, cases: Sequence[Case], token_bytes: int) -> None:
    """Print what was measured."""
    made = table(
        f"Rounds of {ROUND} drafted tokens",
        *("", "sess-\nions", "rounds\n/s", "+-", "times\nfirst", "tokens\n/s"),
        *("wait\nms", "K/V\nMB", "grows\nMB", "wrong"),
    )
    for case in cases:
        rate = statistics.median(case.rates)
        first = next(c for c in cases if c.sessions == case.sessions)
        made.add_row(
            case.name,
            str(case.sessions),
            f"{rate:.1f}",
            f"{(max(case.rates) - min(case.rates)) / 2 / rate:.0%}",
            f"{rate / statistics.median(first.rates):.2f}",
            f"{case.tokens:.1f}",
            f"{1000 * statistics.median(case.waits):.0f}",
            f"{needed(case.played, case.sessions) * token_bytes / 1e6:.0f}",
            f"{case.growth / 1e6:.1f}",
            str(case.wrong),
        )
    console.print(
        made,
        dim(
            "medians of turns, +- half their range; the wait for a round, of all "
            "rounds; K/V: what the texts' keys and values take; grows: this process, "
            "from the first half of a case's turns to the second; wrong: verdicts not "
            "as played"
        ),
    )
