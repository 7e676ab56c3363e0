"""Measure the size of a teacher's stored distributions, and train students on them.

    python -m benchmarks.distill bytes students            # an hour on two cores
    python -m benchmarks.distill bytes students --quick    # a minute, in miniature

bytes: bytes per token, errors and biases of storage schemes, by model and kind of text.
students: small students, trained on the live teacher or on stored distributions.
Results stay in a folder. After an interruption the same command continues.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by libraries as they load
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.distill import measure, students
from benchmarks.distill.teachers import Size
from benchmarks.experiments.experiment import Options
from benchmarks.sources import SHIPPED
from benchmarks.tables import about, about_line, command, dim

PARTS = {"bytes": measure, "students": students}

QUICK = Size(
    tokens=4,
    texts_of_a_kind=2,
    prompts=16,
    seeds=2,
    epochs=1,
    width=64,
    layers=1,
)


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = _parser()
    args = parser.parse_args(argv)
    size = QUICK if args.quick else Size()
    models = args.models or (SHIPPED[:1] if args.quick else SHIPPED)
    folder = args.folder or Path("build", "distill-quick" if args.quick else "distill")
    options = Options(folder, args.quick, prompts=args.prompts)
    folder.mkdir(parents=True, exist_ok=True)
    shown: list[Table | Text] = []
    measured = about("torch", "transformers", "zstandard") | {"seconds": 0.0}
    for part in dict.fromkeys(args.parts):
        records: list[dict[str, Any]] = []
        for name in models:
            file, began = folder / f"{part}-{name}.json", time.monotonic()
            if not file.exists():
                found = {"records": PARTS[part].measure(options, name, size)}
                found["seconds"] = time.monotonic() - began
                file.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
            found = json.loads(file.read_text("utf-8"))
            records += found["records"]
            measured["seconds"] += found["seconds"]
        shown += PARTS[part].tables(records)
    shown.append(dim(about_line(measured)))
    with (folder / "distill.txt").open("w", encoding="utf-8") as text:
        for console in (Console(), Console(file=text, width=100)):
            console.print(*shown, sep="\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command("distill", __doc__, quick=True)
    add = parser.add_argument
    add("parts", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    add("--models", nargs="+", choices=SHIPPED, help="(default: both)")
    add("--folder", type=Path, help="results (default: build/distill)")
    add("--prompts", type=Path, metavar="FILE", help="prompts of the students' texts")
    return parser


if __name__ == "__main__":
    sys.exit(main())
