"""Numba's cache, and runs without any compilation."""

import shutil
from pathlib import Path

import pytest

import sqs_codec
from tests.backend.test_backend import ROUND_TRIP, import_error, output, python

pytest.importorskip("numba")

NUMBA = {"SQS_BACKEND": "numba"}

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


@pytest.fixture
def copy(tmp_path):
    """A copy of the package without a cache, used by no other process."""
    source = Path(sqs_codec.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
    shutil.copytree(source, tmp_path / "sqs_codec", ignore=ignored)
    return tmp_path


def cached(where):
    """Files of Numba's caches below there, and when they were written."""
    return {file: file.stat().st_mtime_ns for file in where.rglob("*.nbi")}


def test_cache_outlives_the_process(copy):
    # Neither the package's nor any module's.
    own = "import numba; exec('f = lambda x: x', d := {}); numba.njit(d['f'])(1)"
    first = python(LOG2_OF_3 + own, copy, **NUMBA)
    said = "Numba compiles sqs_codec for this machine: half a minute, once\n"
    assert first.stderr == said
    files = cached(copy)
    assert files
    again = python(LOG2_OF_3 + own, copy, **NUMBA)
    assert again.stdout == first.stdout
    assert again.stderr == ""
    assert cached(copy) == files


@pytest.mark.parametrize(
    ("code", "module", "old", "new"),
    [
        (POSITION, "_backend/numba/bits.py", "value << 1 |", "value << 2 |"),
        (SUM, "_base/format.py", "SUM_TOLERANCE = 1e-3", "SUM_TOLERANCE = 1"),
    ],
    ids=["function", "limit"],
)
def test_changed_constants_invalidate_the_cache(copy, code, module, old, new):
    before = output(code, copy, **NUMBA)
    file = copy / "sqs_codec" / module
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    after = output(code, copy, **NUMBA)
    assert after != before
    assert after == output(code, copy, **NUMBA, NUMBA_DISABLE_JIT="1")


def test_a_read_only_installation(copy):
    file = copy / "sqs_codec" / "_backend" / "numba" / "__pycache__"
    file.touch()  # where Numba would make a folder
    home = copy / "home"
    cache = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    output(LOG2_OF_3, copy, **NUMBA, **cache)
    assert cached(home)
    cache = dict.fromkeys(cache, str(file))
    message = import_error(LOG2_OF_3, copy, **NUMBA, **cache)
    assert "set NUMBA_CACHE_DIR" in message


def test_without_compiling():
    output(ROUND_TRIP, **NUMBA, NUMBA_DISABLE_JIT="1")
