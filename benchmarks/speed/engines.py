"""All that can do a codec's work in one process: Numba, and C by instruction set."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqs_codec as sqs
from sqs_codec._format import Coding

NAMES = {"scalar": "scalar", "avx2": "AVX2", "avx512": "AVX-512", "neon": "NEON"}
NUMBA = "Numba"


@dataclass(frozen=True)
class Engine:
    """A backend, or one instruction set of it.

    Attributes
    ----------
    name : str
        For people.
    core : callable
        Makes a `sqs_codec._backend.Core`.
    """

    name: str
    core: Callable[..., Any]

    def codec(
        self, vocab_size: int, resolution: int = 100, coding: str = "entropy"
    ) -> sqs.Codec:
        """Return a codec that runs on this."""
        codec = sqs.Codec(vocab_size, resolution, coding)
        core = self.core(vocab_size, resolution, Coding[coding.upper()], 0.0)
        codec.__dict__["_core"] = core  # what the cached property would have made
        return codec


def engines() -> list[Engine]:
    """Return what this machine and installation have, the fastest first."""
    found = []
    if importlib.util.find_spec("sqs_codec._core") is not None:
        from sqs_codec._native import ISAS
        from sqs_codec._native import Core as Native

        for name, isa in ISAS.items():
            if _runs(isa):
                found.append(Engine(NAMES[name], _with_isa(Native, isa)))
    found.reverse()
    from sqs_codec._numba import Core as Numba

    return [*found, Engine(NUMBA, Numba)]


def _runs(isa: int) -> bool:
    from sqs_codec._core import lib

    return bool(lib.sqs_find_isa(isa))


def _with_isa(core: Callable[..., Any], isa: int) -> Callable[..., Any]:
    def make(*arguments: Any) -> Any:
        return core(*arguments, isa=isa)

    return make
