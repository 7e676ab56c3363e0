"""Builds ``sqs_codec._backend._sqs`` from ``csrc`` (cffi, API mode)."""

from __future__ import annotations

import sys
from pathlib import Path

import cffi

CSRC = Path("csrc")  # setuptools wants paths relative to setup.py

# Contraction of a*b + c would make counts depend on the compiler.
GCC = [  # also for clang, and for Zig, which builds Windows wheels on Linux
    "-std=c11",
    "-O2",
    "-ffp-contract=off",
    "-fvisibility=hidden",  # Python looks up PyInit only, which stays visible
    "-g0",  # with Python's default -g, the core is six times as large
]
MSVC = ["/std:c11", "/fp:precise"]  # Python's compiler on Windows

ffi = cffi.FFI()
ffi.cdef((Path(__file__).parent / "sqs.cdef").read_text())
ffi.set_source(
    "sqs_codec._backend._sqs",
    '#include "sqs.h"',
    sources=sorted(str(path) for path in CSRC.rglob("*.c")),
    depends=sorted(str(path) for path in CSRC.rglob("*.h")),
    include_dirs=[str(CSRC)],
    extra_compile_args=MSVC if sys.platform == "win32" else GCC,
    py_limited_api=True,
)
