"""Declares the C extension; everything else is in pyproject.toml."""

import os

from setuptools import setup

native = not os.environ.get("SQS_NO_NATIVE")

setup(
    cffi_modules=["bindings/build.py:ffi"] if native else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if native else {},
)
