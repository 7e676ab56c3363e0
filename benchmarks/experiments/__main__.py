"""Run experiments, print and plot their results.

    python -m benchmarks.experiments all --quick        # three minutes
    python -m benchmarks.experiments all                # an hour on two cores
    python -m benchmarks.experiments bounds rules

docs/benchmarks explains the results, which are kept in a folder. After an interruption
the same command continues. The exit status is 1 if a measurement contradicts a theorem.
"""

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by libraries as they load
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from rich.console import Console

from benchmarks.charts import draw
from benchmarks.experiments.experiment import Check, Experiment, Options, checks_of
from benchmarks.experiments.run import OptionsError, run
from benchmarks.sources import read_prompts
from benchmarks.tables import about, about_line, command, dim, write_json
from sqs_codec.cli.options import number
from sqs_codec.system.hf import ModelError

NAMES = (
    *("temperature", "bounds", "protocols", "rules"),
    *("lattices", "sizes", "capacity"),
)


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = _parser()
    args = parser.parse_args(argv)
    if bool(args.draft) != bool(args.target):
        parser.error("--draft and --target go together")
    names = NAMES if "all" in args.names else tuple(dict.fromkeys(args.names))
    folder = args.folder or Path("build", "quick" if args.quick else "experiments")
    given = args.prompts, args.draft, args.target, args.drafts
    options = Options(folder, args.quick, args.seed, *given)
    modules: dict[str, Experiment] = {
        name: importlib.import_module(f"benchmarks.experiments.{name}")
        for name in names
    }
    try:
        records = run(modules, options)
    except (OptionsError, ModelError) as error:
        parser.error(str(error))
    measured = about("torch", "transformers") | {"seed": args.seed}
    results: dict[str, Any] = {"about": measured}
    failed: list[Check] = []
    for name, module in modules.items():
        summary = module.summary(records[name], options)
        results[name] = summary
        failed += report(name, module, summary, folder)
    print(about_line(measured))
    if args.json:
        write_json(results, args.json)
    return int(bool(failed))


def report(
    name: str, module: Experiment, summary: dict[str, Any], folder: Path
) -> list[Check]:
    """Print and draw an experiment; return the checks that fail."""
    checks = checks_of(module, summary)
    with (folder / f"{name}.txt").open("w", encoding="utf-8") as file:
        for console in (Console(), Console(file=file, width=80)):
            console.rule(f"{name}: {module.TITLE}")
            for part in module.tables(summary):
                console.print(part)
            for check in checks:
                verdict = "holds" if check.holds else "DOES NOT HOLD"
                console.print(f"{check.claim}: {verdict}", highlight=False)
                console.print(dim(f"  {check.detail}"))
            console.print()
    write_json(summary, folder / f"{name}.json")
    if chart := getattr(module, "chart", None):
        draw(module.TITLE, chart(summary), folder / f"{name}.svg")
    return [check for check in checks if not check.holds]


def _prompts(name: str) -> Path:
    """Return the path of a file that has prompts."""
    try:
        read_prompts(Path(name))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(name)


def _drafts(name: str) -> Path:
    """Return the path of a folder that has small drafts."""
    if not any(Path(name).glob("*-*.npz")):
        said = f"{name} has no files MODEL-SIZE.npz, such as smollm2-2.5M.npz"
        raise argparse.ArgumentTypeError(said)
    return Path(name)


def _parser() -> argparse.ArgumentParser:
    parser = command("experiments", __doc__, quick=True)
    add = parser.add_argument
    said = f"all, or {', '.join(NAMES)}"
    add("names", nargs="+", choices=(*NAMES, "all"), metavar="NAME", help=said)
    said = "results (default: build/experiments, or build/quick)"
    add("--folder", type=Path, help=said)
    add("--seed", **number(int, 0), default=0, help="(default: %(default)s)")
    said = 'prompts, one per line, or JSON lines with "turns"'
    add("--prompts", type=_prompts, metavar="FILE", help=said)
    said = "a Hugging Face model instead of the default pairs"
    add("--draft", metavar="MODEL", help=said)
    add("--target", metavar="MODEL", help="the model that --draft drafts for")
    said = "files MODEL-SIZE.npz of benchmarks.sizes (default: in the results, drafts)"
    add("--drafts", type=_drafts, metavar="FOLDER", help=said)
    add("--json", type=Path, metavar="FILE", help="write all summaries")
    return parser


if __name__ == "__main__":
    sys.exit(main())
