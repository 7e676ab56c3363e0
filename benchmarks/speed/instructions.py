"""Instructions of the core's hot paths, counted by valgrind's callgrind.

    python -m benchmarks.speed.instructions           # compare with the baseline
    python -m benchmarks.speed.instructions --write   # update the baseline

Unlike times, counts are repeatable, so they show regressions of a few percent.
``instructions.c`` lists the paths. It is built as the extension is, and runs on the
complete rows of the shipped drafts. Valgrind doesn't support AVX-512, so this covers
scalar code and AVX2. The exit status is 1 if a path takes over 3 % more than the
baseline, ``instructions.json``. The baseline is for one compiler; with another one,
differences are only printed.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.drafts import VOCAB_SIZE, load_drafts

CSRC = Path(__file__).parents[2] / "csrc"
PROGRAM = Path(__file__).with_suffix(".c")
BASELINE = Path(__file__).with_suffix(".json")
CC = os.environ.get("CC", "cc")

FLAGS = ("-O2", "-std=c11", "-ffp-contract=off")
"""The flags of ``bindings/build.py``."""

TOLERANCE = 0.03
"""The relative excess over the baseline that counts as a regression."""


def missing() -> list[str]:
    """Return the required programs that aren't installed."""
    return [name for name in ("valgrind", CC) if not shutil.which(name)]


def measure() -> dict[str, Any]:
    """Build, run and count, in about ten seconds.

    Returns the compiler, flags and machine, and ``instructions`` per call of each path.
    CalledProcessError if the compiler or the program fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        rows = load_drafts().dense
        (work / "rows").write_bytes(rows.astype("<f2").tobytes())
        sizes = f"-DVOCAB={VOCAB_SIZE}u", f"-DROWS={len(rows)}u"
        sources = PROGRAM, *sorted(CSRC.rglob("*.c"))
        _run(CC, *FLAGS, *sizes, "-I", CSRC, *sources, "-lm", "-o", work / "paths")
        out = f"--callgrind-out-file={work / 'out'}"
        said = _run("valgrind", "--tool=callgrind", out, work / "paths", work / "rows")
        calls = dict(line.split("\t") for line in said.splitlines())
        counts = _read_dumps(work)
    return {
        "compiler": _run(CC, "--version").splitlines()[0],
        "flags": " ".join(FLAGS),
        "machine": platform.machine(),
        "instructions": {
            name: round(counts[name] / int(number)) for name, number in calls.items()
        },
    }


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr)
        done.check_returncode()
    return done.stdout


def _read_dumps(folder: Path) -> dict[str, int]:
    """Read instructions by what the dumps were triggered with."""
    found = {}
    for path in folder.glob("out.*"):
        text = path.read_text()
        name = re.search(r"^desc: Trigger: Client Request: (.*)$", text, re.MULTILINE)
        total = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
        if name and total:
            found[name[1]] = int(total[1])
    return found


def compare(now: dict[str, int], before: dict[str, int]) -> list[str]:
    """Print a table of both, and name the paths that are gone or take too much.

    >>> compare({"a": 103, "b": 104}, {"a": 100, "b": 100, "c": 1})
    instructions of a call                   baseline        now  ratio
    a                                             100        103  1.030
    b                                             100        104  1.040
    c                                               1          -      -
    ['b', 'c']
    """
    print(f"{'instructions of a call':<38} {'baseline':>10} {'now':>10}  ratio")
    worse = []
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        ratio = new / old if new and old else None
        if old and (ratio is None or ratio > 1 + TOLERANCE):
            worse.append(name)
        cells = (f"{n:,}".replace(",", " ") if n else "-" for n in (old, new))
        shown = "-" if ratio is None else f"{ratio:.3f}"
        print("{:<38} {:>10} {:>10}  {:>5}".format(name, *cells, shown))
    return worse


def main(argv: list[str] | None = None) -> int:
    """Compare with the baseline, or renew it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.instructions")
    parser.add_argument("--write", action="store_true", help="update the baseline")
    args = parser.parse_args(argv)
    if absent := missing():
        print(f"needs {', '.join(absent)}", file=sys.stderr)
        return 1
    now, baseline = measure(), json.loads(BASELINE.read_text("utf-8"))
    if args.write:
        BASELINE.write_text(json.dumps(now, indent=1) + "\n", "utf-8")
    worse = compare(now.pop("instructions"), baseline.pop("instructions"))
    if args.write:
        return 0
    if now != baseline:
        print(
            f"WARNING: nothing fails, as the baseline is of {baseline}, this of {now}"
        )
        return 0
    if worse:
        print(f"Gone or over {TOLERANCE:.0%} more: {', '.join(worse)}", file=sys.stderr)
    return int(bool(worse))


if __name__ == "__main__":
    sys.exit(main())
