"""`make quick` needs none of the heavy packages."""

import subprocess
import sys

COLLECT = """
import sys

for name in ("torch", "transformers", "tokenizers", "grpc", "starlette", "pyarrow"):
    sys.modules[name] = None

import pytest

options = ["--quick", "--collect-only", "-qq", "-p", "no:cacheprovider"]
sys.exit(pytest.main([*options, "tests", "sqs_codec"]))
"""


def test_quick_tests_need_no_heavy_package():
    command = [sys.executable, "-c", COLLECT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
