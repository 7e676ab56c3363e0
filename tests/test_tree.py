"""The rules by which files may use each other, read from their imports and includes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"
PACKAGES = ("sqs_codec", "benchmarks", "tests")
EXTENSION = "sqs_codec._backend._sqs"  # the C core, which imports nothing

Graph = dict[str, set[str]]


def python_files() -> dict[str, Path]:
    """Every module of the project by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path
    return found


def imported_names(path: Path) -> Iterator[str]:
    """What a file imports anywhere in it, also lazily or for type checks alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            # What is imported may be a module or something in it.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def python_graph() -> Graph:
    """Which modules of the project each module names."""
    files = python_files()
    graph: Graph = {name: set() for name in files}
    for name, path in files.items():
        for imported in imported_names(path):
            if imported.startswith(EXTENSION):
                continue
            while imported and imported not in files:
                imported = imported.rpartition(".")[0]
            if imported and imported != name:
                graph[name].add(imported)
    return graph


def c_graph() -> Graph:
    """Which files of ``csrc`` each file includes, by their paths in it."""
    graph: Graph = {}
    for path in CSRC.rglob("*.[ch]"):
        name = path.relative_to(CSRC).as_posix()
        included = re.findall(r'^#\s*include "(.+)"', path.read_text(), re.MULTILINE)
        for other in included:
            assert (CSRC / other).exists(), f"{name} includes {other}"
        graph[name] = set(included)
    return graph


def reached(graph: Graph, start: str) -> set[str]:
    """All that a node uses, and what that uses in turn."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for other in graph[waiting.pop()] - found:
            found.add(other)
            waiting.append(other)
    return found


def folders(names: set[str]) -> set[str]:
    return {name.split("/")[0] for name in names if "/" in name}


@pytest.mark.parametrize("graph", [python_graph(), c_graph()], ids=["python", "c"])
def test_has_no_circle(graph):
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_c_folders_know_what_they_may():
    allowed = {
        "rows": {"rows"},
        "quantize": {"quantize", "rows"},
        "rank": {"rank"},
        "entropy": {"entropy"},
    }
    graph = c_graph()
    for name in graph:
        if "/" in name:
            folder = name.split("/")[0]
            assert folders(reached(graph, name)) <= allowed[folder], name


def test_only_the_api_knows_all_codings():
    graph = c_graph()
    both = {"rank", "entropy"}
    assert [n for n in graph if both <= folders(reached(graph, n))] == ["api.c"]


def test_backends_know_no_codec():
    graph = python_graph()
    for name in graph:
        if name.startswith("sqs_codec._backend"):
            allowed = "_backend", "_base"
            assert all(
                n.startswith(tuple(f"sqs_codec.{a}" for a in allowed))
                for n in reached(graph, name)
            ), name


def test_distributions_know_no_codec():
    used = reached(python_graph(), "sqs_codec._codec.distribution")
    values = {"_base", "_base.checks", "_base.errors", "_base.format", "_backend.core"}
    assert used <= {f"sqs_codec.{name}" for name in values}


OPTIONAL = ("demo", "edge", "hf", "llama_cpp", "ray", "serve", "session", "vllm")


def test_the_codec_knows_nothing_of_the_system_around_it():
    graph = python_graph()
    for name in graph:
        package, _, rest = name.partition(".")
        if package != "sqs_codec" or rest.split(".")[0] in (*OPTIONAL, "cli"):
            continue
        system = tuple(f"sqs_codec.{part}" for part in OPTIONAL)
        assert not [n for n in graph[name] if n.startswith(system)], name


def test_sessions_have_no_clock_socket_or_thread():
    """They turn bytes into bytes; the loop around them has all of these."""
    unwanted = {"asyncio", "select", "socket", "threading", "time", "torch"}
    for name, path in python_files().items():
        if name.startswith("sqs_codec.session."):
            roots = {imported.split(".")[0] for imported in imported_names(path)}
            assert not roots & unwanted, name


@pytest.mark.parametrize(
    ("part", "known"),
    [
        ("session", {"session"}),
        ("edge", {"session", "edge"}),
        ("llama_cpp", {"session", "edge", "llama_cpp"}),
        ("hf", {"session", "edge", "hf"}),
    ],
)
def test_parts_of_the_system_know_those_below_them(part, known):
    graph = python_graph()
    for name in graph:
        if name.split(".")[:2] == ["sqs_codec", part]:
            used = {n.split(".")[1] for n in reached(graph, name) if "." in n}
            assert used & {*OPTIONAL, "cli"} <= known, name


@pytest.mark.parametrize("name", ["sqs_codec.edge._edge", "sqs_codec.llama_cpp"])
def test_an_edge_needs_no_framework(name):
    roots = {n.split(".")[0] for n in imported_names(python_files()[name])}
    assert not roots & {"torch", "transformers"}


def test_packages_know_what_they_may():
    allowed = {
        "sqs_codec": {"sqs_codec"},
        "benchmarks": {"sqs_codec", "benchmarks"},
        "tests": {"sqs_codec", "benchmarks", "tests"},
    }
    graph = python_graph()
    for name, used in graph.items():
        package = name.split(".")[0]
        assert {n.split(".")[0] for n in used} <= allowed[package], name


def test_nobody_changes_where_python_looks():
    for name, path in python_files().items():
        for node in ast.walk(ast.parse(path.read_text())):
            is_path = isinstance(node, ast.Attribute) and node.attr == "path"
            if is_path and isinstance(node.value, ast.Name):
                assert node.value.id != "sys", f"{name} uses sys.path"
