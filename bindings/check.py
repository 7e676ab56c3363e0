"""Build and run the bindings for other languages, with every installed compiler.

``make bindings`` runs this. It prints a table of seconds, or FAILED, with a row per
check and a column per compiler; the output of failed commands goes to stderr. Programs
run under AddressSanitizer and UBSan. Zig has only UBSan, and skips C++, because it
would first compile its whole standard library.
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

# No -Wshadow: in one file, variables may have the name of another part's table.
WARNINGS = "-Wall -Wextra -Wconversion -Wundef -Wmissing-prototypes -Wvla -Wpedantic"
CHECKED = ["-O1", "-g", "-fno-sanitize-recover=all"]
UNDEFINED = "-fsanitize=undefined"
BOTH = "-fsanitize=address,undefined"


class Compiler(NamedTuple):
    """A C compiler with its sanitizers, and the matching C++ compiler."""

    name: str
    cc: list[str]
    sanitizers: list[str]
    cxx: str


def compilers() -> list[Compiler]:
    """Return the installed ones of gcc, clang and zig."""
    # gcc 12 does not align the frames of its check for uses after return.
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
    """Run a command, with variables in its environment; return its output."""
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
    """Compile sqs.c with all warnings as errors, then again for the programs below."""
    run(sys.executable, BINDINGS / "amalgamate.py", folder)
    common = [*compiler.cc, "-std=c11", "-c", folder / "sqs.c", "-o"]
    run(*common, folder / "plain.o", "-O2", "-Werror", *WARNINGS.split())
    run(*common, folder / "sqs.o", *CHECKED, *compiler.sanitizers)


def program(compiler: Compiler, folder: Path, *sources: Path) -> Path:
    """Link a program with sqs.o; return its path."""
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
    """Provoke every status of sqs.h."""
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
    """Install the library, and use it with find_package and with pkg-config."""
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
    """Return the variables that tell CMake which compiler to use."""
    return {"CC": " ".join(compiler.cc), "CXX": compiler.cxx}


def from_sources(compiler: Compiler, folder: Path) -> None:
    """Use the library with FetchContent."""
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
    """Return the checks that this machine has the tools for, in their order."""
    possible = dict(AMALGAMATED)
    if compiler.name == "zig":
        del possible["bindings/cpp/example.cpp"]
    if shutil.which("cmake"):
        possible |= CMAKE
    if shutil.which("cargo"):
        possible["bindings/rust"] = rust
    return possible


def check_all(compiler: Compiler) -> dict[str, str]:
    """Run all checks with one compiler; return the results."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, check in things(compiler).items():
            start = time.monotonic()
            try:
                check(compiler, Path(folder))
                results[name] = f"{time.monotonic() - start:.1f} s"
            except RuntimeError as error:
                results[name] = "FAILED"
                print(f"{name} with {compiler.name}: {error}", file=sys.stderr)
    return results


def main() -> None:
    """Print the table, and fail if a check has failed."""
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
