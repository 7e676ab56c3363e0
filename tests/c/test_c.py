"""The C core without Python: its warnings, its symbols, its C programs.

tests/c/Makefile builds them, and each program's head lists what it asserts;
attack.h does for hostile.c.
"""

import re
import shutil
import subprocess

import pytest

from tests.cprograms import (
    ARSENALS,
    IS_X86,
    ISAS,
    LACKING,
    ROOT,
    checksum,
    make,
    run,
    write_vectors,
)

C_COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
CXX_COMPILERS = [name for name in ("g++", "clang++") if shutil.which(name)]

# What the core may ask of its surroundings: no memory, no input or output, no
# way to end the process. The next ones are the compiler's own.
NEEDED = {"memcpy", "memset", "memmove", "memcmp", "_GLOBAL_OFFSET_TABLE_"}
NEEDED |= {"__udivti3", "__umodti3", "__udivmodti4", "__stack_chk_fail"}

CSRC = ROOT / "csrc"
PARTS = "valid", "priors", "attack"
FAST_MATH = "-fsyntax-only", "-ffast-math"

CONTROLS = {"flush": "8040", "flush results": "8000", "flush operands": "0040"}
CONTROLS |= {"down": "2000", "up": "4000", "towards 0": "6000"}
"""Bits of MXCSR. torch.set_flush_denormal sets those of the first."""

PACKETS = 100_000
CASES = 300
SEED = 1
SUM = "3995591b4fe6641e"
"""The checksum of identity.c for these; it changes only with the cases."""


def slow(name):
    return pytest.param(name, marks=pytest.mark.all)


def build(folder, *how):
    names = ["example", "hostile", "hostile-limb32", "identity", "vectors", "changing"]
    make(folder, *(folder / name for name in names), *how)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Give the folder of the programs built without the sanitizers."""
    return build(tmp_path_factory.mktemp("plain"), "SANITIZERS=")


@pytest.fixture(scope="module", params=["plain", slow("checked")])
def programs(request, tmp_path_factory):
    """Give the folder of the programs, with --all also of those with the sanitizers."""
    if request.param == "plain":
        return request.getfixturevalue("plain")
    return build(tmp_path_factory.mktemp("checked"))


@pytest.fixture(scope="module", params=["plain", *map(slow, C_COMPILERS)])
def objects(request, tmp_path_factory):
    """Give the core's object files, with --all by every compiler without a warning."""
    folder, ending = tmp_path_factory.mktemp(request.param), ".o"
    if request.param == "plain":
        folder, ending = request.getfixturevalue("plain"), ".checked.o"
    else:
        make(folder, "strict", compiler=request.param)
    sources = sorted(CSRC.rglob("*.c"))
    return [folder / path.relative_to(CSRC).with_suffix(ending) for path in sources]


def symbols(options, objects):
    done = subprocess.run(
        ["nm", *options.split(), *objects], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split()) - {f"{path}:" for path in objects}


def test_a_c_compiler_is_found():
    assert C_COMPILERS


def test_exports_only_its_prefix_and_has_no_dependency(objects):
    exported = symbols("-jg --defined-only", objects)
    needed = symbols("-ju", objects)
    assert "sqs_decode" in exported
    assert {name for name in exported if not name.startswith("sqs_")} == set()
    assert {name for name in needed if not name.startswith("sqs_")} <= NEEDED


@pytest.mark.skipif(not IS_X86, reason="needs x86-64")
def test_runs_on_any_x86_64(objects):
    """Instructions that some lack are in files which only those reach that don't."""
    for path in objects:
        listing = run("objdump", "-d", "--no-show-raw-insn", path, quiet=True)
        has_avx = re.search(r":\tv\w+ |%[yz]mm", listing) is not None
        name = path.name.partition(".")[0]
        assert has_avx == (name in ("avx2", "avx512")), path


@pytest.mark.parametrize("compiler", C_COMPILERS)
def test_header_stands_alone(compiler):
    flags = ("-x", "c", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
    run(compiler, *flags, "-fsyntax-only", CSRC / "sqs.h")


@pytest.mark.parametrize("compiler", C_COMPILERS)
def test_arithmetic_that_is_not_ieee_is_refused(compiler):
    command = [compiler, *FAST_MATH, "-I", CSRC, CSRC / "quantize" / "quantize.c"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "compile without -ffast-math" in done.stderr


CXX = """
#include "sqs.h"
int main() {
    sqs_codec codec = {49152, 100, SQS_ENTROPY, nullptr};
    sqs_dtype dtype = SQS_F16;
    sqs_isa isa = sqs_find_isa(SQS_ISA_BEST);
    sqs_rows rows = {nullptr,         dtype,          uint32_t(isa),
                     SQS_MAX_ROUND, codec.vocab_size, codec.vocab_size};
    sqs_keep keep = {64, 0};
    return keep.most == rows.dtype ||
           sqs_version_number() < SQS_VERSION_NUMBER;
}
"""


def test_the_header_compiles_as_cxx(tmp_path):
    """Without a warning, however many a caller asks for."""
    flags = ("-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
    more = ("-Wconversion", "-Wsign-conversion", "-Wold-style-cast", "-Wshadow")
    path = tmp_path / "caller.cc"
    path.write_text(CXX)
    for compiler in CXX_COMPILERS:
        run(compiler, *flags, *more, "-I", CSRC, "-fsyntax-only", path)


def test_example_covers_every_status(programs):
    assert "every status met" in run(programs / "example")


@pytest.mark.all
def test_enums_may_be_short(tmp_path):
    """As on some small machines: no number is cut to one that has a meaning."""
    program = tmp_path / "example"
    own = (ROOT / "tests" / "c" / f"{part}.c" for part in ("example", *PARTS))
    flags = "-O1", "-fshort-enums", "-I", CSRC, "-o", program
    run("cc", *own, *sorted(CSRC.rglob("*.c")), *flags)
    assert "every status met" in run(program)


@pytest.mark.parametrize("arsenal", ARSENALS)
def test_hostile_packets_on_both_limb_sizes(programs, arsenal):
    arguments = arsenal, str(PACKETS), str(SEED)
    said = run(programs / "hostile", *arguments)
    found = re.search(rf"{PACKETS} packets, (\d+) of them valid, .* findings 0", said)
    assert int(found[1]) > PACKETS // 10
    assert checksum(said) == checksum(run(programs / "hostile-limb32", *arguments))


def test_golden_vectors(programs, tmp_path):
    count = write_vectors(tmp_path / "vectors")
    assert f"{count} cases right" in run(programs / "vectors", tmp_path / "vectors")


def test_a_row_that_changes_meanwhile_overruns_nothing(programs):
    run(programs / "changing")


@pytest.mark.parametrize("isa", [*ISAS, "best"])
def test_instruction_sets_agree(programs, isa):
    command = programs / "identity", isa
    if subprocess.run([*command, "0", "0"], check=False).returncode == LACKING:
        pytest.skip(f"needs a processor with {isa}")
    assert checksum(run(*command, str(CASES), str(SEED))) == SUM


@pytest.mark.skipif(not IS_X86, reason="needs x86-64 and its MXCSR")
@pytest.mark.parametrize("control", CONTROLS.values(), ids=CONTROLS)
def test_safe_in_any_floating_point_environment(programs, control):
    """Nothing is overrun, and instruction sets agree, even if on other bytes."""
    sums = set()
    for isa in ("scalar", "best"):
        command = programs / "identity", isa, str(CASES), str(SEED)
        sums.add(checksum(run(*command, control)))
    assert len(sums) == 1


@pytest.mark.all
@pytest.mark.parametrize("compiler", C_COMPILERS)
def test_no_compiler_flags_are_needed(compiler, tmp_path):
    """Without flags that forbid it, the compiler still contracts nothing."""
    core, program = tmp_path / "core.so", tmp_path / "identity"
    flags = "-O2", "-march=native", "-I", CSRC
    run(compiler, *flags, "-shared", "-fPIC", *sorted(CSRC.rglob("*.c")), "-o", core)
    sources = [ROOT / "tests" / "c" / f"{name}.c" for name in ("identity", *PARTS)]
    run(compiler, *flags, *sources, core, "-o", program)
    for isa in ("scalar", "best"):
        assert checksum(run(program, isa, str(CASES), str(SEED))) == SUM
