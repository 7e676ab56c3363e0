"""One run: verifiers with more and more sessions, in turns."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.serve.replay import Played, Replay

if TYPE_CHECKING:
    from sqs_codec.hf import Cloud

SLICE = 1.0
"""Seconds of a contestant's turn, or one round of all its sessions if that is more."""


@dataclass
class Case:
    """A verifier and its sessions.

    Attributes
    ----------
    name : str
    sessions : int
    cloud : Cloud
    replay : Replay
    seconds : list of float
        Of each `Replay.turn`.
    resident : list of int
        Bytes of the process after each slice.
    """

    name: str
    sessions: int
    cloud: Cloud
    replay: Replay
    seconds: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    def turn(self) -> None:
        """Verify for a slice of time."""
        spent = 0.0
        while spent < SLICE:
            began = time.perf_counter()
            self.replay.turn(self.cloud)
            self.seconds.append(time.perf_counter() - began)
            spent += self.seconds[-1]
        self.resident.append(resident())

    @property
    def rate(self) -> float:
        """Tokens a second, of all sessions together."""
        return self.replay.tokens / sum(self.seconds)

    @property
    def wait(self) -> float:
        """The median of a turn's seconds: how long an edge waits."""
        return float(np.median(self.seconds))

    @property
    def growth(self) -> float:
        """Bytes by which the process was larger in the second half of the slices.

        Without the first one, in which memory is still being taken.
        """
        first, second = np.array_split(self.resident[1:], 2)
        return float(np.median(second) - np.median(first)) if len(second) else 0.0


def run(cases: Sequence[Case], seconds: float) -> None:
    """Give each case so many seconds, in slices, so that all share the noise."""
    for case in cases:  # off the clock, and as large as they will be
        case.replay.fill(case.cloud)
    gc.collect()
    while min(sum(case.seconds) for case in cases) < seconds:
        for case in cases:
            if sum(case.seconds) < seconds:
                case.turn()


def needed(played: Sequence[Sequence[Played]], sessions: int) -> int:
    """Return how many tokens the caches of so many sessions come to hold."""
    longest = [max(len(turn.job.text) + 6 for turn in rounds) for rounds in played]
    return sum(longest[i % len(longest)] for i in range(sessions))


def resident() -> int:
    """Return the bytes of memory of this process, 0 where the system doesn't say."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return 0
    return int(status.read_text().split()[1]) * 4096
