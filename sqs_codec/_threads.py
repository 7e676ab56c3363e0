"""Threads that share the rows of a batch."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_size = 0


def run_threads(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Run tasks at once, the first in this thread, and return what they return.

    The threads stay for the next time: to start one takes longer than a row.
    """
    futures = _grow(len(tasks) - 1)
    pending = [futures.submit(task) for task in tasks[1:]]
    first = tasks[0]()
    return [first, *(future.result() for future in pending)]


def _grow(threads: int) -> ThreadPoolExecutor:
    """Return a pool of at least so many threads."""
    from concurrent.futures import ThreadPoolExecutor  # which takes a while to import

    global _pool, _size
    with _lock:
        if _pool is None or _size < threads:
            _pool, _size = ThreadPoolExecutor(threads, "sqs_codec"), threads
        return _pool


def _forget() -> None:
    """Forget what a fork leaves behind: a pool without threads, a lock maybe held."""
    global _lock, _pool, _size
    _lock, _pool, _size = threading.Lock(), None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
