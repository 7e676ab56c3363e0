"""A decoder in another language, written only from ``docs/format.md``."""

import shutil
import subprocess
from pathlib import Path

import pytest

FOREIGN = Path(__file__).parent / "foreign"


@pytest.mark.all
@pytest.mark.skipif(not shutil.which("node"), reason="needs Node.js, 20.15 or later")
def test_decodes_all_vectors():
    run = subprocess.run(
        ["node", FOREIGN / "check.mjs"], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stdout + run.stderr
