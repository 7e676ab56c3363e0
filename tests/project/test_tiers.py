"""The files that `make quick` tests; they need none of the heavy packages."""

import re
import sys

from tests.project.release import run

QUICK = """
backend/backend backend/identity backend/isa backend/reference backend/vectors
base/files base/threads codec/batch codec/drafter codec/fit codec/gumbel codec/hostile
codec/interrupts codec/lists codec/lossless codec/many codec/prior codec/quantize
codec/refusals codec/round_trip codec/rows codec/size codec/unbiased codec/verify
project/freeze bits theory
"""

COLLECT = """
import sys

for name in ("torch", "transformers", "tokenizers", "grpc", "starlette", "pyarrow"):
    sys.modules[name] = None

import pytest

options = ["--quick", "--collect-only", "-qq", "-p", "no:cacheprovider"]
sys.exit(pytest.main([*options, "tests", "sqs_codec"]))
"""


def test_quick_tests_are_the_tests_of_the_codec():
    said = run(sys.executable, "-c", COLLECT)
    found = re.findall(r"^tests/(?:(\w+)/)?test_(\w+)\.py: ", said, re.MULTILINE)
    assert sorted("/".join(filter(None, name)) for name in found) == sorted(
        QUICK.split()
    )
