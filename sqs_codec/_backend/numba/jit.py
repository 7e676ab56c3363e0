"""How the Numba backend compiles its functions."""

from __future__ import annotations

from typing import Any

import numba

# No fastmath: its reassociation and contraction would change the counts.
_ENTRY: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "no_cfunc_wrapper": True,  # for C, which calls none of these
}
_INNER = _ENTRY | {"no_cpython_wrapper": True}

entry: Any = numba.njit(**_ENTRY)
"""For functions that Python calls.

It mustn't call the others: they lack what makes arguments of its objects, which
takes a third of the time that a function compiles.
"""

jit: Any = numba.njit(**_INNER)

leaf: Any = numba.njit(**(_INNER | {"_nrt": False}))
"""For functions that neither make nor return an array.

They don't count references to the arrays that they are given, which takes longer
than the work of most of them.
"""

part: Any = numba.njit(**(_INNER | {"inline": "always"}))
"""For functions that one or two others call, which compile sooner with them in."""

inlined: Any = numba.njit(**(_INNER | {"_nrt": False, "forceinline": True}))
"""For leaves that take less time than a call that hands over their arrays."""
