"""How large the project may be: `ledger.md` has a limit for each of these numbers."""

import re
from pathlib import Path

import pytest

from tests.project.public import names

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (.+?) \| ([\d ]+) \| .+ \|$", re.MULTILINE)
LEDGER = Path(__file__).with_name("ledger.md").read_text("utf-8")
LIMITS = {what: int(most.replace(" ", "")) for what, most in ROW.findall(LEDGER)}


def read(folder, *endings):
    """Yield the path and text of each file in a folder that ends like this."""
    for path in (ROOT / folder).rglob("*"):
        if path.suffix in endings:
            yield path.relative_to(ROOT).as_posix(), path.read_text("utf-8")


def lines(folder, *endings):
    return sum(len(text.splitlines()) for _, text in read(folder, *endings))


def sizes():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    extras = project.split("[project.optional-dependencies]")[1].split("\n[")[0]
    return {
        "lines of the package": lines("sqs_codec", ".py"),
        "lines of csrc": lines("csrc", ".c", ".h"),
        "lines of benchmarks": lines("benchmarks", ".py"),
        "lines of tests": lines("tests", ".py"),
        "words of docs": sum(len(text.split()) for _, text in read("docs", ".md")),
        "public names": sum(map(len, names().values())),
        "extras": len(re.findall(r"^[\w-]+ = \[", extras, re.MULTILINE)),
        "environments": len({*re.findall(r"\.venv(?:-\w+)?\b", makefile)}),
        "make targets": len(re.findall(r"^[\w-]+:.*?## ", makefile, re.MULTILINE)),
    }


@pytest.mark.parametrize(("what", "size"), sizes().items())
def test_nothing_grows_without_a_reason(what, size):
    advice = "remove something, or raise it there and say why"
    assert size <= LIMITS[what], f"ledger.md allows {LIMITS[what]} {what}: {advice}"
