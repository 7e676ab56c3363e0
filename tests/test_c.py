"""The C core without Python: its warnings, its symbols, its two C programs.

tests/c/Makefile says how they are built; example.c, hostile.c and attack.h say
what they assert.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
C_COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
CXX_COMPILERS = [name for name in ("g++", "clang++") if shutil.which(name)]

# What the core may ask of its surroundings: no memory, no input or output, no
# way to end the process. The last ones are the compiler's own.
NEEDED = {"memcpy", "memset", "memmove", "memcmp", "log", "exp", "ldexp"} | {
    "__udivti3",
    "__umodti3",
    "__udivmodti4",
    "__stack_chk_fail",
    "_GLOBAL_OFFSET_TABLE_",
}
CODINGS = ["bitpack", "enumerative", "entropy"]
PACKETS = 100_000
SEED = 1


def run(*command: str | Path) -> str:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, f"{command[0]} failed\n{done.stdout}"
    return done.stdout


def make(build: Path, *targets: str | Path, compiler: str = "cc") -> None:
    run(
        *("make", "-j2", "-C", ROOT / "tests" / "c"),
        *(f"BUILD={build}", f"CC={compiler}"),
        *targets,
    )


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of the programs built with the sanitizers."""
    build = tmp_path_factory.mktemp("c")
    names = ("example", "hostile", "hostile-limb32")
    make(build, *(build / name for name in names))
    return build


def test_a_c_compiler_is_found() -> None:
    assert C_COMPILERS


@pytest.mark.parametrize("compiler", C_COMPILERS)
def test_builds_without_warnings_and_exports_only_its_prefix(
    compiler: str, tmp_path: Path
) -> None:
    make(tmp_path, "strict", compiler=compiler)
    sources = sorted((ROOT / "csrc").glob("*.c"))
    objects = [tmp_path / f"{source.stem}.o" for source in sources]
    exported = run("nm", "-jg", "--defined-only", *objects).split()
    needed = run("nm", "-ju", *objects).split()
    files = {f"{path}:" for path in objects}
    assert "sqs_decode" in exported
    assert {n for n in exported if not n.startswith("sqs_")} <= files
    assert {n for n in needed if not n.startswith("sqs_")} <= NEEDED | files


@pytest.mark.parametrize("compiler", C_COMPILERS)
def test_header_stands_alone(compiler: str) -> None:
    flags = ("-x", "c", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
    run(compiler, *flags, "-fsyntax-only", ROOT / "csrc" / "sqs.h")


@pytest.mark.parametrize("compiler", C_COMPILERS)
def test_arithmetic_that_is_not_ieee_is_refused(compiler: str) -> None:
    done = subprocess.run(
        [compiler, "-fsyntax-only", "-ffast-math", ROOT / "csrc" / "quantize.c"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "compile without -ffast-math" in done.stderr


def test_header_is_cxx_too() -> None:
    flags = ("-x", "c++", "-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
    for compiler in CXX_COMPILERS:
        run(compiler, *flags, "-fsyntax-only", ROOT / "csrc" / "sqs.h")


def test_example_meets_every_status(programs: Path) -> None:
    assert "every status met" in run(programs / "example")


@pytest.mark.parametrize("coding", CODINGS)
def test_hostile_packets_on_both_limb_sizes(programs: Path, coding: str) -> None:
    def checksum(program: str) -> str:
        said = run(programs / program, coding, str(PACKETS), str(SEED))
        print(said)
        found = re.search(
            rf"{PACKETS} packets, (\d+) of them valid, .* findings 0, checksum (\w+)",
            said,
        )
        assert found
        assert int(found[1]) > PACKETS // 10
        return found[2]

    assert checksum("hostile") == checksum("hostile-limb32")
