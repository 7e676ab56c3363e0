"""Measure how many tokens a second one verifier gives many sessions.

    python -m benchmarks.serve --seconds 20

Sessions of SmolLM2 write answers at temperature 0.7, in rounds of five drafted tokens:
1, 8, 16 and 64 at once, and 64 with half the memory that their keys and values need.
All of them wait for each other's rounds, as on a busy box. docs/verifier.md says what
the table means.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

# Read by libraries as they load.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.serve.measure import Case, needed, run
from benchmarks.serve.replay import ROUND, Replay, play
from benchmarks.tables import about, about_line, dim, table
from sqs_codec.cli.demo.run import own_prompts
from sqs_codec.cli.options import DROP_LAYERS, number
from sqs_codec.hf import Cloud
from sqs_codec.hf._models import smollm2_pair

PLENTY = 1 << 40

BAR, BAR_SESSIONS = 2.5, 64
"""How many times as many tokens as one session so many are to get."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--sessions", type=number(int, 1), nargs="+", default=[1, 8, 16, 64])
    add("--seconds", type=number(float, 0), default=20.0, help="of each case")
    add("--rounds", type=number(int, 1), default=8, help="played of each prompt")
    add("--context", type=number(int, 0), default=0, help="tokens before the prompt")
    add("--threads", type=number(int, 1), default=2)
    add("--seed", type=number(int, 0), default=0)
    args = parser.parse_args(argv)
    began = time.perf_counter()
    torch.set_num_threads(args.threads)
    cases = prepare(args)
    run(cases, args.seconds)
    measured = about("torch", "transformers")
    measured |= {"seconds": time.perf_counter() - began}
    console = Console()
    console.print(about_line(measured) + f"{args.threads} threads, seed {args.seed}\n")
    console.print(report(cases))
    most = max(cases, key=lambda case: (case.sessions, case.rate))
    ratio = f"{most.name} / {cases[0].name}: {most.rate / cases[0].rate:.2f}"
    if most.sessions == BAR_SESSIONS and cases[0].sessions == 1:
        held = "passes" if most.rate >= BAR * cases[0].rate else "FAILS"
        ratio += f" (>= {BAR}: {held})"
    console.print(dim(ratio))
    return 0


def prepare(args: argparse.Namespace) -> list[Case]:
    """Play the sessions and set up what is measured."""
    pair = smollm2_pair(DROP_LAYERS)
    before = pair.encode(" ".join(own_prompts()))
    before = (before * (args.context // len(before) + 1))[: args.context]
    prompts = [[*before, *pair.encode(prompt)] for prompt in own_prompts()[:8]]
    cloud = Cloud(pair.target)
    played = play(pair, cloud, prompts, args.rounds, args.seed)

    def case(name: str, sessions: int, max_memory: int) -> Case:
        verifier = Cloud(pair.target, max_memory=max_memory)
        return Case(name, sessions, verifier, Replay(played, sessions))

    most = max(args.sessions)
    half = needed(played, most) * token_bytes(cloud) // 2
    return [
        *(case(f"{n} session{'s' * (n > 1)}", n, PLENTY) for n in args.sessions),
        case(f"{most}, half the memory", most, half),
    ]


def token_bytes(cloud: Cloud) -> int:
    """Return what a token takes of a cloud's memory."""
    return cloud._model.layout.token_bytes


def report(cases: list[Case]) -> Table:
    """Render what was measured."""
    made = table(
        f"Rounds of {ROUND} drafted tokens",
        "",
        "tokens/s",
        "times\none",
        "wait\nms",
        "K/V\nMB",
        "growth\nMB",
        "other\nverdicts",
    )
    for case in cases:
        made.add_row(
            case.name,
            f"{case.rate:.1f}",
            f"{case.rate / cases[0].rate:.2f}",
            f"{1000 * case.wait:.0f}",
            f"{case.cloud.memory / 1e6:.0f}",
            f"{case.growth / 1e6:.1f}",
            str(case.replay.wrong),
        )
    return made


if __name__ == "__main__":
    sys.exit(main())
