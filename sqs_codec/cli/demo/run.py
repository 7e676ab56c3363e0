"""One run of the demo, from its options to the table."""

from __future__ import annotations

import argparse
import time
from importlib import resources

import numpy as np
from rich.console import Console
from rich.text import Text

import sqs_codec as sqs
from sqs_codec._base.words import shown
from sqs_codec.cli.demo import report
from sqs_codec.cli.demo.count import Paced, Stats, Tap, Watched
from sqs_codec.cli.demo.pair import Pair, load_pair
from sqs_codec.cli.options import find_prior, interrupts_raise
from sqs_codec.system.edge import EdgeMetrics, FixedPlan, Hints, generate
from sqs_codec.system.hf import CachedModel, Cloud
from sqs_codec.system.session import EdgeSession, Sampling, Setting, seed_of


def run(args: argparse.Namespace, console: Console) -> None:
    """Run both keep rules over the prompts and print what they cost."""
    began = time.monotonic()
    import torch  # after hf, which says how its threads wait

    torch.set_num_threads(1)  # a step of a small model is too short to share
    if console.is_terminal:
        console.print("Loading the models ...", style="dim", highlight=False)
    pair = load_pair(args.draft, args.target, args.drop_layers)
    loaded = time.monotonic()
    codec = sqs.Codec(
        pair.vocab_size, args.resolution, args.coding, find_prior(args.prior)
    )
    console.print(
        f"{shown(pair.summary)}.\n"
        f"Temperature {args.temperature:g}, vocabulary {codec.vocab_size}, "
        f"resolution {codec.resolution}, {codec.coding} packets"
        f"{f', prior {args.prior}' if codec.prior else ''}.",
        highlight=False,
    )
    if console.is_terminal:
        marked = Text.assemble(
            "Tokens that the cloud put in are ", ("marked", report.FROM_CLOUD), "."
        )
        console.print(marked)
    rules: dict[str, sqs.TopK | sqs.Conformal] = {
        "K-SQS": sqs.TopK(args.top_k),
        "C-SQS": sqs.Conformal(alpha=args.alpha, eta=args.eta),
    }
    cloud = Cloud(pair.target, vocab_size=pair.vocab_size, tokenizer=pair.tokenizer)
    runs = {}
    for name, keep in rules.items():
        console.print()
        console.rule(f"{name}: {keep!r}")
        runs[name] = converse(name, keep, codec, pair, cloud, args, console)
    console.print()
    console.rule("what it cost")
    console.print(report.summary(runs))
    console.print(hinted(codec, pair, cloud, args), highlight=False)
    console.print(
        f"\nLoading took {loaded - began:.0f} s, "
        f"the rest {time.monotonic() - loaded:.0f} s.",
        highlight=False,
    )
    if args.packets:
        example = args.packets / packet_name(next(iter(rules)), 1)
        console.print(
            f"Packets are in {args.packets}; to look into one:\n"
            f"sqs inspect {example} --kind round --vocab-size {codec.vocab_size} "
            f"--resolution {codec.resolution} --coding {codec.coding}"
            f"{f' --prior {args.prior}' if codec.prior else ''}",
            highlight=False,
            soft_wrap=True,
        )


def converse(
    name: str,
    keep: sqs.TopK | sqs.Conformal,
    codec: sqs.Codec,
    pair: Pair,
    cloud: Cloud,
    args: argparse.Namespace,
    console: Console,
) -> Stats:
    """Answer every prompt with one keep rule, whose state lives through all of them."""
    # What drafts and what verifies come from generators that are independent.
    drafting, verifying = np.random.SeedSequence(args.seed).spawn(2)
    rng, seeds = np.random.default_rng(drafting), np.random.default_rng(verifying)
    draft = Watched(pair, keep, args.temperature)
    stats = Stats(codec=codec, support_size_sent=isinstance(keep, sqs.Conformal))
    for prompt in args.prompt or own_prompts():
        console.print()
        console.print(Text(f"> {prompt}", style="bold"))
        session = EdgeSession(
            [Setting(codec, keep)],
            pair.encode(prompt),
            rng=rng,
            sampling=Sampling(args.temperature),
            tokenizer=cloud.fingerprint,
            stop=sorted(pair.stop),
            session_id=seeds.bytes(16),
            seed=seeds.bytes(16),
        )
        link, plan = Tap(cloud, codec.prior), FixedPlan(args.draft_length)
        with interrupts_raise(), report.Stream(console, pair.tokenizer) as stream:
            for step in generate(
                session, draft, link, plan, max_tokens=args.max_tokens
            ):
                packets = link.take()
                stats.count(step, packets, draft.take())
                stream.show(step, report.live_line(name, stats))
                if args.packets:
                    for packet in packets:
                        path = args.packets / packet_name(name, stats.rounds)
                        path.write_bytes(packet)
    console.print()
    console.print(report.live_line(name, stats))
    return stats


def hinted(codec: sqs.Codec, pair: Pair, cloud: Cloud, args: argparse.Namespace) -> str:
    """Answer the first prompt with hints in place of rounds, and say what they do."""
    prompt = (args.prompt or own_prompts())[0]
    session = EdgeSession(
        [Setting(codec, sqs.TopK(args.top_k))],
        pair.encode(prompt),
        rng=np.random.default_rng(args.seed),
        sampling=Sampling(args.temperature),
        tokenizer=cloud.fingerprint,
        stop=sorted(pair.stop),
        seed=seed_of(args.seed, pair.encode(prompt)),
    )
    link = Paced(cloud, [] if codec.prior is None else [codec.prior])
    draft = CachedModel(pair.draft, pair.vocab_size)
    metrics, plan = EdgeMetrics(), FixedPlan(0, hints=Hints())
    with interrupts_raise():
        for step in generate(session, draft, link, plan, max_tokens=args.max_tokens):
            metrics.add(step)
    return (
        f"Hints, for the first prompt: the cloud doesn't wait, and a pass gives it "
        f"{metrics.tokens / metrics.answers:.1f} tokens; "
        f"{metrics.accepted} of {metrics.drafted} were guessed beforehand."
    )


def own_prompts() -> list[str]:
    """Return the demo's prompts."""
    text = resources.files("sqs_codec.cli.demo").joinpath("prompts.txt")
    lines = text.read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def packet_name(rule: str, number: int) -> str:
    """Return the file name of a round's packet.

    Examples
    --------
    >>> packet_name("K-SQS", 1)
    'k-sqs-0001.bin'
    """
    return f"{rule.lower()}-{number:04}.bin"
