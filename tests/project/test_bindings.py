"""The versions of all bindings; `make bindings` builds and runs them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEADER = (ROOT / "csrc" / "sqs.h").read_text()


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
