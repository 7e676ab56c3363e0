"""Print which steps of .ci/run a difference can reach: one name per line.

    python -m tests.project.reach BASE    changes of this tree since the commit BASE

A Python file reaches the steps whose modules import it, directly or through others. For
other files, patterns list the steps. A file that matches neither reaches all steps.
After `test-slow` stand the test files that have slow tests within reach.
"""

import re
import subprocess
import sys
from collections.abc import Iterable
from fnmatch import fnmatch
from functools import cache

from tests.project.test_tree import ROOT, Graph, python_files, python_graph, reached

FILES = {
    "bench-test": "csrc/* benchmarks/*",
    "bindings": "csrc/* bindings/* tests/c/* tests/vectors/* CMakeLists.txt",
    "docs": "*.md docs/* mkdocs.yml csrc/sqs.h sqs_codec/* bindings/wasm/*",
    "install": "csrc/* bindings/* README.md",
    "libfuzzer": "csrc/* tests/c/*",
    "prove": "csrc/* tests/prove/*",
    "test-disguised": "csrc/* tests/vectors/*",
    "test-web": "csrc/* bindings/wasm/* docs/playground/* docs/site/* tests/web/*",
    "wheels": "csrc/* bindings/*",
}
"""Patterns of files that a step reads without an import."""

SLOW = "csrc/* bindings/* tests/c/* tests/vectors/* tests/project/foreign/* README.md"
"""Patterns of files that reach all slow tests."""

FLOATS = re.search(r"FLOATS := (.*\\\n)*.*", (ROOT / "Makefile").read_text())[0]

MODULES = {
    "bench-test": "benchmarks tests.benchmarks.quick",
    "test-disguised": " ".join(re.findall(r"tests/[\w/]+", FLOATS)).replace("/", "."),
    "test-llama": "tests.system.llama_cpp sqs_codec.cli.serve sqs_codec.cli.generate",
    "test-ray": "tests.system.ray sqs_codec.cli.serve sqs_codec.cli.generate",
    "test-trainers": "tests.trainers",
    "test-vllm": "tests.system.vllm",
    "test-web": "tests.web sqs_codec.system.proxy",
    "wheels": "tests.project.wheels",
}
"""Modules and packages that a step runs."""

STEPS = {*FILES, *MODULES}

QUIET = "tests/durations.txt tests/frozen/* tests/project/*.txt"
"""Patterns of files that only `make test` reads."""

EVERYWHERE = ("conftest", "tests.conftest")
"""Modules that all tests use without an import."""


def matches(name: str, patterns: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns.split())


@cache
def graph() -> Graph:
    """The modules that each module imports, among them the packages above it."""
    modules = python_graph()
    above: Graph = {name: set() for name in modules}
    for name, used in modules.items():
        for module in (name, *used):
            parts = module.split(".")
            parents = {".".join(parts[:count]) for count in range(1, len(parts))}
            above[name] |= (used | parents) & modules.keys() - {name}
    return above


def uses(roots: str) -> set[str]:
    """Return the modules in some packages, and all that these import."""
    starts = {n for n in graph() for r in roots.split() if f"{n}.".startswith(f"{r}.")}
    return starts.union(*(reached(graph(), start) for start in starts))


def module(name: str) -> str | None:
    """Return the module that a file is, or the package of `sqs_codec` it belongs to."""
    parts = name.removesuffix(".py").removesuffix("/__init__").split("/")
    if not name.endswith(".py") and name.startswith("sqs_codec/"):
        parts.pop()
        while ".".join(parts) not in graph():
            parts.pop()
    dotted = ".".join(parts)
    return dotted if dotted in graph() else None


def slow_files() -> dict[str, str]:
    """Return the test modules that have tests marked `all`, and their files."""
    return {
        name: path.relative_to(ROOT).as_posix()
        for name, path in python_files().items()
        if name.startswith("tests.") and re.search(r"mark\.all\b", path.read_text())
    }


def steps(changed: Iterable[str]) -> dict[str, list[str]]:
    """Return the steps that changed files reach, each with its test files, if any."""
    found: set[str] = set()
    modules: set[str] = set()
    everything = slow = False
    for name in changed:
        hit = {step for step, patterns in FILES.items() if matches(name, patterns)}
        own = module(name)
        found |= hit
        modules |= {own} if own else set()
        slow |= matches(name, SLOW)
        unknown = not (own or hit or matches(name, f"{SLOW} {QUIET}"))
        everything |= unknown or own in EVERYWHERE
    found |= {step for step, roots in MODULES.items() if modules & uses(roots)}
    within = {
        file
        for name, file in slow_files().items()
        if slow or modules & {name, *reached(graph(), name)}
    }
    if everything:
        found, within = STEPS, {*slow_files().values()}
    return {step: [] for step in sorted(found)} | (
        {"test-slow": sorted(within)} if within else {}
    )


def main(base: str) -> None:
    """Print the steps that the difference from a commit reaches."""
    command = ["git", "diff", "--name-only", "--no-renames", base, "--"]
    changed = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()
    for step, files in steps(changed).items():
        print(step, *files)


if __name__ == "__main__":
    main(*sys.argv[1:])
