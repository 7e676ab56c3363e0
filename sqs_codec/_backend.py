"""The seam between the Python API and the code that does the work.

A backend is a module with a class ``Core``. Two exist, ``_native`` (the C
core) and ``_numba``; `core_class` picks one by a stated policy:

1. ``SQS_BACKEND=native`` or ``SQS_BACKEND=numba`` decides, if set.
2. Otherwise the C core, if this installation was built with it. A C core that
   is there but fails to load is an error, never a reason to fall back.
3. Otherwise Numba, if it is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sqs_codec._keep import Keep

    Ids = NDArray[np.uint32]

WITH_NATIVE = "pip install --force-reinstall --no-deps ."
WITH_NUMBA = "pip install numba"
NO_BACKEND = f"""\
sqs_codec has nothing to run on: it was installed without its C core, and Numba is \
missing. Either command mends it:
    {WITH_NATIVE}   (in the source tree, with a C compiler)
    {WITH_NUMBA}"""


class Core(Protocol):
    """What a backend provides for one codec.

    Every method takes arguments that `Codec` has checked for type, shape and
    codec, except where a status is mentioned: those conditions are the core's
    to find. Arrays are C-contiguous; those returned are new, and `frozen` where
    they are a distribution's.
    """

    def __init__(
        self, vocab_size: int, resolution: int, coding: int, error: float
    ) -> None:
        """Take the rule's `error` if the resolution is `VARIABLE`, otherwise 0."""

    def quantize_logits(
        self,
        logits: NDArray[Any],
        temperature: float,
        keep: Keep,
        bits_per_tv: float,
        mass: bool,
    ) -> tuple[int, int, list[tuple[Ids, Ids]], list[float]]:
        """Return status, rows done, their (ids, counts) pairs and dropped masses.

        The logits are rows [B, V], or one row [V], of float16, float32 or float64, or
        of uint16, which holds bfloat16. A row is contiguous; from one to the next is
        any number of values. If the status isn't OK, the row after those done is to
        blame, and the lists hold nothing of use. No masses, and no time for them,
        unless `mass`. `bits_per_tv` is 0 or, if the coding is the entropy coding,
        a price.
        """

    def encode_logits(
        self,
        logits: NDArray[Any],
        temperature: float,
        keep: Keep,
        bits_per_tv: float,
        mass: bool,
    ) -> tuple[int, int, list[bytes], list[float]]:
        """Return status, rows done, their packets and dropped masses.

        As `quantize_logits` and `encode`; the status may be LARGE_SUPPORT.
        """

    def quantize_probs(
        self, probs: NDArray[np.floating], keep: Keep, bits_per_tv: float
    ) -> tuple[int, Ids, Ids, float]:
        """Return status (of the row), token ids, counts and dropped mass."""

    def bits(self, ids: Ids, counts: Ids) -> int:
        """Return the bits of a distribution that the coding can hold."""

    def encode(self, ids: Ids, counts: Ids) -> bytes:
        """Return the packet of a distribution that the coding can hold."""

    def decode(self, packet: bytes) -> tuple[int, Ids, Ids]:
        """Return status (of the packet), token ids and counts."""

    def encode_round(
        self,
        ids: Ids,
        counts: Ids,
        survivors: Ids,
        positions: Ids,
        memory: Ids | None = None,
    ) -> bytes:
        """Return the packet of distributions given one after the other.

        A memory, `MEMORY_WORDS` numbers that are 0 to begin with, is updated.
        """

    def decode_round(
        self, packet: bytes, memory: Ids | None = None
    ) -> tuple[int, Ids, Ids, Ids, Ids]:
        """Return status (of the packet), and what `encode_round` takes.

        A memory is updated if the status is OK; otherwise the arrays are empty.
        """

    def encode_tokens(self, tokens: Ids, counts: Ids, resolutions: Ids) -> bytes:
        """Return the packet of drafted tokens and their counts."""

    def decode_tokens(self, packet: bytes) -> tuple[int, Ids, Ids, Ids]:
        """Return status (of the packet), tokens, counts and resolutions."""

    def verify(
        self,
        ids: Ids,
        counts: Ids,
        survivors: Ids,
        positions: Ids,
        target: NDArray[np.floating],
        draws: NDArray[np.float64],
    ) -> tuple[int, int, int, int]:
        """Return status, rows checked, accepted tokens and the next token.

        A round as `encode_round` takes it, rows [L+1, V] of float32 or float64 (see
        `quantize_logits`) and L+1 numbers from [0, 1). The resolutions are the sums
        of counts, whatever the codec's.
        """


def frozen(array: Ids) -> Ids:
    """Return a copy that can't be made writeable, as it is a view of bytes."""
    return np.frombuffer(array.tobytes(), np.uint32)


def _choose() -> str:
    name = os.environ.get("SQS_BACKEND", "")
    if name not in ("", "native", "numba"):
        raise ImportError(f"SQS_BACKEND must be 'native' or 'numba', not {name!r}")
    native = importlib.util.find_spec("sqs_codec._core") is not None
    numba = importlib.util.find_spec("numba") is not None
    if name == "native" and not native:
        raise ImportError(
            "SQS_BACKEND=native, but this installation was built without the C core; "
            f"in the source tree, with a C compiler: {WITH_NATIVE}"
        )
    if name == "numba" and not numba:
        raise ImportError(f"SQS_BACKEND=numba, but Numba is missing: {WITH_NUMBA}")
    if not name and not native and not numba:
        raise ImportError(NO_BACKEND)
    name = name or ("native" if native else "numba")
    if name == "native":
        importlib.import_module("sqs_codec._native")  # if it is broken, say so now
    return name


_NAME = _choose()


def backend() -> str:
    """Return what does the work: ``"native"`` (the C core) or ``"numba"``.

    The environment variable ``SQS_BACKEND`` chooses, before the first import.
    """
    return _NAME


def isa() -> str | None:
    """Return the instruction set that the C core's passes over rows use.

    ``"scalar"``, ``"avx2"``, ``"avx512"`` or ``"neon"``: the fastest that the
    machine has, or what the environment variable ``SQS_ISA`` chooses, before the
    first import. All give the same results. None if Numba does the work.
    """
    if _NAME != "native":
        return None
    from sqs_codec._native import isa_name

    return isa_name()


def core_class() -> type[Core]:
    """Return the chosen backend's ``Core``."""
    if _NAME == "native":
        from sqs_codec._native import Core as NativeCore

        return NativeCore
    from sqs_codec._numba import Core as NumbaCore

    return NumbaCore
