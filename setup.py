"""Declares the C extension and reads the version; the rest is in pyproject.toml."""

import os
import re
from pathlib import Path

from setuptools import setup

HEADER = Path(__file__).parent / "csrc" / "sqs.h"

native = not os.environ.get("SQS_NO_NATIVE")


def version() -> str:
    """Return what sqs.h says, which is the only place of the version."""
    found = re.search(r'^#define SQS_VERSION "(.+)"$', HEADER.read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{HEADER} has no SQS_VERSION")
    return found[1]


setup(
    version=version(),
    cffi_modules=["bindings/build.py:ffi"] if native else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if native else {},
)
