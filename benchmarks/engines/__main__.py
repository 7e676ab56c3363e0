"""Compare an engine with transformers: the same jobs must give the same verdicts.

    python -m benchmarks.engines equal --engine vllm      # about 12 minutes

docs/serving/custom-engine.md explains the table, and how to write an engine.
"""

import os
import sys

# Read by libraries as they load.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.engines import equal
from benchmarks.tables import command


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = command("engines", equal.__doc__, **equal.QUICK)
    parser.add_argument("measure", choices=["equal"])
    equal.add_options(parser)
    return int(equal.main(parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
