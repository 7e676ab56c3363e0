"""Each program of benchmarks/ in miniature: ``make bench-test`` runs this file.

Programs are the runnable modules, except those that make files of the tree.
"""

import os
import re
import runpy
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest

from tests.conftest import reading_gguf_once

ROOT = Path(__file__).parents[2]

ARGUMENTS = {
    "benchmarks.experiments": ["all --quick"],
    "benchmarks.distill": ["bytes students --quick"],
    "benchmarks.sizes": ["quick"],
    "benchmarks.speed": ["--quick"],
    "benchmarks.planner": ["--quick"],
    "benchmarks.engines": [
        f"equal --quick{engine}"
        for engine in ("", " --engine smollm2-F32", " --engine vllm")
    ],
    "benchmarks.wire": ["--quick"],
    "benchmarks.kld.llama": [],  # of a program that has to be built
    "benchmarks.speed.instructions": [""],  # in seconds as it is
}
"""Those that take more than ``--quick``, after the slowest: cores end together."""


def commands() -> Iterator[str]:
    """Yield each program and its arguments."""
    found = []
    for path in sorted((ROOT / "benchmarks").rglob("*.py")):
        makes = path.stem.startswith(("make_", "fit_"))
        if not makes and 'if __name__ == "__main__"' in path.read_text("utf-8"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found.append(name.removesuffix(".__main__"))
    for name in sorted(found, key=[*ARGUMENTS, *found].index):
        for given in ARGUMENTS.get(name, ["--quick"]):
            yield f"{name} {given}".strip()


def needs(name: str) -> str | None:
    """Return the missing requirement of a program."""
    if name.endswith("instructions") and not shutil.which("valgrind"):
        return "needs valgrind"
    if name.endswith("wire") and os.geteuid():
        return "needs a raw socket, so root"
    return None


@pytest.fixture(autouse=True)
def _few_loads() -> Iterator[None]:
    """Load models fast, and once for all experiments."""
    from benchmarks.experiments import run

    one_process = mock.patch.object(run, "_pool", return_value=ThreadPoolExecutor(1))
    with reading_gguf_once(), one_process:
        yield


@pytest.mark.parametrize("command", [*commands()])
def test_a_program_prints_figures(command, tmp_path, monkeypatch, capsys):
    name, *arguments = command.split()
    if re.search("smollm2-", command):
        pytest.importorskip("llama_cpp")
    if command.endswith("vllm"):
        pytest.importorskip("vllm")
    if lacking := needs(name):
        pytest.skip(lacking)
    monkeypatch.chdir(tmp_path)  # where results are kept
    monkeypatch.setattr("sys.argv", [name, *arguments])
    monkeypatch.delitem(
        sys.modules, f"{name}.__main__", raising=False
    )  # others' import
    status = None
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code
    printed, complaints = capsys.readouterr()
    assert not status, complaints
    assert len(re.findall(r"^.*\d.*$", printed, re.MULTILINE)) >= 3, printed
    assert "…" not in printed  # the tables fit their lines
