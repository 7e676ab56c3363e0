"""How the Numba backend compiles its functions."""

from __future__ import annotations

from typing import Any

import numba

# No fastmath: its reassociation and contraction would change the counts.
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}

jit: Any = numba.njit(**_OPTIONS)

leaf: Any = numba.njit(**(_OPTIONS | {"_nrt": False}))
"""For functions that neither make nor return an array.

They don't count references to the arrays that they are given, which takes longer
than the work of most of them.
"""
