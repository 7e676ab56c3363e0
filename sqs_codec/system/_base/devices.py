"""Where a model runs and what it computes in, by the names that users give."""

from __future__ import annotations

__all__ = ["DEVICES", "DTYPES"]

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16", "float16")
