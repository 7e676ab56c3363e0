"""Times of interleaved calls on one core."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Contestant:
    """A block of calls to time."""

    name: str
    run: Callable[[], object]
    """Makes the calls."""
    calls: int
    """The number of calls."""
    reset: Callable[[], object] = lambda: None
    """Runs before each block, untimed."""


def each(name: str, call: Callable[[Any], object], inputs: Sequence[Any]) -> Contestant:
    """Time a call of each input."""

    def run() -> None:
        for one in inputs:
            call(one)

    return Contestant(name, run, len(inputs))


@dataclass(frozen=True)
class Timing:
    """Times of one contestant."""

    micros: NDArray[np.float64]
    """Mean microseconds per call of each block, [rounds]."""

    @property
    def median(self) -> float:
        """The median round's microseconds."""
        return float(np.median(self.micros))

    @property
    def spread(self) -> tuple[float, float]:
        """The first and the third quartile."""
        low, high = np.percentile(self.micros, [25, 75])
        return float(low), float(high)

    def over(self, other: Timing) -> NDArray[np.float64]:
        """Return the quartiles of the rounds' ratios to `other`.

        >>> slow, fast = Timing(np.array([4.0, 9.0, 6.0])), Timing(np.array([2, 3, 3]))
        >>> slow.over(fast)
        array([2. , 2. , 2.5])
        """
        return np.percentile(self.micros / other.micros, [25, 50, 75])


def interleave(
    contestants: Sequence[Contestant],
    rounds: int,
    rng: np.random.Generator,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, Timing]:
    """Time all contestants once per round, in random order.

    Temporary disturbances then affect all of them equally. Each block runs once untimed
    before it is timed, so that it finds its own data in the caches. A thread's clock,
    `time.thread_time_ns`, excludes the time of other programs.
    """
    micros = np.empty((len(contestants), rounds))
    collected = gc.isenabled()
    gc.disable()
    try:
        for i in range(rounds):
            for j in rng.permutation(len(contestants)):
                contestant = contestants[j]
                contestant.reset()
                contestant.run()
                contestant.reset()
                began = clock()
                contestant.run()
                ended = clock()
                micros[j, i] = (ended - began) / contestant.calls / 1000
    finally:
        if collected:
            gc.enable()
    names = [contestant.name for contestant in contestants]
    return {name: Timing(times) for name, times in zip(names, micros, strict=True)}


@contextmanager
def pinned(cores: int) -> Iterator[int]:
    """Run on `cores` of the allowed cores, torch with one thread; yield their number.

    It is lower if there are fewer cores, and 0 if the system can't pin.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    # The first core often serves the system's interrupts.
    chosen = sorted(allowed)[-cores:]
    try:
        if chosen:
            os.sched_setaffinity(0, chosen)
        yield len(chosen)
    finally:
        if chosen:
            os.sched_setaffinity(0, allowed)
        torch.set_num_threads(threads)


@numba.njit(fastmath=True)
def _sum(rows: NDArray[np.floating]) -> Any:
    total = rows[0, 0] - rows[0, 0]  # in their dtype: float64 would be slower
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            total += rows[i, j]
    return total


def read(rows: NDArray[np.floating]) -> float:
    """Read every value, as a lower bound of any function of all values.

    The compiler may reorder this sum. It becomes vector code with several accumulators,
    which is faster than NumPy. Rows are contiguous; float16, which processors don't
    add, is read as half as many float32.
    """
    if rows.dtype == np.float16:
        rows = rows.reshape(1, -1)[:, : rows.size // 2 * 2].view(np.float32)
    return float(_sum(rows))
