"""The rules by which files may use each other, read from their imports and includes."""

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from sqs_codec.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"
PACKAGES = ("sqs_codec", "benchmarks", "tests")
EXTENSION = "sqs_codec._backend._sqs"  # the C core, which imports nothing

Graph = dict[str, set[str]]


def python_files():
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path
    return found


def imported_names(path):
    """All imports of a file, also lazy ones and those only for type checks."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            # What is imported may be a module or something in it.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def python_graph():
    """The modules of the project that each module names."""
    files = python_files()
    graph = {name: set() for name in files}
    for name, path in files.items():
        for imported in imported_names(path):
            if imported.startswith(EXTENSION):
                continue
            while imported and imported not in files:
                imported = imported.rpartition(".")[0]
            if imported and imported != name:
                graph[name].add(imported)
    return graph


def c_graph():
    """The files of ``csrc`` that each file includes, as paths."""
    graph = {}
    for path in CSRC.rglob("*.[ch]"):
        name = path.relative_to(CSRC).as_posix()
        included = re.findall(r'^#\s*include "(.+)"', path.read_text(), re.MULTILINE)
        for other in included:
            assert (CSRC / other).exists(), f"{name} includes {other}"
        graph[name] = set(included)
    return graph


def reached(graph, start):
    """All that a node uses, and what that uses in turn."""
    found = set()
    waiting = [start]
    while waiting:
        for other in graph[waiting.pop()] - found:
            found.add(other)
            waiting.append(other)
    return found


def folders(names):
    return {name.split("/")[0] for name in names if "/" in name}


@pytest.mark.parametrize("graph", [python_graph, c_graph])
def test_there_is_no_import_cycle(graph):
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_c_folders_include_only_allowed_folders():
    allowed = {"rows": {"rows"}, "quantize": {"quantize", "rows"}}
    allowed |= {"rank": {"rank"}, "entropy": {"entropy"}}
    graph = c_graph()
    for name in graph:
        if "/" in name:
            folder = name.split("/")[0]
            assert folders(reached(graph, name)) <= allowed[folder], name


def test_only_the_api_imports_all_codings():
    graph = c_graph()
    both = {"rank", "entropy"}
    assert [n for n in graph if both <= folders(reached(graph, n))] == ["api.c"]


CODEC = (
    {"_base", "testing"},
    {"_backend"},
    {"_codec"},
    {"theory"},
    {"__init__"},
    {"bits", "torch"},
    {"distill", "hf"},
    {"trainers"},
)
"""The codec's layers from the bottom up; names without a folder are files."""

SYSTEM = (
    {"_base", "__init__"},
    {"session", "_endpoint"},
    {"edge", "_caching"},
    {"engine"},
    {"llama_cpp", "hf", "small"},
    {"vllm", "ray"},
    {"serve"},
    {"proxy", "teacher"},
)
"""The system's layers, above the codec."""

FLOORS = (*CODEC, *({f"system.{name}" for name in names} for names in SYSTEM))
FLOORS += ({"cli"}, {"__main__"})


def room(module):
    """The room of a module of ``sqs_codec``."""
    _, name, *inner = [*module.split("."), "__init__"]
    return f"system.{inner[0]}" if name == "system" else name


def test_imports_go_only_downwards():
    floor = {name: i for i, names in enumerate(FLOORS) for name in names}
    for name, used in python_graph().items():
        if name.split(".")[0] != "sqs_codec":
            continue
        for other in used:
            if other.startswith("sqs_codec") and room(other) != room(name):
                assert floor[room(other)] < floor[room(name)], f"{name}: {other}"


PRIVATE = """
    _base.checks _base.errors _base.files _base.install _base.words _codec.truncation
    distill._lists distill._tasks system.edge._metrics system.hf._models
    system.hf._reader system.hf._sampling torch._tensors
"""
"""Private names that packages of the system use of others."""


def test_system_packages_use_public_names_of_others():
    private = {f"sqs_codec.{name}" for name in PRIVATE.split()}
    shared = [f"sqs_codec.system.{name}" for name in ("_base", "_caching", "_endpoint")]
    for name, used in python_graph().items():
        if name.startswith("sqs_codec.system."):
            others = {n for n in used if room(n) != room(name)}
            for n in shared:
                others = {other.removeprefix(n) for other in others}
            assert {n for n in others if "._" in n} <= private, name


def test_distributions_do_not_import_the_codec():
    used = reached(python_graph(), "sqs_codec._codec.distribution")
    assert {n for n in used if room(n) != "_base"} <= {"sqs_codec._backend.core"}


NEVER = {
    "sqs_codec": "benchmarks|tests",
    r"tests(?!\.benchmarks)": "benchmarks",
    # Sessions turn bytes into bytes; the loop of an edge has all of these.
    r"sqs_codec\.system\.session": "asyncio|select|socket|threading|time|torch",
    r"sqs_codec\.system\.(edge|llama_cpp|small)": "torch|transformers",
}
"""Patterns of modules, and of packages that they don't import."""


@pytest.mark.parametrize(("modules", "packages"), NEVER.items())
def test_modules_do_without_some_packages(modules, packages):
    for name, path in python_files().items():
        if re.match(rf"({modules})\b", name):
            roots = {imported.split(".")[0] for imported in imported_names(path)}
            assert not [one for one in roots if re.fullmatch(packages, one)], name


def test_no_command_imports_another():
    graph = python_graph()
    commands = {f"sqs_codec.cli.{where}" for _, where, _ in COMMANDS}
    for name in commands:
        assert not graph[name] & (commands - {name}), name
    assert not graph["sqs_codec.cli.main"] & commands


def test_nothing_changes_sys_path():
    """Nor does code in a string, for another process."""
    for name, path in python_files().items():
        found = re.search(r"sys\.path(\.\w|\[| \+?= )", path.read_text())
        assert not found, f"{name} changes sys.path"
