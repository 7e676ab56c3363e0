"""The frozen format: once released, bytes change only together with its version.

`tests/frozen/format-N.sha256` is what an implementation of version N is held to. Until
a release has that version, the file shows that bytes don't change unnoticed.
docs/format.md isn't in it, as it may be said better; the vectors hold it to its rules.
"""

import hashlib
from pathlib import Path

import pytest

import sqs_codec as sqs

ROOT = Path(__file__).parents[2]
ADVICE = """\
CONTRIBUTING.md says what a change of the format takes. A prior never changes: give the
new one a name of its own, or an edge and a cloud of two releases no longer agree.
Write {0} by: sha256sum {1} > {0}"""


def digest(path):
    """Return the SHA-256 digest, for any line endings that git wrote."""
    data = path.read_bytes()
    if path.suffix == ".json":
        data = data.replace(b"\r\n", b"\n")
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        (f"format-{sqs.__format_version__}", "tests/vectors/*.json"),
        ("priors", "sqs_codec/priors/*.sqsprior"),
    ],
)
def test_every_file_is_frozen_and_unchanged(name, pattern):
    path = f"tests/frozen/{name}.sha256"
    lines = (ROOT / path).read_text().splitlines()  # as `sha256sum` writes them
    frozen = {name: digest for digest, name in map(str.split, lines)}
    changed = " ".join(n for n, d in frozen.items() if digest(ROOT / n) != d)
    assert not changed, f"{changed}: {ADVICE.format(path, ' '.join(frozen))}"
    found = {file.relative_to(ROOT).as_posix() for file in ROOT.glob(pattern)}
    assert found
    assert found <= frozen.keys()
