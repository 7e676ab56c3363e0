"""The Numba backend: the core for where there is no C compiler and no wheel.

Its modules are those of ``csrc``, and its functions have the names that they have
there, without ``sqs_``, wherever they do the same. They explain only what is different;
the reasons are there.
"""

from sqs_codec._backend.numba.api import Core

__all__ = ["Core"]
