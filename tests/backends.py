"""The backends that tests run on, without optional packages."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from sqs_codec import _backend

BACKENDS = "native", "numba"


@contextmanager
def using(name: str) -> Iterator[None]:
    """Have cores that are made within be those of a backend: in all threads."""
    if name == "numba":
        compile_once()
    before, _backend._name = _backend._name, _backend._choose(name)
    try:
        yield
    finally:
        _backend._name = before


@cache
def compile_once() -> None:
    """Let one process at a time compile: the others then find it in Numba's cache."""
    with suppress(ImportError):  # Windows has no fcntl
        import fcntl

        from numba.core.dispatcher import Dispatcher

        own: Callable[..., Any] = Dispatcher.compile
        lock, depth = threading.RLock(), 0
        file = open(__file__)  # noqa: SIM115 : for as long as the process lives

        def compile_alone(dispatcher: Any, signature: Any) -> Any:
            nonlocal depth
            with lock:  # what it calls is compiled within
                if not depth:
                    fcntl.flock(file, fcntl.LOCK_EX)
                depth += 1
                try:
                    return own(dispatcher, signature)
                finally:
                    depth -= 1
                    if not depth:
                        fcntl.flock(file, fcntl.LOCK_UN)

        Dispatcher.compile = compile_alone
