"""Measure the bits of distributions, for every scheme and setting.

    python -m benchmarks.rate --plot rate.svg

It compares bits with the lost total variation and with the acceptance rate. Schemes are
K-SQS and C-SQS with the paper's formula, QS, raw top-K and all codings of this package.
docs/benchmarks/size.md explains the tables. Rows are shipped drafts to which nothing
was fitted, arrays of logits, or both models' logits for the target's completions.
"""

import sys
from pathlib import Path

from rich.console import Console

from benchmarks.charts import draw
from benchmarks.rate.measure import run
from benchmarks.rate.report import chart, report
from benchmarks.sources import add_options, from_options
from benchmarks.tables import command
from sqs_codec.cli.options import number

TEMPERATURES = (0.3, 0.7, 1.0)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status is 1 after an error."""
    parser = command("rate", __doc__, rows=3, temperature=[0.7])
    add_options(parser)
    add, least = parser.add_argument, number(float, 0.05, metavar="T")
    said = "temperature of both models; may be repeated (default: 0.3, 0.7 and 1)"
    add("--temperature", **least, action="append", help=said)
    add("--plot", type=Path, metavar="FILE", help="write a plot (SVG)")
    args = parser.parse_args(argv)
    try:
        source = from_options(args)
    except (OSError, ValueError) as error:
        print(f"benchmarks.rate: {error}", file=sys.stderr)
        return 1
    temperatures = args.temperature or TEMPERATURES
    results = run(source, temperatures, args.seed, progress=sys.stderr.isatty())
    if args.plot:
        draw("Bits of a distribution against TV", chart(results), args.plot)
    Console().print(report(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
