"""Threads that share the rows of a batch.

This is safe with interrupts and in signal handlers: the only locks are those inside
`deque` and `SimpleQueue`, which C code takes and releases, and each call has its own
state.
"""

from __future__ import annotations

import _thread
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

from sqs_codec._base import checks

T = TypeVar("T")

LEAST = 4
"""Rows of a part, at least (except the last): passing a part on takes a row's time."""

MOST = 256
"""Rows of a part, at most: memory is allocated for the largest result of each row."""


def share(work: Callable[[int, int], T], n: int, threads: int) -> list[T]:
    """Call ``work(start, end)`` for parts of range(n) in threads; return the results.

    The calling thread works, too. Parts get smaller, so that all threads end at about
    the same time. An exception in any thread ends the work: no other part begins.
    ValueError if `threads` is below 1.
    """
    threads = max(1, min(checks.in_range("threads", threads, 1), -(-n // LEAST)))
    if threads == 1:
        return [work(*part) for part in _parts(n, 1)]
    parts = deque(_parts(n, threads))
    expected = len(parts)
    found: dict[int, T] = {}
    others: SimpleQueue[tuple[int, T] | BaseException] = SimpleQueue()

    def help_out() -> None:
        try:
            while part := _take(parts):
                others.put((part[0], work(*part)))
        except BaseException as error:
            parts.clear()
            others.put(error)

    for _ in range(threads - 1):
        try:
            _thread.start_new_thread(help_out, ())
        except RuntimeError:  # the system's limit on threads
            break
    try:
        while part := _take(parts):
            found[part[0]] = work(*part)
        while len(found) < expected:
            answer = others.get()
            if isinstance(answer, BaseException):
                raise answer
            found[answer[0]] = answer[1]
    finally:
        parts.clear()
    return [found[start] for start in sorted(found)]


def _parts(n: int, threads: int) -> list[tuple[int, int]]:
    """Split range(n) into parts, each 1 / threads of the rest."""
    parts = []
    start = 0
    while start < n:
        left = n - start
        size = min(left, max(LEAST, -(-left // threads)), MOST)
        parts.append((start, start + size))
        start += size
    return parts


def _take(parts: deque[tuple[int, int]]) -> tuple[int, int] | None:
    try:
        return parts.popleft()
    except IndexError:
        return None
