"""Which backend tests run on, without what only some environments have."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqs_codec import _backend

BACKENDS = "native", "numba"


@contextmanager
def using(name: str) -> Iterator[None]:
    """Have cores that are made within be those of a backend: in all threads."""
    before, _backend._name = _backend._name, _backend._choose(name)
    try:
        yield
    finally:
        _backend._name = before
