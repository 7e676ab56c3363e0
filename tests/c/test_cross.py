"""The C core by other compilers and on other processors, which QEMU emulates.

AArch64 has an instruction set of its own for rows, s390x puts the most significant
byte first, and 32-bit ARM has limbs of 32 bits and vectors that flush subnormals, which
clang must not make of loops. All must give this machine's results, bit for bit;
so must an x86-64 without newer instructions. ``SQS_REQUIRE_CROSS=1`` makes a
failure of a test that is otherwise skipped without its compiler or emulator.
"""

import os
import shutil
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


class Machine(NamedTuple):
    """An architecture that isn't this one."""

    name: str
    isas: set[str]
    packages: str  # Debian's
    system: str = "linux-gnu"

    @property
    def compiler(self):
        """The cross compiler."""
        return f"{self.name}-{self.system}-gcc"

    @property
    def emulator(self):
        """The command that runs its programs."""
        return f"qemu-{self.name}"


MACHINES = [
    Machine(
        "aarch64",
        {"scalar", "neon"},
        "gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user",
    ),
    Machine("s390x", {"scalar"}, "gcc-s390x-linux-gnu libc6-dev-s390x-cross qemu-user"),
    Machine(
        "arm",
        {"scalar"},
        "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user",
        "linux-gnueabihf",
    ),
]


def require(packages, *commands):
    missing = [name for name in commands if shutil.which(name) is None]
    if missing:
        reason = f"no {' and no '.join(missing)}: apt-get install {packages}"
        if os.environ.get("SQS_REQUIRE_CROSS"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def other_x86():
    """Emulate processors of this kind."""
    require("qemu-user", "qemu-x86_64")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    build = tmp_path_factory.mktemp("here")
    make(build, *(build / name for name in PROGRAMS))
    return build


@pytest.fixture(scope="module", params=MACHINES, ids=lambda machine: machine.name)
def machine(request):
    """Return a machine with programs that can be built and run."""
    machine = request.param
    require(machine.packages, machine.compiler, machine.emulator)
    return machine


@pytest.fixture(scope="module")
def there(machine, tmp_path_factory):
    build = tmp_path_factory.mktemp(machine.name)
    programs = [build / name for name in PROGRAMS]
    make(build, *programs, compiler=machine.compiler)
    return build


@pytest.fixture(scope="module")
def sum_of_cases(here):
    """The checksum of this machine."""
    return checksum(run(here / "identity-static", "best", str(CASES), str(SEED)))


@pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")
def test_compilers_agree(sum_of_cases, tmp_path):
    program = tmp_path / "identity-static"
    make(tmp_path, program, compiler="clang")
    assert checksum(run(program, "best", str(CASES), str(SEED))) == sum_of_cases


@pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")
def test_clang_keeps_subnormals_on_arm(sum_of_cases, tmp_path):
    [arm] = [machine for machine in MACHINES if machine.name == "arm"]
    require(arm.packages, arm.compiler, arm.emulator)
    system = f"arm-{arm.system}"
    target = f"clang --target={system} -mfpu=neon -isystem /usr/{system}/include"
    # clang compiles, and gcc links, as it knows where the libraries are.
    objects = (tmp_path / name for name in ("identity.static.o", "static.a"))
    make(tmp_path, *objects, compiler=target)
    program = tmp_path / "identity-static"
    make(tmp_path, program, compiler=arm.compiler)
    said = run(arm.emulator, program, "best", str(CASES), str(SEED))
    assert checksum(said) == sum_of_cases


def test_golden_vectors(machine, there, tmp_path):
    count = write_vectors(tmp_path / "vectors")
    said = run(machine.emulator, there / "vectors-static", tmp_path / "vectors")
    assert f"{count} cases right" in said


@pytest.mark.parametrize("arsenal", ARSENALS)
def test_hostile_packets(machine, here, there, arsenal):
    arguments = "hostile-static", arsenal, str(PACKETS), str(SEED)

    def come_to(where, *emulator):
        return checksum(run(*emulator, where / arguments[0], *arguments[1:]))

    assert come_to(there, machine.emulator) == come_to(here)


@pytest.mark.parametrize("isa", ISAS)
def test_rows(machine, there, sum_of_cases, isa):
    command = machine.emulator, there / "identity-static", isa
    if isa in machine.isas:
        assert checksum(run(*command, str(CASES), str(SEED))) == sum_of_cases
    else:
        run(*command, "0", "0", status=LACKING)


def test_best_is_not_scalar_on_aarch64(machine, there):
    said = run(machine.emulator, there / "identity-static", "best", "0", "0")
    assert said.startswith("neon:" if machine.name == "aarch64" else "scalar:")


# QEMU emulates AVX2 but not AVX-512. AVX2 code also looks for BMI, left out here:
# without it glibc itself does not run there.
@pytest.mark.skipif(not IS_X86, reason="needs x86-64")
@pytest.mark.parametrize("lacks", ["", "avx2", "fma", "f16c", "xsave", "popcnt", "all"])
def test_missing_instructions_are_not_used(other_x86, here, lacks):
    best = "scalar" if lacks else "avx2"
    processor = {"": "max", "all": "Nehalem"}.get(lacks, f"max,{lacks}=off")
    arguments = here / "identity-static", "best", "20", str(SEED)
    said = run("qemu-x86_64", "-cpu", processor, *arguments)
    assert said.startswith(f"{best}:")
    assert checksum(said) == checksum(run(*arguments))
