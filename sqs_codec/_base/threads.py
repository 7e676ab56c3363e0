"""Threads that share the rows of a batch.

Nothing here is left behind by an interrupt or can be found taken by a signal
handler: there is no lock but those inside `deque` and `SimpleQueue`, which C code
takes and releases, and no state but that of a call.
"""

from __future__ import annotations

import _thread
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")

LEAST = 4
"""The smallest part, but for the last: to hand one over takes as long as a row."""

MOST = 256
"""The largest part: there has to be room for the largest results of all its rows."""


def share(work: Callable[[int, int], T], n: int, threads: int) -> list[T]:
    """Call ``work(start, end)`` for parts of range(n), in so many threads.

    This thread is one of them, and begins while the others start. As parts get
    smaller, all end at about the same time. Returns what the parts returned, in
    order. An exception, this thread's or another's, ends the work: parts that
    are under way are completed for nothing, and others are not begun.
    """
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
        except RuntimeError:  # there can't be more threads
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


def useful(threads: int, n: int) -> int:
    """Return how many of so many threads would get a part of range(n)."""
    return max(1, min(threads, -(-n // LEAST)))


def _parts(n: int, threads: int) -> list[tuple[int, int]]:
    """Return ranges that make up range(n): each a thread's share of what is left."""
    parts = []
    start = 0
    while start < n:
        left = n - start
        size = min(left, max(LEAST, -(-left // threads)), MOST)
        parts.append((start, start + size))
        start += size
    return parts


def _take(parts: deque[tuple[int, int]]) -> tuple[int, int] | None:
    """Return a part that no other thread has; None if there are no more."""
    try:
        return parts.popleft()
    except IndexError:
        return None
