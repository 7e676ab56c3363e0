"""What those who come in crowds may have of a server."""

import os
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

MOST_SAVED, MOST_OWED = 1.0, 2.0
"""Seconds whose share a connection may have saved, or have used in advance."""

MOST_CONNECTIONS = 1 << 16  # where the system sets no limit


def half_of_files() -> int:
    """Return half of the files that this process may open; connections get no more."""
    files = os.sysconf("SC_OPEN_MAX") if hasattr(os, "sysconf") else -1
    return MOST_CONNECTIONS if files < 0 else min(files // 2, MOST_CONNECTIONS)


def first_of_crowd(waiting: Sequence[T], whose: Callable[[T], Hashable]) -> T:
    """Return the first of those that belong to whom most do: it makes room."""
    ((crowd, _),) = Counter(map(whose, waiting)).most_common(1)
    return next(each for each in waiting if whose(each) == crowd)


@dataclass(eq=False)
class Share:
    """A share of the event loop's time."""

    until: float = 0.0  # when what was used of it is paid

    def use(self, seconds: float) -> None:
        """Use so many seconds of it."""
        now = time.monotonic()
        self.until = min(max(self.until, now - MOST_SAVED) + seconds, now + MOST_OWED)

    @property
    def wait_seconds(self) -> float:
        """How long it is till there is some again."""
        return self.until - time.monotonic()

    @property
    def full(self) -> bool:
        """Whether as much is saved as may be."""
        return self.wait_seconds <= -MOST_SAVED
