"""Models that replay the logits of real ones, in stated times.

They return the rows of a text by position, whichever tokens were sampled. The random
numbers of sampling and verification depend only on the position, so that all plans use
the same ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sqs_codec._codec.verify import Verdict
from sqs_codec.system.edge import Draft
from sqs_codec.system.session import Job, VerifyRound, verify_jobs
from tests.world import Steps

if TYPE_CHECKING:
    from typing_extensions import Self


STEPS = {"fast": Steps(0.015, 0.030, 0.0015), "slow": Steps(0.015, 0.120, 0.006)}
"""Times with a fast and with a slow target. Drafts hardly pay with the fast one."""


class RecordedDraft(Draft):
    """A draft model that returns recorded rows, with stated seconds per step.

    A step takes at least the time to load the row. `clock` and `sleep` are those of
    `time`, or of a virtual clock.
    """

    def __init__(
        self,
        vocab_size: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.vocab_size = vocab_size
        self.late = 0.0
        """The total excess of steps over the stated time, in seconds."""
        self.rows = 0
        """The number of returned rows."""
        self.rng = np.random.default_rng()
        """The generator for drafted tokens, seeded before each row with seed, text and
        position."""
        self._seconds = seconds
        self._clock, self._sleep = clock, sleep

    def begin(self, prompt: int, rows: NDArray[np.floating], seed: list[int]) -> None:
        """Set the rows after a prompt of `prompt` tokens."""
        self._prompt, self._rows, self._seed = prompt, rows, seed

    @classmethod
    def of(cls, vocab_size: int, seconds: float, prompt: int, file: Path) -> Self:
        """Return a draft with the rows of a file."""
        made = cls(vocab_size, seconds)
        made.begin(prompt, np.load(file, mmap_mode="r"), [0])
        return made

    def logits(self, tokens: Sequence[int]) -> NDArray[np.floating]:
        """Return the row after a text, [1, V]."""
        at = len(tokens) - self._prompt
        bits = np.random.PCG64([*self._seed, at])
        self.rng.bit_generator.state = bits.state
        return self._step([at])

    def branches(self, texts: Sequence[Sequence[int]]) -> NDArray[np.floating]:
        """Return the row after each text, in the time of one."""
        return self._step([len(text) - self._prompt for text in texts])

    def _step(self, places: Sequence[int]) -> NDArray[np.floating]:
        end = self._clock() + self._seconds
        rows = np.array([self._rows[at] for at in places])
        self.rows += len(rows)
        self._sleep(max(0.0, end - self._clock()))
        self.late += self._clock() - end
        return rows


class RecordedVerifier:
    """A `Verifier` over recorded rows, without stated times.

    Rounds and hints are really verified. With a seed, the random numbers of a round
    depend on its positions instead of the session.
    """

    max_text = 1 << 20

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def begin(
        self, prompt: int, rows: NDArray[np.floating], seed: list[int] | None
    ) -> None:
        """Set the rows after a prompt of `prompt` tokens."""
        self._prompt, self._rows = prompt, rows
        self._seeded = seed is not None
        self._numbers = np.random.default_rng(seed).random(len(rows))

    def verify(self, jobs: Sequence[Job]) -> list[Verdict | None]:
        """Return the verdict on each job, None where there was nothing to verify."""
        return [self._verdict(job) if job.wanted else None for job in jobs]

    def forget(self, session: bytes) -> None:
        """Do nothing: rows are shared by all sessions."""

    def _verdict(self, job: Job) -> Verdict | None:
        start = len(job.text) - self._prompt
        part = slice(start, start + job.wanted)
        if self._seeded and isinstance(job, VerifyRound):
            job = replace(job, draws=self._numbers[part])
        return verify_jobs([job], self._rows[part])[0]


class TimedVerifier(RecordedVerifier):
    """A `RecordedVerifier` with the times of `steps`; prefill takes no time."""

    def __init__(self, vocab_size: int, steps: Steps) -> None:
        super().__init__(vocab_size)
        self.late = 0.0
        """The total excess over the stated times, in seconds."""
        self._steps = steps

    def verify(self, jobs: Sequence[Job]) -> list[Verdict | None]:
        """Return the verdict on each job, None where there was nothing to verify."""
        began = time.monotonic()
        found = super().verify(jobs)
        if tokens := sum(job.wanted for job in jobs):
            end = began + self._steps.verify(tokens)
            time.sleep(max(0.0, end - time.monotonic()))
            self.late += time.monotonic() - end
        return found
