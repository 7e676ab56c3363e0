"""The Numba backend, a fallback without a C compiler or wheel.

Modules and functions have the names of those in ``csrc``, without ``sqs_``. Comments
cover differences only; the reasons are explained in ``csrc``.
"""

from sqs_codec._backend.numba.api import Core

__all__ = ["Core"]
