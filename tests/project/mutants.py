"""Break the code on purpose, one line at a time, and list what no test notices.

    .venv/bin/python -m tests.project.mutants                # all: a quarter of an hour
    .venv/bin/python -m tests.project.mutants verify memory  # those whose names say so

Each mutant is a replacement in one file. It is made in a copy of the tree, which is
built anew if the file is C, and the test files that should notice are run there until
the first failure. A mutant that none of them notices survives: either a test is
missing, or the line can go. `test_mutants.py` sees to it that all still apply.

They stand in `mutants.txt`: after the file a name, with the tests that should notice,
then what stands there, once, and what takes its place.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mutant:
    """A replacement of text that a file has once, and the tests that should fail."""

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]


def read_mutants(text: str) -> list[Mutant]:
    path, found = "", []
    for block in re.split("^(?=##? )", text, flags=re.MULTILINE):
        head, *lines = block.splitlines() or [""]
        if head.startswith("## "):
            path = head[3:]
        elif head.startswith("# "):
            name, tests = head[2:].rsplit(": ", 1)
            old, new = ("\n".join(x[1:] for x in lines if x[:1] == c) for c in "-+")
            files = tuple(
                f"tests/{folder}/test_{test}.py"
                for folder, _, test in (name.rpartition("/") for name in tests.split())
            )
            found.append(Mutant(name, path, old, new, files))
    return found


MUTANTS = read_mutants(Path(__file__).with_suffix(".txt").read_text())


def copy_tree(to: Path) -> None:
    """Copy what git tracks, and what was built of it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    built = [path.relative_to(ROOT) for path in ROOT.glob("sqs_codec/_backend/*.so")]
    for name in [*filter(None, listed.stdout.split("\0")), *map(str, built)]:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, to / name)


def build(tree: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--force"]
    subprocess.run(command, cwd=tree, check=True, stdout=subprocess.DEVNULL)


def is_noticed(mutant: Mutant, tree: Path) -> bool:
    """Make the mutant in a copy of the tree, and say whether its tests fail."""
    path = tree / mutant.path
    text = path.read_text()
    assert text.count(mutant.old) == 1, f"{mutant.name}: not once in {mutant.path}"
    path.write_text(text.replace(mutant.old, mutant.new))
    try:
        if path.suffix in (".c", ".h"):
            build(tree)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        run = subprocess.run(
            [*command, *mutant.tests],
            cwd=tree,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=900,
        )
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(text)
    if run.returncode not in (0, 1):
        # A crash is noticed; usage errors and files without tests are mistakes here.
        assert run.returncode < 0, f"{mutant.name}: pytest exits with {run.returncode}"
    return run.returncode != 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="parts of names; all mutants if none")
    words = parser.parse_args().words
    chosen = [m for m in MUTANTS if not words or any(w in m.name for w in words)]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_tree(tree)
        stale = False
        for i, mutant in enumerate(chosen, 1):
            if stale and not mutant.path.startswith("csrc"):
                build(tree)
            stale = mutant.path.startswith("csrc")
            noticed = is_noticed(mutant, tree)
            survivors += [] if noticed else [mutant]
            verdict = "noticed" if noticed else "SURVIVES"
            print(f"{i}/{len(chosen)} {verdict}: {mutant.name}", flush=True)
    for mutant in survivors:
        print(f"survivor: {mutant.name} ({mutant.path}; {' '.join(mutant.tests)})")
    print(f"{len(chosen)} mutants, {len(survivors)} survivors")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
