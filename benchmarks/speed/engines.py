"""All backends in one process: C with each instruction set, and Numba."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqs_codec as sqs
from sqs_codec._base.format import Coding

NAMES = {"scalar": "scalar", "avx2": "AVX2", "avx512": "AVX-512", "neon": "NEON"}
NUMBA = "Numba"


@dataclass(frozen=True)
class Engine:
    """A backend, or one instruction set of it."""

    name: str
    """The displayed name."""
    core: Callable[..., Any]
    """Makes a `sqs_codec._backend.core.Core`."""

    def codec(
        self, vocab_size: int, resolution: int = 100, coding: str = "entropy"
    ) -> sqs.Codec:
        """Return a codec that uses this backend."""
        codec = sqs.Codec(vocab_size, resolution, coding)
        core = self.core(vocab_size, resolution, Coding[coding.upper()], None)
        codec.__dict__["_core"] = core
        return codec


def engines() -> list[Engine]:
    """Return the available backends, the fastest first."""
    found = []
    if importlib.util.find_spec("sqs_codec._backend._sqs") is not None:
        from sqs_codec._backend import native

        found = [
            Engine(NAMES[name], partial(native.Core, isa=isa))
            for name, isa in native.ISAS.items()
            if native.lib.sqs_find_isa(isa)  # type: ignore[attr-defined]  # cffi's
        ]
    from sqs_codec._backend.numba import Core as Numba

    return [*reversed(found), Engine(NUMBA, Numba)]
