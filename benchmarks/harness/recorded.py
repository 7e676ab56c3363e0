"""Models that say what was recorded of real ones, in the time that is stated.

They give the rows of a text by position, whichever tokens are drawn. What is drawn and
judged at a position is decided by numbers of that position, so that all plans have the
same luck.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from benchmarks.planner.simulate import Steps
from sqs_codec._codec.verify import Verdict
from sqs_codec.system.session import Job, verify_jobs

if TYPE_CHECKING:
    from typing_extensions import Self


class RecordedDraft:
    """A draft model that gives recorded rows, a step in so many seconds.

    Parameters
    ----------
    vocab_size : int
    seconds : float
        What a step takes; no less than it takes to read the row.

    Attributes
    ----------
    late : float
        Seconds by which steps took longer so far.
    rows : int
        Rows given so far.
    rng : numpy.random.Generator
        To draw the drafted tokens from: set anew before each row is given, by seed,
        text and position.
    """

    stop: frozenset[int] = frozenset()
    fingerprint = b""

    def __init__(self, vocab_size: int, seconds: float) -> None:
        self.vocab_size = vocab_size
        self.late = 0.0
        self.rows = 0
        self.rng = np.random.default_rng()
        self._seconds = seconds

    def begin(self, prompt: int, rows: NDArray[np.floating], seed: list[int]) -> None:
        """Take the rows that follow a prompt of so many tokens."""
        self._prompt, self._rows, self._seed = prompt, rows, seed

    @classmethod
    def of(cls, vocab_size: int, seconds: float, prompt: int, file: Path) -> Self:
        """Return one that gives the rows of a file after a prompt of so many tokens."""
        made = cls(vocab_size, seconds)
        made.begin(prompt, np.load(file, mmap_mode="r"), [0])
        return made

    def logits(self, tokens: Sequence[int]) -> NDArray[np.floating]:
        """Return the row after a text, [1, V]."""
        end = time.monotonic() + self._seconds
        at = len(tokens) - self._prompt
        row = np.array(self._rows[at : at + 1])
        self.rows += 1
        bits = np.random.PCG64([*self._seed, at])
        self.rng.bit_generator.state = bits.state
        self.late += sleep_until(end)
        return row

    def branches(self, texts: Sequence[Sequence[int]]) -> NDArray[np.floating]:
        """Return the row after each text, in the time of one."""
        end = time.monotonic() + self._seconds
        rows = np.array([self._rows[len(text) - self._prompt] for text in texts])
        self.rows += len(rows)
        self.late += sleep_until(end)
        return rows


class RecordedVerifier:
    """A `Verifier` over recorded rows, which takes the seconds of `steps`.

    Rounds and hints are really verified. Given a seed, the numbers that judge a round
    are those of its positions in place of the session's. To read a prompt takes no
    time.

    Parameters
    ----------
    vocab_size : int
    steps : Steps

    Attributes
    ----------
    late : float
        Seconds by which steps took longer so far.
    """

    max_text = 1 << 20

    def __init__(self, vocab_size: int, steps: Steps) -> None:
        self.vocab_size = vocab_size
        self.late = 0.0
        self._steps = steps

    def begin(
        self, prompt: int, rows: NDArray[np.floating], seed: list[int] | None
    ) -> None:
        """Take the rows that follow a prompt of so many tokens."""
        self._prompt, self._rows = prompt, rows
        self._seeded = seed is not None
        self._numbers = np.random.default_rng(seed).random(len(rows))

    def verify(self, jobs: Sequence[Job]) -> list[Verdict | None]:
        """Return the verdict on each job, None where there was nothing to verify."""
        began = time.monotonic()
        found = [self._verdict(job) if job.wanted else None for job in jobs]
        if tokens := sum(job.wanted for job in jobs):
            self.late += sleep_until(began + self._steps.verify(tokens))
        return found

    def forget(self, session: bytes) -> None:
        """Keep what is recorded."""

    def _verdict(self, job: Job) -> Verdict | None:
        length, temperature = len(job.text), job.sampling.temperature
        if job.key is None and self._seeded:
            return self.judge(job.round_, length, temperature)
        start = length - self._prompt
        rows = self._rows[start : start + job.wanted]
        return verify_jobs([job], rows)[0]

    def judge(
        self, round_: sqs.Round | None, length: int, temperature: float
    ) -> Verdict:
        """Return the verdict on a round that follows so many tokens."""
        start = length - self._prompt
        part = slice(start, start + 1 + (0 if round_ is None else len(round_)))
        rows = _softmax(self._rows[part], temperature)
        return sqs.verify_rounds([round_], rows, self._numbers[part])[0]


def _softmax(rows: NDArray[np.floating], temperature: float) -> NDArray[np.float32]:
    """Return the probabilities of logits [n, V]."""
    if temperature == 0:
        found = np.zeros(rows.shape, np.float32)
        found[np.arange(len(rows)), rows.argmax(axis=1)] = 1
        return found
    rows = np.asarray(rows, np.float32)
    weights = np.exp((rows - rows.max(axis=1, keepdims=True)) / temperature)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def sleep_until(end: float) -> float:
    """Sleep, and return by how many seconds it became later."""
    time.sleep(max(0.0, end - time.monotonic()))
    return time.monotonic() - end
