"""Run the race of sqs demo over links of the relay, and over its own thin link.

    python -m benchmarks.demo    # four minutes on two cores
    python -m benchmarks.demo --gguf smollm2 --target-ms 0    # five

A text comes by the cloud alone, in rounds and with hints. The server is a process of
`sqs serve`; with GGUF files each end has one thread. Links and ways take turns, prompt
by prompt.
"""

from __future__ import annotations

import argparse
import itertools
from typing import TYPE_CHECKING

import psutil
import torch
from rich.console import Console

import sqs_codec as sqs
from benchmarks.harness import RESOLUTION, TEMPERATURE, K
from benchmarks.pair import PROMPTS
from benchmarks.relay import HOST, Link, Relay
from benchmarks.tables import about, about_line, command, dim, table
from sqs_codec.cli.demo.race import Race
from sqs_codec.cli.demo.server import Server
from sqs_codec.cli.options import number
from sqs_codec.system.edge import MODES, ShapedLink
from sqs_codec.system.hf import Draft, load_model
from sqs_codec.system.serve import connect
from sqs_codec.system.session import Sampling, Setting

if TYPE_CHECKING:
    from rich.table import Table

    from sqs_codec.system.edge import TextDraft

PAIRS = "Q4_K_M,F16", "Q2_K,F16", "Q4_K_M,Q8_0"

IMITATED = "by ShapedLink"

LINKS = {
    "LAN": Link(1e9, 0.001),
    "1 Mbit/s, 30 ms": Link(1e6, 0.03),
    "100 kbit/s, 100 ms": Link(1e5, 0.1),
    IMITATED: Link(1e5, 0.1),
}

ROOM = 1024
"""Tokens of the longest text."""


def main() -> None:
    """Run the races and print what came of them."""
    parser = command("demo", __doc__, texts=1, max_tokens=6, target_ms=1.0)
    add = parser.add_argument
    said = "GGUF files of a model (default: SmolLM2 by transformers)"
    add("--gguf", choices=("smollm2", "gemma3"), help=said)
    add("--pairs", nargs="+", default=PAIRS, help="types of a draft and its target")
    add("--texts", **number(int, 1, len(PROMPTS)), default=3)
    add("--max-tokens", **number(int, 1), default=48, help="of a text")
    add("--target-ms", **number(float, 0), default=120.0, help="of a pass at least")
    args = parser.parse_args()
    args.before = resident()
    torch.set_num_threads(1)
    console = Console()
    for pair in args.pairs if args.gguf else ["without 2 layers,SmolLM2"]:
        console.print(run(args, *pair.split(",")))
    said = (
        f"{args.texts} texts of {args.max_tokens} tokens, T = {TEMPERATURE}, rounds of "
        f"4 (K = {K}, l = {RESOLUTION}), a pass of {args.target_ms:g} ms or more. Bits "
        "are of a token, both ways. MB are resident: what a draft adds to its process, "
        "and a server in all.\n"
    )
    console.print(dim(said + about_line(about("torch"))))


def run(args: argparse.Namespace, *names: str) -> Table:
    """Write the texts of a pair over each link; return what came of it."""
    draft, options = load(args.gguf, names)
    codec = sqs.Codec(
        draft.vocab_size, RESOLUTION, prior=sqs.Prior.builtin(args.gguf or "smollm2")
    )
    given = (
        draft,
        Setting(codec, sqs.TopK(K)),
        Sampling(TEMPERATURE),
        0,
        args.max_tokens,
    )
    races = {name: Race(*given) for name in LINKS}
    with Server([f"--target-ms={args.target_ms:g}", *options]) as server:
        server.wait()
        port = int(server.address.rpartition(":")[2])
        texts = PROMPTS[: args.texts]
        for text, (name, race), way in itertools.product(texts, races.items(), MODES):
            with Relay(port, shape := LINKS[name]) as relay:
                shaped = name == IMITATED
                there = server.address if shaped else f"{HOST}:{relay.port}"
                link = connect(there, transport="datagram", insecure=True)
                if shaped:
                    link = ShapedLink(link, shape.rate, shape.trip)
                [*race.write(way, draft.encode_prompt(text), link)]
        sizes = resident() - args.before, resident(server._process.pid)
    ends = (f"{name} ({mb:.0f} MB)" for name, mb in zip(names, sizes, strict=True))
    return report(" drafts for ".join(ends), races)


def load(model: str | None, types: tuple[str, ...]) -> tuple[TextDraft, list[str]]:
    """Load a draft; return it, and a server's options for its target."""
    if model is None:
        loaded = load_model(None, drop_layers=2, dtype="auto", drafts=True)
        return Draft(loaded.model, loaded.tokenizer), ["--dtype=float16"]
    from benchmarks.gguf_files import gguf_file
    from sqs_codec.system import llama_cpp

    ours, theirs = (gguf_file(model, kind) for kind in types)
    options = [f"--target={theirs}", "--engine-option=threads=1"]
    draft = llama_cpp.Draft(ours, n_ctx=ROOM, threads=1)
    return draft, [*options, f"--engine-option=ctx-size={ROOM}"]


def report(title: str, races: dict[str, Race]) -> Table:
    """Return a table of races by their links."""
    made = table(
        f"{title}: tokens a second",
        *("", *MODES, "hints\n/alone", "right", "bits,\nrounds", "bits,\nhints"),
        "draft\nms",
    )
    for name, race in races.items():
        ways = [race.figures[way] for way in MODES]
        alone, _, hints = rates = [figures.tokens_per_second for figures in ways]
        bits = (8 * (f.bytes_up + f.bytes_down) / f.tokens for f in ways[1:])
        made.add_row(
            name,
            *(f"{rate:.1f}" for rate in rates),
            f"{hints / alone:.2f}",
            f"{race.figures['rounds'].acceptance_rate:.0%}",
            *(f"{each:.0f}" for each in bits),
            f"{1e3 * race.step_seconds:.0f}",
        )
    return made


def resident(process: int | None = None) -> float:
    """Return MB of memory, of this process if none is given."""
    return float(psutil.Process(process).memory_info().rss) / 1e6


if __name__ == "__main__":
    main()
