"""Who may import whom; for csrc, test_c.py says who may include whom."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("sqs_codec", "benchmarks", "tests")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    """Return every module of the three packages by its name."""
    return {
        module_name(path): path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }


@cache
def imports(module: str) -> frozenset[str]:
    """Return what a module imports, anywhere in it and for whatever purpose."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in modules() else str(node.module))
    return frozenset(found)


def within(package: str) -> list[str]:
    return [m for m in modules() if m == package or m.startswith(package + ".")]


def is_of(module: str, *packages: str) -> bool:
    return any(module == p or module.startswith(p + ".") for p in packages)


def test_no_circle() -> None:
    """Not in functions and not for type checking either."""
    done: set[str] = set()
    path: list[str] = []

    def visit(module: str) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        path.append(module)
        for other in imports(module) & modules().keys():
            visit(other)
        path.pop()
        done.add(module)

    for module in modules():
        visit(module)
    assert len(done) > 50


@pytest.mark.parametrize("package", PACKAGES)
def test_who_imports_the_measurements_and_the_tests(package: str) -> None:
    allowed = {"sqs_codec": (), "benchmarks": ("benchmarks",), "tests": PACKAGES}
    for module in within(package):
        for other in imports(module):
            if is_of(other, "benchmarks", "tests"):
                assert is_of(other, *allowed[package]), f"{module} imports {other}"


def test_backends_know_the_seam_alone() -> None:
    allowed = (
        "sqs_codec._backend",
        "sqs_codec._errors",
        "sqs_codec._format",
    )
    for module in within("sqs_codec._backend"):
        for other in imports(module):
            if is_of(other, "sqs_codec"):
                assert is_of(other, *allowed), f"{module} imports {other}"


def test_values_know_no_codec() -> None:
    reached: set[str] = set()
    left = ["sqs_codec._distribution"]
    while left:
        module = left.pop()
        if module in modules() and module not in reached:
            reached.add(module)
            left += imports(module)
    assert not reached & {
        "sqs_codec._codec",
        "sqs_codec._engine",
        "sqs_codec._backend",
        "sqs_codec",
    }


def test_the_path_of_modules_is_left_alone() -> None:
    pattern = re.compile(r"\bsys\.path\b|\bPYTHONPATH\b.*=.*ROOT")
    for module, path in modules().items():
        if module != "tests.test_tree":
            assert not pattern.search(path.read_text()), module
