"""A decoder in another language, written only from ``docs/format.md``."""

import shutil
from pathlib import Path

import pytest

from tests.project.release import run

FOREIGN = Path(__file__).parent / "foreign"


@pytest.mark.all
@pytest.mark.skipif(not shutil.which("node"), reason="needs Node.js, 20.15 or later")
def test_decodes_all_vectors():
    run("node", FOREIGN / "check.mjs")
