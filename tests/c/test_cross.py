"""The C core by other compilers and on other processors, which QEMU emulates.

AArch64 has an instruction set of its own for rows, s390x puts the most significant
byte first, and 32-bit ARM has limbs of 32 bits and vectors that flush subnormals, which
clang must not make of loops. All must give this machine's results, bit for bit;
so must an x86-64 without newer instructions. ``SQS_REQUIRE_CROSS=1`` makes a
failure of a test that is otherwise skipped without its compiler or emulator.
"""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cprograms import (
    ARSENALS,
    IS_X86,
    ISAS,
    LACKING,
    checksum,
    make,
    run,
    write_vectors,
)

pytestmark = pytest.mark.all

PACKETS = 20_000
CASES = 200
SEED = 2

PROGRAMS = "identity-static", "hostile-static", "vectors-static"

MACHINES = {"aarch64": "linux-gnu", "s390x": "linux-gnu", "arm": "linux-gnueabihf"}
"""Architectures that aren't this one, and their systems."""


def require(*commands, package=""):
    missing = [name for name in commands if shutil.which(name) is None]
    if missing:
        reason = f"no {' and no '.join(missing)}: apt-get install qemu-user {package}"
        if os.environ.get("SQS_REQUIRE_CROSS"):
            pytest.fail(reason)
        pytest.skip(reason)


def tools(name):
    """Return the cross compiler and the emulator for a machine."""
    found = f"{name}-{MACHINES[name]}-gcc", f"qemu-{name}"
    require(*found, package=f"gcc-{name}-{MACHINES[name]}")
    return found


class Machine(NamedTuple):
    """A machine, where its programs are, and the command that runs them."""

    name: str
    folder: Path
    emulator: tuple[str, ...] = ()

    def run(self, program, *arguments, **how):
        """Run a program, and return what it said."""
        path = self.folder / f"{program}-static"
        return run(*self.emulator, path, *map(str, arguments), **how)


def build(folder, compiler="cc"):
    make(folder, *(folder / program for program in PROGRAMS), compiler=compiler)
    return folder


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return Machine("here", build(tmp_path_factory.mktemp("here")))


@pytest.fixture(scope="module", params=MACHINES)
def there(request, tmp_path_factory):
    compiler, emulator = tools(request.param)
    folder = build(tmp_path_factory.mktemp(request.param), compiler)
    return Machine(request.param, folder, (emulator,))


@pytest.fixture(scope="module")
def sum_of_cases(here):
    """The checksum of this machine."""
    return checksum(here.run("identity", "best", CASES, SEED))


@pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")
def test_clang_keeps_subnormals_on_arm(sum_of_cases, tmp_path):
    compiler, emulator = tools("arm")
    system = f"arm-{MACHINES['arm']}"
    target = f"clang --target={system} -mfpu=neon -isystem /usr/{system}/include"
    # clang compiles, and gcc links, as it knows where the libraries are.
    objects = (tmp_path / name for name in ("identity.static.o", "static.a"))
    make(tmp_path, *objects, compiler=target)
    program = tmp_path / "identity-static"
    make(tmp_path, program, compiler=compiler)
    said = run(emulator, program, "best", str(CASES), str(SEED))
    assert checksum(said) == sum_of_cases


def test_golden_vectors(there, tmp_path):
    count = write_vectors(tmp_path / "vectors")
    assert f"{count} cases right" in there.run("vectors", tmp_path / "vectors")


@pytest.mark.parametrize("arsenal", ARSENALS)
def test_hostile_packets(here, there, arsenal):
    arguments = "hostile", arsenal, PACKETS, SEED
    assert checksum(there.run(*arguments)) == checksum(here.run(*arguments))


@pytest.mark.parametrize("isa", ISAS)
def test_rows(there, sum_of_cases, isa):
    if isa == "scalar" or (isa == "neon" and there.name == "aarch64"):
        assert checksum(there.run("identity", isa, CASES, SEED)) == sum_of_cases
    else:
        there.run("identity", isa, 0, 0, status=LACKING)


def test_best_is_not_scalar_on_aarch64(there):
    said = there.run("identity", "best", 0, 0)
    assert said.startswith("neon:" if there.name == "aarch64" else "scalar:")


# QEMU emulates AVX2 but not AVX-512. AVX2 code also looks for BMI, left out here:
# without it glibc itself does not run there.
@pytest.mark.skipif(not IS_X86, reason="needs x86-64")
@pytest.mark.parametrize("lacks", ["", "avx2", "fma", "f16c", "xsave", "popcnt", "all"])
def test_missing_instructions_are_not_used(here, lacks):
    require("qemu-x86_64")
    best = "scalar" if lacks else "avx2"
    processor = {"": "max", "all": "Nehalem"}.get(lacks, f"max,{lacks}=off")
    other = here._replace(emulator=("qemu-x86_64", "-cpu", processor))
    arguments = "identity", "best", 20, SEED
    said = other.run(*arguments)
    assert said.startswith(f"{best}:")
    assert checksum(said) == checksum(here.run(*arguments))


@pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")
def test_compilers_agree(sum_of_cases, tmp_path):
    by_clang = Machine("here", build(tmp_path, "clang"))
    assert checksum(by_clang.run("identity", "best", CASES, SEED)) == sum_of_cases
