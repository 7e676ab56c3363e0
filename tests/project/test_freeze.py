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
FORMAT = Path("tests", "frozen", f"format-{sqs.__format_version__}.sha256")
PRIORS = Path("tests", "frozen", "priors.sha256")

ADVICE = {
    FORMAT: f"""\
format version {sqs.__format_version__} is frozen once a release has it.
- Has none yet, and is the change meant? Then renew its file, and say why in the commit.
- Do packets that exist mean something else now, or not decode any more? Undo that. Or
  raise SQS_FORMAT_VERSION in csrc/sqs.h and sqs_codec/_base/format.py, say in
  docs/format.md and CHANGELOG.md what changed, and give the new version a file in
  tests/frozen.
- Were cases only added, and shows `git diff` none removed? Then renew its file.""",
    PRIORS: """\
built-in priors are frozen: an edge and a cloud of two releases would no longer agree.
- Give the new prior a name of its own, and add it.""",
}


def digest(path):
    """Return the SHA-256 digest, for any line endings that git wrote."""
    data = path.read_bytes()
    if path.suffix == ".json":
        data = data.replace(b"\r\n", b"\n")
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("path", "pattern"),
    [(FORMAT, "tests/vectors/*.json"), (PRIORS, "sqs_codec/priors/*.sqsprior")],
    ids=["vectors", "priors"],
)
def test_every_file_is_frozen_and_unchanged(path, pattern):
    assert (ROOT / path).exists(), f"{path} is missing: {ADVICE[path]}"
    lines = (ROOT / path).read_text().splitlines()  # as `sha256sum` writes them
    frozen = {name: digest for digest, name in map(str.split, lines)}
    changed = " ".join(n for n, d in frozen.items() if digest(ROOT / n) != d)
    assert not changed, (
        f"{changed} changed, but {ADVICE[path]}\n"
        f"Write {path} by: sha256sum {' '.join(frozen)} > {path}"
    )
    found = {file.relative_to(ROOT).as_posix() for file in ROOT.glob(pattern)}
    assert found
    assert found <= frozen.keys()
