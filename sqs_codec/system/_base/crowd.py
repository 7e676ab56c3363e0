"""Limits that keep a server available when one party opens many connections."""

import os
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

MOST_SAVED, MOST_OWED = 1.0, 2.0
"""Seconds of its share that a connection may save, or use in advance."""

MOST_CONNECTIONS = 1 << 16  # if the system has no limit


def half_of_files() -> int:
    """Return half of the files that this process may open, the limit of connections."""
    files = os.sysconf("SC_OPEN_MAX") if hasattr(os, "sysconf") else -1
    return MOST_CONNECTIONS if files < 0 else min(files // 2, MOST_CONNECTIONS)


def first_of_crowd(waiting: Sequence[T], owner: Callable[[T], Hashable]) -> T:
    """Return the first item of the owner with the most items."""
    ((crowd, _),) = Counter(map(owner, waiting)).most_common(1)
    return next(each for each in waiting if owner(each) == crowd)


@dataclass(eq=False)
class Share:
    """A share of the event loop's time."""

    until: float = 0.0  # time at which the used seconds are paid back

    def use(self, seconds: float) -> None:
        now = time.monotonic()
        self.until = min(max(self.until, now - MOST_SAVED) + seconds, now + MOST_OWED)

    @property
    def wait_seconds(self) -> float:
        """Seconds until more may be used; negative if some is saved."""
        return self.until - time.monotonic()

    @property
    def full(self) -> bool:
        """Whether it has saved the maximum."""
        return self.wait_seconds <= -MOST_SAVED
