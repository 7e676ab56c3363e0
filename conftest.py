"""Leave out what isn't installed here, and with --quick all but the codec's tests.

`make test-llama`, `-ray`, `-vllm`, `-web`, `-clients` and `-trainers` run what isn't
installed.
"""

from __future__ import annotations

import ast
import re
import sys
import tempfile
from collections.abc import Generator, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent

collect_ignore = [
    place
    for package in ("llama_cpp", "ray", "vllm")
    if find_spec(package) is None
    for place in (
        f"sqs_codec/system/{package}",
        f"sqs_codec/system/{package}.py",
        f"tests/system/{package}",
    )
]
collect_ignore.append("tests/typing")  # for type checkers only
collect_ignore += [
    place
    for package in ("axolotl", "distillkit", "trl", "verl")
    if find_spec(package) is None
    for place in (
        f"sqs_codec/trainers/{package}.py",
        f"tests/trainers/test_{package}.py",
    )
]
if find_spec("llama_cpp") is None:
    collect_ignore.append("benchmarks/gguf_files.py")
if find_spec("playwright") is None:
    collect_ignore.append("tests/web")
if find_spec("litellm") is None:
    collect_ignore.append("tests/clients")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Run the examples of documentation in a folder that is removed afterwards.

    An example may not leave anything in the folder for temporary files either: whoever
    pastes it would have to find and remove that.
    """
    if not isinstance(item, pytest.DoctestItem):
        return (yield)
    with tempfile.TemporaryDirectory() as here, pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        (temporary := Path(here, "temporary")).mkdir()
        patch.setattr(tempfile, "tempdir", str(temporary))
        yield
        left = sorted(path.name for path in temporary.iterdir())
        assert not left, f"the example leaves {left} in the folder for temporary files"


OWN = {"benchmarks", "sqs_codec", "tests"}
KNOWN = OWN | {
    "hypothesis",
    "numba",
    "numpy",
    "pytest",
    "tqdm",
    *sys.stdlib_module_names,
}
KNOWN -= {"asyncio", "shutil", "socket", "tarfile"}  # servers, compilers and archives
SYSTEM = re.compile(r"sqs_codec\.(cli|distill|hf|system|torch)\b")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --quick."""
    parser.addoption(
        "--quick",
        action="store_true",
        help="only the codec's files, without torch, models, sockets and compilers",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --quick leave out what isn't quick."""
    leave = config.getoption("quick") and collection_path.is_file()
    return True if leave and not is_quick(collection_path) else None


@cache
def is_quick(path: Path) -> bool:
    """Whether a file is the codec's, and imports nothing but what is, too."""
    own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    python = path.suffix == ".py" and not SYSTEM.match(own)
    return python and all(map(may_be_imported, imported(path)))


def may_be_imported(name: str) -> bool:
    """Whether a quick file may import a module, or what it has; helpers are quick."""
    path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
    if path.exists() and not name.startswith("sqs_codec"):
        return is_quick(path)
    return name.split(".")[0] in KNOWN and not SYSTEM.match(name)


def imported(path: Path) -> Iterator[str]:
    """Yield what a file imports, and what it is skipped without."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield from (module, *(f"{module}.{alias.name}" for alias in names))
            case ast.Call(
                func=ast.Attribute(attr="importorskip"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name
