"""Threads that share the rows of a batch."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")

_lock = threading.RLock()  # a signal handler may want it too
_pool: ThreadPoolExecutor | None = None
_size = 0


LEAST = 4
"""The smallest part, but for the last: to hand one over takes as long as a row."""

MOST = 256
"""The largest part: there has to be room for the largest results of all its rows."""


class _Parts:
    """Ranges of numbers that make up range(n), smaller and smaller."""

    def __init__(self, n: int, threads: int) -> None:
        self._lock = threading.Lock()
        self._start, self._n, self._threads = 0, n, threads

    def stop(self) -> None:
        """Leave nothing to take."""
        with self._lock:
            self._start = self._n

    def take(self) -> tuple[int, int] | None:
        """Return a thread's share of what is left, or None if nothing is."""
        with self._lock:
            start = self._start
            left = self._n - start
            size = min(left, max(LEAST, -(-left // self._threads)), MOST)
            self._start += size
        return (start, start + size) if size else None


def share(work: Callable[[int, int], T], n: int, threads: int) -> list[T]:
    """Call ``work(start, end)`` for parts of range(n), in so many threads.

    This thread is one of them, and begins while the others wake up; they stay for
    the next time. As parts get smaller, all end at about the same time. Returns
    what the parts returned, in order.
    """
    parts = _Parts(n, threads)
    found: dict[int, T] = {}

    def help_out() -> None:
        try:
            while part := parts.take():
                found[part[0]] = work(*part)
        except BaseException:
            parts.stop()
            raise

    futures = []
    if threads > 1:
        pool = _grow(threads - 1)
        futures = [pool.submit(help_out) for _ in range(threads - 1)]
    help_out()
    for future in futures:
        if not future.cancel():
            future.result()
    return [found[start] for start in sorted(found)]


def useful(threads: int, n: int) -> int:
    """Return how many of so many threads would get a part of range(n)."""
    return max(1, min(threads, -(-n // LEAST)))


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
    _lock, _pool, _size = threading.RLock(), None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
