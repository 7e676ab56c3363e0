"""Hold an engine to transformers: the same verdicts, how fast, and what lies around it.

    python -m benchmarks.engines equal --engine vllm      # some 12 minutes
    python -m benchmarks.engines speed
    python -m benchmarks.engines overhead
    python -m benchmarks.engines memory
    python -m benchmarks.engines passes
    python -m benchmarks.engines shapes

docs/engines.md says what the tables mean, and how to write an engine.
"""

import importlib
import os
import sys

# Read by libraries as they load.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.tables import command

MEASURES = ("equal", "speed", "overhead", "memory", "passes", "shapes")


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    argv = sys.argv[1:] if argv is None else argv
    parser = command("engines", __doc__)
    parser.add_argument(
        "measure", choices=MEASURES, help="each has a --help of its own"
    )
    name = parser.parse_args(argv[:1]).measure
    # Not all of them, as they don't all need the same packages.
    module = importlib.import_module(f"benchmarks.engines.{name}")
    parser = command(f"engines {name}", module.__doc__, **module.QUICK)
    module.add_options(parser)
    return int(module.main(parser.parse_args(argv[1:])))


if __name__ == "__main__":
    sys.exit(main())
