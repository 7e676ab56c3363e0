"""Break the code on purpose, one line at a time, and list unnoticed changes.

    .venv/bin/python -m tests.project.mutants                # all: a quarter of an hour
    .venv/bin/python -m tests.project.mutants verify memory  # those whose names say so

Each mutant is a replacement in one file. It is made in a copy of the tree, which is
built again if the file is C, and the test files that should notice are run there until
the first failure. A mutant that none of them notices survives: either a test is
missing, or the line can go. `test_mutants.py` checks that all still apply.

`mutants.txt` lists them: after the file a name, with the tests that should notice,
then the line, which occurs once, and its replacement. A name ends with (--all) if
`make test` doesn't notice the mutant, but `make test-all` does.

With `--killers FILE` it prints all tests that notice a mutant of a Python file, also of
104 random ones. FILE has the tests that run each line, from coverage.py:

    .venv/bin/coverage run --source=sqs_codec -m pytest -p tests.project.mutants tests
"""

import argparse
import ast
import random
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

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


def run_tests(mutant: Mutant, tree: Path, *options: str) -> int:
    """Make the mutant in a copy of the tree, run its tests, and return their status."""
    path = tree / mutant.path
    text = path.read_text()
    assert text.count(mutant.old) == 1, f"{mutant.name}: not once in {mutant.path}"
    path.write_text(text.replace(mutant.old, mutant.new))
    try:
        if path.suffix in (".c", ".h"):
            build(tree)
        command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider"]
        with open(tree / "output", "w") as output:
            how = {"cwd": tree, "stdout": output, "stderr": output, "timeout": 900}
            return subprocess.run([*command, *options, *mutant.tests], **how).returncode
    except subprocess.TimeoutExpired:
        return 1
    finally:
        path.write_text(text)


def is_noticed(mutant: Mutant, tree: Path) -> bool:
    """Return whether a mutant's tests fail."""
    every = ["--all"] if mutant.name.endswith("(--all)") else []
    status = run_tests(mutant, tree, "-x", *every)
    # A crash is noticed; usage errors and files without tests are mistakes here.
    assert status < 2, f"{mutant.name}: pytest exits with {status}"
    return status != 0


def changed(node: ast.AST) -> ast.expr | None:
    """Return what a random mutant has in place of an expression."""
    match node:
        case ast.Compare(ops=[_]):
            return ast.UnaryOp(ast.Not(), node)
        case ast.BoolOp(op, values):
            return ast.BoolOp([ast.And(), ast.Or()][isinstance(op, ast.And)], values)
        case ast.UnaryOp(ast.Not(), operand):
            return operand
        case ast.Constant(value) if type(value) in (int, float):
            return ast.Constant(value + 1)
    return None


def random_mutants() -> list[Mutant]:
    """Change thirteen expressions of each of eight rooms."""
    draw, found = random.Random(0), []
    system = [f"system/{r}" for r in ("session", "engine", "serve", "proxy", "edge")]
    for room in ("_codec", "torch", "distill", *system):
        of_room = []
        for file in sorted((ROOT / "sqs_codec" / room).rglob("*.py")):
            path, text = str(file.relative_to(ROOT)), file.read_text()
            for node in ast.walk(ast.parse(text)):
                if (new := changed(node)) and node.lineno == node.end_lineno:
                    old = text.splitlines()[node.lineno - 1]
                    begin, end = old[: node.col_offset], old[node.end_col_offset :]
                    line = f"{begin}({ast.unparse(new)}){end}"
                    name = f"random {path}:{node.lineno} {line.strip()}"
                    if text.count(old) == 1 and old.isascii():
                        of_room.append(Mutant(name, path, old, line, ()))
        found += draw.sample(of_room, 13)
    return found


def pytest_runtest_protocol(item: Any) -> None:
    """Have coverage.py note which test runs a line."""
    if (running := import_module("coverage").Coverage.current()) is not None:
        running.switch_context(item.nodeid.partition("[")[0])


def print_killers(mutant: Mutant, tree: Path, data: Any) -> None:
    text = (ROOT / mutant.path).read_text()
    first = text[: text.index(mutant.old)].count("\n") + 1
    run_by = data.contexts_by_lineno(str(ROOT / mutant.path))
    lines = range(first, first + mutant.old.count("\n") + 1)
    tests = {test for n in lines for test in run_by.get(n, []) if "::test_" in test}
    output = ""
    if tests:
        mutant = replace(mutant, tests=tuple(sorted(tests)))
        run_tests(mutant, tree, "--all", "--maxfail=20", "-k", "not numba")
        output = (tree / "output").read_text()
    found = sorted({*re.findall(r"^(\S+?::\w+).* (?:FAILED|ERROR)", output, re.M)})
    said = f"{len(found)} of {len(tests)} tests notice {mutant.name} ({mutant.path})"
    print(said, *found, sep="\n    ", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="parts of names; all mutants if none")
    parser.add_argument("--killers", metavar="FILE", help="what coverage.py wrote")
    words = (args := parser.parse_args()).words
    every = MUTANTS + (random_mutants() if args.killers else [])
    chosen = [m for m in every if not words or any(w in m.name + m.path for w in words)]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_tree(tree)
        if args.killers:
            (data := import_module("coverage").CoverageData(args.killers)).read()
            for mutant in chosen:
                if mutant.path.endswith(".py"):
                    print_killers(mutant, tree, data)
            return 0
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
