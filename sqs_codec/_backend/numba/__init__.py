"""The Numba backend: the core for where there is no C compiler and no wheel.

Its modules are named as the stages of ``csrc`` are, function for function, and
explain only what is different; the reasons are there.
"""

from __future__ import annotations

from sqs_codec._backend.numba.api import Core

__all__ = ["Core"]
