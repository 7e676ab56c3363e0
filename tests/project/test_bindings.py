"""The core's files for other languages; `make bindings` tries every compiler."""

import re
import shutil
import sys

import pytest

from bindings.check import BINDINGS, ROOT, cmake, run

HEADER = (ROOT / "csrc" / "sqs.h").read_text()


@pytest.fixture(scope="module")
def amalgamation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("amalgamation")
    run(sys.executable, BINDINGS / "amalgamate.py", folder)
    warnings = "-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror"
    object_file = "-o", folder / "sqs.o"
    run("cc", "-std=c11", *warnings, "-c", folder / "sqs.c", *object_file)
    return folder


@pytest.mark.all
def test_the_example_needs_one_file(amalgamation):
    files = BINDINGS / "c" / "example.c", amalgamation / "sqs.o"
    where = "-I", amalgamation, "-o", amalgamation / "example"
    run("cc", "-std=c11", *files, *where)
    assert "tokens accepted" in run(amalgamation / "example")


@pytest.mark.all
@pytest.mark.skipif(
    not (shutil.which("cmake") and shutil.which("c++")), reason="needs CMake and C++"
)
def test_cmake_package(tmp_path):
    cmake(tmp_path, "-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_INSTALL_LIBDIR=lib")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("bindings/rust/Cargo.toml", r'^version = "(.+)"$'),
        ("bindings/rust/Cargo.lock", r'^name = "sqs"\nversion = "(.+)"$'),
        ("CHANGELOG.md", r"^## ([\d.]+) \("),
        ("CITATION.cff", r"^version: (.+)$"),
    ],
)
def test_the_version_matches_the_header(name, line):
    version = re.findall(r"^#define SQS_VERSION_[A-Z]+ (\d+)$", HEADER, re.MULTILINE)
    text = (ROOT / name).read_text("utf-8")
    assert re.search(line, text, re.MULTILINE)[1] == ".".join(version)
