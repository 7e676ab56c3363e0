"""Numba's cache, and runs without any compilation."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sqs_codec
from tests.backend.test_backend import ROUND_TRIP

pytest.importorskip("numba")

# Functions that compile within a second, and some of what they are compiled from is in
# other modules than they are.

LOG2_OF_3 = """
from sqs_codec._backend.numba import fixed

print(fixed.log2(3))
"""

POSITION = """
import numpy as np
from sqs_codec._backend.numba import fields

print(*map(int, fields.get_position(np.array([0x50], np.uint8), 0, 8)))
"""

SUM = """
import numpy as np
from sqs_codec._backend.numba import verify

print(*map(float, verify.check_row(np.full(2, 0.4), np.empty(1))))
"""

BLOCK = """
import numba
import numpy as np
from sqs_codec._backend.numba import prior

print(numba.njit(lambda array: prior.block_below(array, 0, 0))(np.arange(600)))
"""


@pytest.fixture
def copy(tmp_path):
    """A copy of the package without a cache, used by no other process."""
    source = Path(sqs_codec.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
    shutil.copytree(source, tmp_path / "sqs_codec", ignore=ignored)
    return tmp_path


def run(code, where=None, **environ):
    """Run code in a new process that imports the package from there."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    if where is not None:
        kept["PYTHONPATH"] = str(where)
    command = [sys.executable, "-W", "error", "-c", code]
    env = kept | {"SQS_BACKEND": "numba"} | environ
    done = subprocess.run(command, env=env, cwd=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def output(code, where=None, **environ):
    return run(code, where, **environ).stdout.strip()


def change(where, module, old, new):
    """Replace a piece of a module's text that occurs exactly once."""
    file = where / "sqs_codec" / module
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


def cached(where):
    """Files of Numba's caches below there, and when they were written."""
    return {file: file.stat().st_mtime_ns for file in where.rglob("*.nbi")}


def test_cache_outlives_the_process(copy):
    # Neither the package's nor any module's.
    own = "import numba; exec('f = lambda x: x', d := {}); numba.njit(d['f'])(1)"
    first = run(LOG2_OF_3 + own, copy)
    said = "Numba compiles sqs_codec for this machine: half a minute, once\n"
    assert first.stderr == said
    files = cached(copy)
    assert files
    again = run(LOG2_OF_3 + own, copy)
    assert again.stdout == first.stdout
    assert again.stderr == ""
    assert cached(copy) == files


FURTHER = [
    (LOG2_OF_3, "_backend/numba/model.py", "LOG_UNIT = 32", "LOG_UNIT = 31"),
    (BLOCK, "_base/prior_file.py", "\nKINDS = 256", "\nKINDS = 128"),
]


@pytest.mark.parametrize(
    ("code", "module", "old", "new"),
    [
        (POSITION, "_backend/numba/bits.py", "value << 1 |", "value << 2 |"),
        (SUM, "_base/format.py", "SUM_TOLERANCE = 1e-3", "SUM_TOLERANCE = 1"),
        *(pytest.param(*change, marks=pytest.mark.all) for change in FURTHER),
    ],
    ids=["function", "limit", "table", "layout"],
)
def test_changed_constants_invalidate_the_cache(copy, code, module, old, new):
    before = output(code, copy)
    change(copy, module, old, new)
    after = output(code, copy)
    assert after != before
    assert after == output(code, copy, NUMBA_DISABLE_JIT="1")


def test_a_read_only_installation(copy):
    file = copy / "sqs_codec" / "_backend" / "numba" / "__pycache__"
    file.touch()  # where Numba would make a folder
    home = copy / "home"
    environ = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    output(LOG2_OF_3, copy, **environ)
    assert cached(home)
    with pytest.raises(AssertionError, match=r"ImportError: .*set NUMBA_CACHE_DIR"):
        run(LOG2_OF_3, copy, HOME=str(file), XDG_CACHE_HOME=str(file))


def test_without_compiling():
    output(ROUND_TRIP, NUMBA_DISABLE_JIT="1")
