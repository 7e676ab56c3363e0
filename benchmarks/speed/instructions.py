"""Instructions of the core's hot paths, counted by valgrind's callgrind.

    python -m benchmarks.speed.instructions           # compare with the baseline
    python -m benchmarks.speed.instructions --write   # renew it

Counts don't vary from run to run as times do, so a regression of a few per cent
shows. ``instructions.c`` lists the paths; it runs on the whole rows among the shipped
drafts, built as the extension is. Valgrind has no AVX-512, which leaves scalar code and
AVX2. Exits with 1 if a path takes over 3 % more than the baseline,
``instructions.json``, which holds for one compiler: with another, what is more is only
told.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.data.drafts import VOCAB_SIZE, load_drafts

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_suffix(".c")
BASELINE = Path(__file__).with_suffix(".json")

FLAGS = ("-O2", "-std=c11", "-ffp-contract=off")
"""Those of ``bindings/build.py``."""

TOLERANCE = 0.03
"""How much more than the baseline is no regression yet."""


@dataclass(frozen=True)
class Counts:
    """Instructions of every path, and what they depend on.

    Attributes
    ----------
    compiler, flags, machine : str
    instructions : dict of str to int
        Of one call, by path.
    """

    compiler: str
    flags: str
    machine: str
    instructions: dict[str, int]

    @property
    def build(self) -> tuple[str, str, str]:
        """What two counts must share to be comparable."""
        return self.compiler, self.flags, self.machine


def missing() -> list[str]:
    """Name the programs that this needs and that aren't there."""
    return [name for name in ("valgrind", _cc()) if not shutil.which(name)]


def _cc() -> str:
    return os.environ.get("CC", "cc")


def measure() -> Counts:
    """Build, run and count: some ten seconds.

    Raises
    ------
    subprocess.CalledProcessError
        The compiler or the program failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        rows = load_drafts().dense
        (work / "rows").write_bytes(rows.astype("<f2").tobytes())
        _run(
            *(_cc(), *FLAGS, f"-DVOCAB={VOCAB_SIZE}u", f"-DROWS={len(rows)}u"),
            *("-I", str(ROOT / "csrc"), str(PROGRAM)),
            *map(str, sorted((ROOT / "csrc").rglob("*.c"))),
            *("-lm", "-o", str(work / "instructions")),
        )
        said = _run(
            *("valgrind", "--tool=callgrind", f"--callgrind-out-file={work / 'out'}"),
            *(work / "instructions", work / "rows"),
        )
        pairs = [line.split("\t") for line in said.splitlines()]
        calls = {name: int(number) for name, number in pairs}
        instructions = _read_dumps(work)
    return Counts(
        compiler=_run(_cc(), "--version").splitlines()[0],
        flags=" ".join(FLAGS),
        machine=platform.machine(),
        instructions={
            name: round(instructions[name] / number) for name, number in calls.items()
        },
    )


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


def read_baseline(path: Path = BASELINE) -> Counts:
    """Read the committed counts."""
    return Counts(**json.loads(path.read_text("utf-8")))


def regressions(counts: Counts, baseline: Counts) -> list[str]:
    """Name the paths that take more than the baseline allows.

    Examples
    --------
    >>> old = Counts("cc 1", "-O2", "x86_64", {"a": 100, "b": 100})
    >>> new = Counts("cc 1", "-O2", "x86_64", {"a": 103, "b": 104})
    >>> regressions(new, old)
    ['b']
    """
    return [
        name
        for name, old in baseline.instructions.items()
        if counts.instructions.get(name, 0) > old * (1 + TOLERANCE)
    ]


def table(counts: Counts, baseline: Counts | None) -> str:
    """Render counts beside those of the baseline."""
    old = baseline.instructions if baseline else {}
    lines = [f"{'instructions of a call':<38} {'baseline':>10} {'now':>10}  ratio"]
    for name in {**old, **counts.instructions}:
        before, now = old.get(name), counts.instructions.get(name)
        ratio = f"{now / before:.3f}" if now and before else "-"
        cells = (f"{n:,}".replace(",", " ") if n else "-" for n in (before, now))
        lines.append("{:<38} {:>10} {:>10}  {:>5}".format(name, *cells, ratio))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare with the baseline, or renew it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.instructions")
    parser.add_argument("--write", action="store_true", help="renew the baseline")
    args = parser.parse_args(argv)
    if absent := missing():
        print(
            f"benchmarks.speed.instructions needs {', '.join(absent)}", file=sys.stderr
        )
        return 1
    counts = measure()
    baseline = read_baseline() if BASELINE.exists() else None
    print(f"{counts.compiler}, {counts.flags}, {counts.machine}")
    print(table(counts, baseline))
    if args.write:
        BASELINE.write_text(json.dumps(asdict(counts), indent=1) + "\n", "utf-8")
        return 0
    if baseline is None:
        print(f"{BASELINE} is missing: --write makes it", file=sys.stderr)
        return 1
    gone = sorted(set(baseline.instructions) - set(counts.instructions))
    worse = regressions(counts, baseline)
    if counts.build != baseline.build:
        print(
            "WARNING: the baseline is of another build, so nothing fails: "
            + ", ".join(baseline.build),
            file=sys.stderr,
        )
    if gone:
        print(f"No longer counted: {', '.join(gone)}", file=sys.stderr)
    if worse:
        print(f"Over {TOLERANCE:.0%} more: {', '.join(worse)}", file=sys.stderr)
    return int(bool(worse or gone) and counts.build == baseline.build)


if __name__ == "__main__":
    sys.exit(main())
