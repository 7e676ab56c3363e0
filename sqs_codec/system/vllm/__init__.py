"""Models inside vLLM (the extra ``[vllm]``): `VllmEngine`, `ModelReader`.

The first is a verifier, the second a reader for `sqs_codec.distill`. vLLM is imported
only when one of them is opened. ``docs/serving/vllm.md`` explains how they work.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqs_codec.system.vllm._engine import VllmEngine
    from sqs_codec.system.vllm._reader import ModelReader

__all__ = ["ModelReader", "VllmEngine"]

_MODULES = {"ModelReader": "_reader", "VllmEngine": "_engine"}


if not TYPE_CHECKING:  # type checkers would accept any misspelled name

    def __getattr__(name):
        """Import on demand, as vLLM loads this package in each of its processes."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
