"""The choice of a backend, and the message if none can run."""

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import pytest

import sqs_codec

ROUND_TRIP = """
import numpy as np
import sqs_codec as sqs
codec = sqs.Codec(vocab_size=1000)
q = codec.quantize(np.arange(1000) % 19.0, sqs.TopK(20), temperature=0.7)
assert codec.decode(codec.encode(q)) == q
print(sqs.backend())
"""
IMPORT = "import sqs_codec; print(sqs_codec.backend())"

# An entry of None makes a module look as if it were not installed.
NO_NATIVE = "import sys; sys.modules['sqs_codec._backend._sqs'] = None\n"
NO_NUMBA = "import sys; sys.modules['numba'] = None\n"

ROOT = Path(sqs_codec.__file__).parents[1]
BUILD = f'pip install -e "{ROOT}"'  # a source tree
REBUILD = "pip install --force-reinstall --no-deps ."  # what isn't one
ADD_NUMBA = "pip install numba"


def python(code, installed=None, **env):
    """Run code in an interpreter of its own; a backend and Numba's options are given.

    With `installed`, sqs_codec comes from that folder and from nowhere else: -S
    keeps out the finder of an editable install, which would add what is missing.
    """
    options = ["-W", "error", "-c", code]
    ours = "SQS_BACKEND", "NUMBA_"
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    if installed:
        options.insert(0, "-S")
        packages = sysconfig.get_path("platlib")
        inherited["PYTHONPATH"] = os.pathsep.join([str(installed), packages])
    return subprocess.run(
        [sys.executable, *options],
        cwd=sys.prefix,  # -c looks there first: not in the source tree
        env=inherited | env,
        capture_output=True,
        text=True,
    )


def output(code, installed=None, **env):
    done = python(code, installed, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def import_error(code, installed=None, **env):
    """Return what is said by code that must fail with an ImportError."""
    done = python(code, installed, **env)
    assert done.returncode == 1
    _, found, message = done.stderr.rpartition("\nImportError: ")
    assert found, done.stderr
    return message


NUMBA_LATER = "import os; os.environ['SQS_BACKEND'] = 'numba'\n"


@pytest.mark.parametrize(
    ("code", "asked", "chosen"),
    [
        (ROUND_TRIP, {}, "native"),
        (ROUND_TRIP, {"SQS_BACKEND": ""}, "native"),
        (ROUND_TRIP, {"SQS_BACKEND": "native"}, "native"),
        (ROUND_TRIP, {"SQS_BACKEND": "numba"}, "numba"),
        (NO_NATIVE + ROUND_TRIP, {}, "numba"),
        (NO_NUMBA + ROUND_TRIP, {}, "native"),
        (f"{IMPORT}\n{NUMBA_LATER}{IMPORT}", {}, "native\nnative"),
    ],
)
def test_a_backend_is_chosen_at_the_first_import(code, asked, chosen):
    assert output(code, **asked) == chosen


@pytest.mark.parametrize(
    ("code", "asked", "words"),
    [
        (IMPORT, "cuda", ["'native' or 'numba', not 'cuda'"]),
        (NO_NATIVE + IMPORT, "native", [f"core of the source tree in {ROOT}", BUILD]),
        (NO_NUMBA + IMPORT, "numba", [ADD_NUMBA]),
        (NO_NATIVE + NO_NUMBA + IMPORT, "", ["has no backend", BUILD, ADD_NUMBA]),
    ],
)
def test_a_backend_that_is_missing_is_named(code, asked, words):
    message = import_error(code, SQS_BACKEND=asked)
    assert [part for part in words if part not in message] == []


def test_source_tree_that_hides_the_installed_package(tmp_path):
    """As after `pip install .` in a clone, where Python looks into the clone first."""
    clone, installed = tmp_path / "a clone", tmp_path / "site-packages"
    ignored = shutil.ignore_patterns("__pycache__", "_sqs.*")
    shutil.copytree(ROOT / "sqs_codec", clone / "sqs_codec", ignore=ignored)
    (clone / "csrc").mkdir()
    (clone / "setup.py").touch()
    shutil.copytree(ROOT / "sqs_codec", installed / "sqs_codec")
    (installed / "sqs_codec-0.dist-info").mkdir()
    (installed / "sqs_codec-0.dist-info" / "METADATA").write_text("Name: sqs-codec\n")
    both = f"{clone}{os.pathsep}{installed}"
    message = import_error(NO_NUMBA + IMPORT, both)
    assert f"{clone} hides the installed package in {installed}" in message
    assert "Leave that tree" in message
    assert f'pip install -e "{clone}"' in message
    assert output(ROUND_TRIP, installed) == "native"
    shutil.rmtree(installed)
    if not any(ROOT.glob("sqs_codec-*.dist-info")):  # which the clone would hide, too
        message = import_error(NO_NUMBA + IMPORT, both)
        assert f"the C core of the source tree in {clone} isn't built" in message


def test_version_is_looked_up_only_when_asked_for():
    code = "import sys, sqs_codec as sqs; print('importlib.metadata' in sys.modules)"
    assert output(code).split() == ["False"]
    assert sqs_codec.__version__ == version("sqs-codec")
    with pytest.raises(AttributeError, match="has no attribute 'codec'"):
        _ = sqs_codec.codec


def test_import_pulls_in_numpy_and_cffi_only():
    before = "import sys; before = set(sys.modules)\n"
    after = "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    found = set(output(before + ROUND_TRIP + after).split())
    assert {"sqs_codec", "numpy", "_cffi_backend"} <= found
    allowed = {"sqs_codec", "numpy", "cffi", "_cffi_backend", "native"}
    assert found - allowed - sys.stdlib_module_names == set()
