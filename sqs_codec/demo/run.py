"""One run of the demo, from its options to the table."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.text import Text

import sqs_codec as sqs
from sqs_codec._make_prior import find_prior
from sqs_codec.demo import report
from sqs_codec.demo.loop import Cloud, Edge, Stats, speculate
from sqs_codec.demo.models import CachedModel, Pair, load_pair


@dataclass(frozen=True)
class Options:
    """What ``sqs demo --help`` describes, one attribute for each option.

    Attributes
    ----------
    prompt : list of str
        None of them: the demo's own.
    """

    prompt: list[str]
    temperature: float
    top_k: int
    alpha: float
    eta: float
    resolution: int
    coding: str
    prior: str | None
    stream: bool
    budget: int | None
    draft_length: int
    max_tokens: int
    seed: int
    drop_layers: int
    draft: str | None
    target: str | None
    packets: Path | None


def run(options: Options, console: Console) -> None:
    """Run both keep rules over the prompts and print what they cost.

    Raises
    ------
    ModelError
        The models cannot be found, loaded or paired.
    """
    began = time.monotonic()
    # A step of a small model is too short to share: where another program keeps
    # a core busy, torch's threads would mostly wait for each other.
    torch.set_num_threads(1)
    if console.is_terminal:
        console.print("Loading the models ...", style="dim", highlight=False)
    pair = load_pair(options.draft, options.target, options.drop_layers)
    loaded = time.monotonic()
    codec = sqs.Codec(
        pair.vocab_size, options.resolution, options.coding, find_prior(options.prior)
    )
    console.print(
        f"{pair.summary}.\n"
        f"Temperature {options.temperature:g}, vocabulary {codec.vocab_size}, "
        f"resolution {codec.resolution}, {codec.coding} packets"
        f"{f', prior {options.prior}' if codec.prior else ''}"
        f"{' in a stream' if options.stream else ''}.",
        highlight=False,
    )
    if console.is_terminal:
        marked = Text.assemble(
            "Tokens that the cloud put in are ", ("marked", report.FROM_CLOUD), "."
        )
        console.print(marked)
    rules: dict[str, sqs.TopK | sqs.Conformal] = {
        "K-SQS": sqs.TopK(options.top_k),
        "C-SQS": sqs.Conformal(alpha=options.alpha, eta=options.eta),
    }
    models = (
        CachedModel(pair.draft, pair.vocab_size),
        CachedModel(pair.target, pair.vocab_size),
    )
    runs = {}
    for name, keep in rules.items():
        console.print()
        console.rule(f"{name}: {keep!r}")
        runs[name] = converse(name, keep, codec, pair, models, options, console)
    console.print()
    console.rule("what it cost")
    console.print(report.summary(runs))
    console.print(
        f"\nLoading took {loaded - began:.0f} s, "
        f"the rest {time.monotonic() - loaded:.0f} s.",
        highlight=False,
    )
    if options.packets:
        example = options.packets / packet_name(next(iter(rules)), 1)
        console.print(
            f"Packets are in {options.packets}; to look into one:\n"
            f"sqs inspect {example} --kind round --vocab-size {codec.vocab_size} "
            f"--resolution {codec.resolution} --coding {codec.coding}"
            f"{f' --prior {options.prior}' if codec.prior else ''}",
            highlight=False,
            soft_wrap=True,
        )


def converse(
    name: str,
    keep: sqs.TopK | sqs.Conformal,
    codec: sqs.Codec,
    pair: Pair,
    models: tuple[CachedModel, CachedModel],
    options: Options,
    console: Console,
) -> Stats:
    """Answer every prompt with one keep rule, whose state lives through all of them.

    Returns
    -------
    Stats
        Over all prompts.
    """
    # The edge and the cloud draw from generators of their own, as they would apart.
    edge_seed, cloud_seed = np.random.SeedSequence(options.seed).spawn(2)
    edge = Edge(
        models[0],
        codec,
        keep,
        temperature=options.temperature,
        rng=np.random.default_rng(edge_seed),
        draft_length=options.draft_length,
        budget_bits=options.budget,
        stream=sqs.StreamEncoder(codec) if options.stream else None,
    )
    cloud = Cloud(
        models[1],
        sqs.StreamDecoder(codec) if options.stream else codec,
        temperature=options.temperature,
        rng=np.random.default_rng(cloud_seed),
    )
    stats = Stats(codec.vocab_size, support_size_sent=isinstance(keep, sqs.Conformal))
    bystander = sqs.StreamDecoder(codec) if options.stream else codec
    for prompt in options.prompt or own_prompts():
        console.print()
        console.print(Text(f"> {prompt}", style="bold"))
        with report.Stream(console, pair.tokenizer) as stream:
            for step in speculate(
                edge,
                cloud,
                bystander,
                pair.encode(prompt),
                max_tokens=options.max_tokens,
                stop=pair.stop,
                stats=stats,
            ):
                stream.show(step, report.live_line(name, stats))
                if options.packets:
                    path = options.packets / packet_name(name, stats.rounds)
                    path.write_bytes(step.packet)
    console.print()
    console.print(report.live_line(name, stats))
    return stats


def own_prompts() -> list[str]:
    """Return the demo's prompts."""
    text = resources.files("sqs_codec.demo").joinpath("prompts.txt").read_text("utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def packet_name(rule: str, number: int) -> str:
    """Return the file name of a round's packet.

    Examples
    --------
    >>> packet_name("K-SQS", 1)
    'k-sqs-0001.bin'
    """
    return f"{rule.lower()}-{number:04}.bin"
