"""How the Numba backend compiles and caches its functions.

Numba takes a function from its cache as long as the function's own file is unchanged.
The compiled code also depends on other files: functions that it calls, tables and
limits. So each function's name, which names its files in the cache, ends with a digest
of these modules.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numba
import numpy as np
from numba.core import event


def _digest() -> str:
    """Return a digest of what is compiled: this folder, ``_base`` and the seam."""
    package = files("sqs_codec")
    folders = [package / "_base", package / "_backend", package / "_backend" / "numba"]
    sources = [file for folder in folders for file in folder.iterdir()]
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(sources, key=str):
        if file.name.endswith(".py"):
            digest.update(hashlib.blake2b(file.read_bytes()).digest())
    return digest.hexdigest()


DIGEST = _digest()


class _Notice(event.Listener):
    """Logs once that functions are being compiled rather than loaded."""

    def on_start(self, event: Any) -> None:
        module = event.data["dispatcher"].py_func.__module__ or ""
        if module.startswith(f"{__package__}.") and not self._given:
            self._given = True
            logging.getLogger("sqs_codec").warning(
                "Numba compiles sqs_codec for this machine: half a minute, once"
            )

    def on_end(self, event: Any) -> None:
        """Do nothing."""

    _given = False


event.register("numba:compile", _Notice())


def _compiled(**options: Any) -> Any:
    """Return a decorator that compiles with these options of `numba.njit`."""
    # Debuggers and coverage ask for this with NUMBA_DISABLE_JIT=1.
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]  # set on import
        # NumPy's scalars may overflow without a warning, as compiled ones do.
        return np.errstate(all="ignore")

    def compile_(function: Callable[..., Any]) -> Any:
        function.__qualname__ += f"-{DIGEST}"
        try:
            return numba.njit(**options)(function)
        except RuntimeError as error:  # neither here nor at home can be written
            raise ImportError(
                "Numba has no writable cache folder: set NUMBA_CACHE_DIR to one"
            ) from error

    return compile_


# No fastmath: its reassociation and contraction would change the counts.
_ENTRY: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "no_cfunc_wrapper": True,  # for C, which calls none of these
}
_INNER = _ENTRY | {"no_cpython_wrapper": True}

entry: Any = _compiled(**_ENTRY)
"""For functions that Python calls."""

jit: Any = _compiled(**_INNER)
"""For functions that only compiled functions call: unpacking Python's objects takes a
third of the time that a function compiles."""

leaf: Any = _compiled(**_INNER, _nrt=False)
"""For functions that neither make nor return an array: counting references takes longer
than the work of most of them."""

part: Any = _compiled(**_INNER, inline="always")
"""For functions that one or two others call, which compile sooner with them in."""

inlined: Any = _compiled(**_INNER, _nrt=False, forceinline=True)
"""For leaves that take less time than a call that hands over their arrays."""
