"""Selection and order of tests.

`--quick` runs the codec's tests, with fewer random cases. `--all` also runs slow
builds. Tests of packages that aren't installed are left out; `make test-llama`, `-ray`,
`-vllm`, `-web`, `-clients` and `-trainers` install them.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Generator
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
    """Run documentation examples in a folder that is removed afterwards.

    Examples must not leave files in the temporary folder either, where users who paste
    them would have to find and remove these.
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


QUICK = [
    *("sqs_codec/__init__.py", "sqs_codec/bits.py", "sqs_codec/theory.py"),
    *("sqs_codec/_backend", "sqs_codec/_base", "sqs_codec/_codec", "sqs_codec/testing"),
    *("tests/backend", "tests/base", "tests/codec"),
    *("tests/test_bits.py", "tests/test_theory.py", "tests/project/test_freeze.py"),
]
"""Folders and files of `--quick`, without torch and compilers."""

NOT_QUICK = [
    "sqs_codec/testing/transformers.py",
    "tests/backend/test_numba_cache.py",  # compiles
]

DURATIONS = ROOT / "tests" / "durations.txt"
"""Seconds of each slow file's tests; `--write-durations` writes them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that select tests and write their durations."""
    for option, text in {
        "--quick": "only the codec's tests, without torch, models and compilers",
        "--all": "also tests that build or enumerate for long",
        "--write-durations": "write how long each file's tests took",
    }.items():
        parser.addoption(option, action="store_true", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Register markers, and the plugin that adds up durations."""
    for marker in (
        "all: builds or enumerates for long; runs with --all only",
        "torch: needs torch, in a file that --quick runs",
    ):
        config.addinivalue_line("markers", marker)
    if config.getoption("write_durations") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Durations())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --quick, leave out other files."""
    leave = config.getoption("quick") and collection_path.is_file()
    return True if leave and not is_quick(collection_path) else None


def is_quick(path: Path) -> bool:
    """Return whether `--quick` runs a file's tests."""
    name = path.relative_to(ROOT).as_posix()
    places = tuple(f"{place}/" for place in QUICK)
    return f"{name}/".startswith(places) and name not in NOT_QUICK


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Remove deselected tests, and begin with the slowest files."""
    quick = config.getoption("quick")
    left = {"torch": quick, "all": not config.getoption("all")}
    out = {i for i in items if any(left.get(mark.name) for mark in i.iter_markers())}
    out |= {item for item in items if quick and seed_of(item) % 4}
    if out:
        config.hook.pytest_deselected(items=[*out])
    took = read_durations()
    kept = (item for item in items if item not in out)
    items[:] = sorted(kept, key=lambda item: -took.get(file_of(item.nodeid), 0))


def seed_of(item: pytest.Item) -> int:
    """Return a test's seed, 0 if it has none."""
    spec = getattr(item, "callspec", None)
    return spec.params.get("seed", 0) if spec else 0


def file_of(test: str) -> str:
    """Return a test's file."""
    return test.partition("::")[0]


def read_durations() -> dict[str, float]:
    """Return the seconds of each slow file."""
    lines = DURATIONS.read_text().splitlines() if DURATIONS.exists() else []
    return {name: float(took) for took, name in map(str.split, lines)}


class Durations:
    """Adds up how long each file's tests and their fixtures take."""

    def __init__(self) -> None:
        self.took: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a part of a test."""
        self.took[file_of(report.nodeid)] += report.duration

    def pytest_sessionfinish(self) -> None:
        """Write the files that take a second or more, the slowest first."""
        took = {**read_durations(), **self.took}
        slow = sorted((t, name) for name, t in took.items() if t >= 1)
        DURATIONS.write_text("".join(f"{t:.0f} {name}\n" for t, name in slow[::-1]))
