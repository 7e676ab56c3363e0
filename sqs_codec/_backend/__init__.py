"""The choice of a backend.

A backend is a module with a class ``Core`` (see `sqs_codec._backend.core`). Two
exist, ``native`` (the C core) and ``numba``; `core_class` picks one by a stated
policy:

1. ``SQS_BACKEND=native`` or ``SQS_BACKEND=numba`` decides, if set.
2. Otherwise the C core, if this installation was built with it. A C core that
   is there but fails to load is an error, never a reason to fall back.
3. Otherwise Numba, if it is installed.
"""

import importlib
import importlib.util
import os
from functools import lru_cache
from pathlib import Path
from typing import cast, get_args

from sqs_codec._backend.core import BackendName, Core, IsaName, frozen
from sqs_codec._base.format import Coding

__all__ = ["backend", "core_class", "frozen", "isa", "rounder"]

FOLDER = Path(__file__).resolve().parents[2]
"""The folder that the package was imported from."""

WITH_NATIVE = "pip install --force-reinstall --no-deps ."
WITH_NUMBA = "pip install numba"


def _why_not_native() -> str:
    """Return why there is no C core, and how to get one."""
    if not ((FOLDER / "setup.py").exists() and (FOLDER / "csrc").exists()):
        return (
            "this installation was built without the C core. In the source tree, with "
            f"a C compiler:\n    {WITH_NATIVE}"
        )
    from importlib.metadata import distributions  # slow and rarely needed

    in_place = f'pip install -e "{FOLDER}"'
    for installed in distributions(name="sqs-codec"):
        folder = Path(str(installed.locate_file(""))).resolve()
        core = folder / "sqs_codec" / "_backend"
        if any(core.glob("_sqs.*")) and folder != FOLDER:
            return (
                f"the source tree in {FOLDER} hides the installed package in {folder}, "
                "which has the C core. Leave that tree (and take it off PYTHONPATH), "
                f"or have it built in place:\n    {in_place}"
            )
    return (
        f"the C core of the source tree in {FOLDER} isn't built. With a C compiler:\n"
        f"    {in_place}"
    )


def _choose(name: str) -> BackendName:
    """Return the named backend, or by default the first that is available."""
    if name and name not in get_args(BackendName):
        raise ImportError(f"SQS_BACKEND must be 'native' or 'numba', not {name!r}")
    native = importlib.util.find_spec("sqs_codec._backend._sqs") is not None
    numba = importlib.util.find_spec("numba") is not None
    if name == "native" and not native:
        raise ImportError(f"SQS_BACKEND=native, but {_why_not_native()}")
    if name == "numba" and not numba:
        raise ImportError(f"SQS_BACKEND=numba, but Numba is missing: {WITH_NUMBA}")
    if not name and not native and not numba:
        raise ImportError(
            f"sqs_codec has no backend: {_why_not_native()}\n"
            f"Or, without the C core:\n    {WITH_NUMBA}"
        )
    name = name or ("native" if native else "numba")
    if name == "native":
        importlib.import_module("sqs_codec._backend.native")  # fails here if broken
    return cast(BackendName, name)


_name = _choose(os.environ.get("SQS_BACKEND", ""))


def backend() -> BackendName:
    """Return the backend in use: ``"native"`` (the C core) or ``"numba"``.

    To choose one, set the environment variable ``SQS_BACKEND`` before the first import.
    """
    return _name


def isa() -> IsaName | None:
    """Return the instruction set that the C core uses for rows, None with Numba.

    ``"scalar"``, ``"avx2"``, ``"avx512"`` or ``"neon"``: the fastest one of this
    machine, unless the environment variable ``SQS_ISA`` chooses another before the
    first import. All give the same results.
    """
    if _name != "native":
        return None
    from sqs_codec._backend.native import ISA_NAME

    return ISA_NAME


def rounder(width: int, resolution: int) -> Core:
    """Return a core that rounds rows of `width` chosen tokens."""
    return _rounder(_name, width, resolution)


@lru_cache(maxsize=64)
def _rounder(name: str, width: int, resolution: int) -> Core:
    return _core_class(name)(width, resolution, Coding.BITPACK, None)


def core_class() -> type[Core]:
    return _core_class(_name)


@lru_cache
def _core_class(name: str) -> type[Core]:
    chosen: type[Core] = importlib.import_module(f"sqs_codec._backend.{name}").Core
    return chosen
