"""Build and run what other languages use of the core, by every compiler that is there.

``make bindings`` runs this. A row of the table is a thing, a column a compiler: the
seconds that it took, or FAILED, with what it said below. The programs run under
AddressSanitizer and UBSan; zig has the latter only, and does no C++ here, as it would
compile its whole standard library first.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
BINDINGS = ROOT / "bindings"
PROGRAMS = ROOT / "tests" / "c"

# -Wshadow would tell of tables of one source file that another has variables for.
WARNINGS = "-Wall -Wextra -Wconversion -Wundef -Wmissing-prototypes -Wvla -Wpedantic"
CHECKED = ["-O1", "-g", "-fno-sanitize-recover=all"]
UNDEFINED = "-fsanitize=undefined"
BOTH = "-fsanitize=address,undefined"


class Compiler(NamedTuple):
    """How to call one, with which sanitizers, and the one for C++ beside it."""

    name: str
    cc: list[str]
    sanitizers: list[str]
    cxx: str


def compilers() -> list[Compiler]:
    """Return those of gcc, clang and zig that this machine has."""
    # gcc 12 does not align the frames in which it finds uses after return.
    plain_frames = "--param=asan-use-after-return=0"
    zig = [sys.executable, "-m", "ziglang", "cc"]
    found = []
    if shutil.which("gcc") and shutil.which("g++"):
        found.append(Compiler("gcc", ["gcc"], [BOTH, plain_frames], "g++"))
    if shutil.which("clang") and shutil.which("clang++"):
        found.append(Compiler("clang", ["clang"], [BOTH], "clang++"))
    if importlib.util.find_spec("ziglang"):
        found.append(Compiler("zig", zig, [UNDEFINED], "c++"))
    return found


def run(*command: str | Path, **variables: str) -> str:
    """Run a command, with variables in its environment; return what it says."""
    done = subprocess.run(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | variables,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def amalgamation(compiler: Compiler, folder: Path) -> None:
    """Compile sqs.c without a warning, then again for the programs below."""
    run(sys.executable, BINDINGS / "amalgamate.py", folder)
    common = [*compiler.cc, "-std=c11", "-c", folder / "sqs.c", "-o"]
    run(*common, folder / "plain.o", "-O2", "-Werror", *WARNINGS.split())
    run(*common, folder / "sqs.o", *CHECKED, *compiler.sanitizers)


def program(compiler: Compiler, folder: Path, *sources: Path) -> Path:
    """Link a program with sqs.o; return where it is."""
    to = folder / sources[0].stem
    is_cxx = sources[0].suffix == ".cpp"
    command = [compiler.cxx] if is_cxx else compiler.cc
    standard = ["-std=c++17", "-I", BINDINGS / "cpp"] if is_cxx else ["-std=c11"]
    warnings = ["-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror"]
    options = [*standard, *warnings, *CHECKED, *compiler.sanitizers]
    run(*command, *options, "-I", folder, *sources, folder / "sqs.o", "-o", to)
    return to


def c_example(compiler: Compiler, folder: Path) -> None:
    """Run bindings/c/example.c."""
    run(program(compiler, folder, BINDINGS / "c" / "example.c"))


def cxx_example(compiler: Compiler, folder: Path) -> None:
    """Run bindings/cpp/example.cpp."""
    run(program(compiler, folder, BINDINGS / "cpp" / "example.cpp"))


def statuses(compiler: Compiler, folder: Path) -> None:
    """Meet every status of sqs.h."""
    parts = ("example", "attack", "priors", "valid")
    run(program(compiler, folder, *(PROGRAMS / f"{part}.c" for part in parts)))


def vectors(compiler: Compiler, folder: Path) -> None:
    """Compare with the golden vectors."""
    sys.path.insert(0, str(ROOT))
    from tests.cprograms import write_vectors

    write_vectors(folder / "golden")
    parts = (PROGRAMS / f"{name}.c" for name in ("vectors", "attack", "priors"))
    run(program(compiler, folder, *parts), folder / "golden")


def hostile(compiler: Compiler, folder: Path) -> None:
    """Decode mutated packets."""
    parts = ("hostile", "attack", "priors", "valid")
    to = program(compiler, folder, *(PROGRAMS / f"{part}.c" for part in parts))
    for coding in ("bitpack", "enumerative", "entropy", "prior"):
        run(to, coding, "5000", "1")


def consume(build: Path, *options: str, **variables: str) -> None:
    """Build a project that uses the library, and run its programs."""
    source = BINDINGS / "cmake" / "consumer"
    run("cmake", "-S", source, "-B", build, *options, **variables)
    run("cmake", "--build", build)
    run("ctest", "--test-dir", build, "--output-on-failure")


def cmake(folder: Path, *options: str, **variables: str) -> None:
    """Install the library, and use it by find_package and by pkg-config."""
    build, prefix = folder / "build", folder / "prefix"
    run("cmake", "-S", ROOT, "-B", build, f"-DCMAKE_INSTALL_PREFIX={prefix}", *options,
        **variables)  # fmt: skip
    run("cmake", "--build", build)
    run("cmake", "--install", build)
    consume(folder / "consumer", f"-DCMAKE_PREFIX_PATH={prefix}", **variables)
    if shutil.which("pkg-config"):
        where = {"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
        flags = run("pkg-config", "--cflags", "--libs", "sqs", **where)
        command = variables.get("CC", "cc").split()
        example = BINDINGS / "c" / "example.c"
        run(*command, "-std=c11", example, *flags.split(), "-o", folder / "linked")
        run(folder / "linked", LD_LIBRARY_PATH=str(prefix / "lib"))


def names(compiler: Compiler) -> dict[str, str]:
    """Return the variables by which CMake learns of a compiler."""
    return {"CC": " ".join(compiler.cc), "CXX": compiler.cxx}


def from_sources(compiler: Compiler, folder: Path) -> None:
    """Use the library by FetchContent."""
    consume(folder / "sources", f"-DSQS_SOURCE={ROOT}", **names(compiler))


def with_cmake(shared: str) -> Callable[[Compiler, Path], None]:
    """Return the check of a static or a shared library."""

    def check(compiler: Compiler, folder: Path) -> None:
        layout = ["-DCMAKE_INSTALL_LIBDIR=lib", f"-DBUILD_SHARED_LIBS={shared}"]
        cmake(folder / f"shared-{shared}", *layout, **names(compiler))

    return check


def rust(compiler: Compiler, folder: Path) -> None:
    """Run the crate's tests, and clippy."""
    where = {"CC": " ".join(compiler.cc), "CARGO_TARGET_DIR": str(folder / "rust")}
    manifest = "--manifest-path", BINDINGS / "rust" / "Cargo.toml"
    run("cargo", "test", "--offline", "--locked", *manifest, **where)
    lints = "--", "-D", "warnings"
    run("cargo", "clippy", "--offline", "--all-targets", *manifest, *lints, **where)


AMALGAMATED: dict[str, Callable[[Compiler, Path], None]] = {
    "sqs.c": amalgamation,
    "bindings/c/example.c": c_example,
    "bindings/cpp/example.cpp": cxx_example,
    "tests/c/example.c": statuses,
    "tests/c/vectors.c": vectors,
    "tests/c/hostile.c": hostile,
}
CMAKE: dict[str, Callable[[Compiler, Path], None]] = {
    "CMake, static": with_cmake("OFF"),
    "CMake, shared": with_cmake("ON"),
    "CMake, FetchContent": from_sources,
}


def things(compiler: Compiler) -> dict[str, Callable[[Compiler, Path], None]]:
    """Return what can be checked here, in an order in which it can be done."""
    with_what_is_there = dict(AMALGAMATED)
    if compiler.name == "zig":
        del with_what_is_there["bindings/cpp/example.cpp"]
    if shutil.which("cmake"):
        with_what_is_there |= CMAKE
    if shutil.which("cargo"):
        with_what_is_there["bindings/rust"] = rust
    return with_what_is_there


def check_all(compiler: Compiler) -> dict[str, str]:
    """Do everything by one compiler; return what became of it."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, check in things(compiler).items():
            start = time.monotonic()
            try:
                check(compiler, Path(folder))
                results[name] = f"{time.monotonic() - start:.1f} s"
            except RuntimeError as error:
                results[name] = "FAILED"
                print(f"{name} by {compiler.name}: {error}", file=sys.stderr)
    return results


def main() -> None:
    """Print a table, and fail if anything in it has."""
    found = compilers()
    with ThreadPoolExecutor(2) as pool:
        columns = list(pool.map(check_all, found))
    print(" " * 25 + "".join(f"{compiler.name:>10}" for compiler in found))
    for name in [*AMALGAMATED, *CMAKE, "bindings/rust"]:
        cells = (f"{column.get(name, 'left out'):>10}" for column in columns)
        print(f"{name:25}" + "".join(cells))
    if not found or any("FAILED" in column.values() for column in columns):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
