"""What verifiers share that keep what they have read of each session's text."""

from __future__ import annotations

import functools
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

import numpy as np

from sqs_codec import Sampling, Verdict
from sqs_codec.system._base.tokens import common_length
from sqs_codec.system.session import Job, Verifier, VerifyRound


class _Cache(Protocol):
    tokens: list[int]


C = TypeVar("C", bound=_Cache)
"""What a model keeps of a text, whose `tokens` are those that it has read."""


@dataclass(frozen=True, eq=False)
class TextPiece(Generic[C]):
    """Tokens of one text in a pass, of whose last ones some logits are wanted."""

    cache: C  # of the text before them
    tokens: Sequence[int]  # at least one
    wanted: int

    @property
    def past(self) -> int:
        """How many tokens are before them."""
        return len(self.cache.tokens)

    @property
    def end(self) -> int:
        return self.past + len(self.tokens)


@dataclass(eq=False)
class Reading(Generic[C]):
    """A job in the works, its text and draft, and its session's cache once open."""

    job: Job
    tokens: list[int]
    cache: C = field(init=False)

    @property
    def known(self) -> int:
        """Number of cached tokens that the job can use."""
        most = len(self.tokens) - self.job.wanted
        return min(common_length(self.cache.tokens, self.tokens), most)

    @property
    def left(self) -> int:
        return len(self.tokens) - len(self.cache.tokens)

    def piece(self, count: int) -> TextPiece[C]:
        start = len(self.cache.tokens)
        wanted = self.job.wanted if count == self.left else 0
        return TextPiece(self.cache, self.tokens[start : start + count], wanted)


class Caches(Protocol[C]):
    """What keeps the texts of sessions, as far as there is memory."""

    def __contains__(self, session: bytes) -> bool:
        """Say whether anything of a session's text is cached."""

    def opened(
        self, waiting: Sequence[Reading[C]]
    ) -> AbstractContextManager[list[Reading[C]]]:
        """Open the caches of the first jobs that fit together, in any order."""

    def forget(self, session: bytes) -> None:
        """Free the cache of a session, if there is one. From any thread."""


class CachingVerifier(ABC, Generic[C]):
    """A `Verifier` of a model that reads pieces of many texts in one pass.

    What it has read of a session's text stays for the session's next job, as far as
    there is memory. It is found by the session and compared with the job's text, so
    that a job alone says everything: what was rejected, aborted, evicted or never there
    is read again.
    """

    vocab_size: int
    max_text: int
    places = 0
    """How many sessions there is memory for; 0 if it isn't known."""

    _caches: Caches[C]
    _because: str
    """Explanation of `max_text`, for messages."""

    _pass_tokens: int
    """Tokens per forward pass."""

    _piece_tokens: int
    """How many of one text, at most as many."""

    passes = 0
    """How many there have been."""

    _multiple = 1
    """Pieces take as much of a pass as if they had a multiple of so many tokens."""

    def verify(self, jobs: Sequence[Job]) -> list[Verdict | None]:
        """Return the verdict on each job, None where there was nothing to verify.

        Rounds come before texts that are only to be read. Jobs whose caches don't
        fit in memory together are done one after the other. ValueError if a job is none
        that the model can do, and nothing has been done then, or if it gives NaN.
        """
        waiting = []
        limits = self.vocab_size, self.max_text, self._because
        for i, job in enumerate(jobs):
            try:
                waiting.append(Reading[C](job, job.check(*limits)))
            except ValueError as error:
                raise ValueError(f"jobs[{i}]: {error}") from None
        if len({job.session for job in jobs}) < len(jobs):
            raise ValueError("jobs must be of different sessions")
        verdicts: dict[bytes, Verdict | None] = {}
        # Those that are cached first, before the others evict them.
        waiting.sort(key=lambda each: each.job.session not in self._caches)
        while waiting:
            with self._caches.opened(waiting) as group:
                self._opened.update({each.job.session: each.cache for each in group})
                self._run(group, verdicts)
            waiting = waiting[len(group) :]
            del group  # or its caches would outlive their eviction
        return [verdicts.get(job.session) for job in jobs]

    def unread(self, job: Job) -> int:
        """Return how many tokens of a job's text aren't cached and only to be read."""
        cache = self._opened.get(job.session) if job.session in self._caches else None
        cached = 0 if cache is None else common_length(cache.tokens, job.text)
        return max(len(job.text) - bool(job.wanted) - cached, 0)

    @functools.cached_property
    def _opened(self) -> WeakValueDictionary[bytes, C]:
        """The caches of sessions as they were last opened. They may be gone since."""
        return WeakValueDictionary()

    def forget(self, session: bytes) -> None:
        self._opened.pop(session, None)
        self._caches.forget(session)

    @abstractmethod
    def _verify(
        self, pieces: Sequence[TextPiece[C]], jobs: Sequence[Job]
    ) -> list[Verdict | None]:
        """Read pieces in one pass, extend their caches, and verify the jobs."""

    def _run(
        self, group: list[Reading[C]], verdicts: dict[bytes, Verdict | None]
    ) -> None:
        """Do jobs whose caches are open, a pass at a time."""
        while group := [reading for reading in group if reading.left]:
            taken = self._take(group)
            pieces = [reading.piece(count) for reading, count in taken]
            done = [
                reading.job
                for (reading, _), piece in zip(taken, pieces, strict=True)
                if piece.wanted
            ]
            found = self._verify(pieces, done)
            self.passes += 1
            verdicts |= zip((job.session for job in done), found, strict=True)

    def _take(self, group: Sequence[Reading[C]]) -> list[tuple[Reading[C], int]]:
        """Choose what to read next: of which texts how many tokens."""
        taken: dict[Reading[C], int] = {}
        room = self._pass_tokens
        # Rounds first, as a rule the shortest: others may wait for a long text.
        for reading in sorted(group, key=lambda each: (not each.job.wanted, each.left)):
            count, most = reading.left, min(room, self._piece_tokens)
            if count > most:
                # The wanted rows come out of one pass.
                count = min(most, count - reading.job.wanted)
                if not count and not taken:
                    count = reading.left
            if count > 0:
                taken[reading] = count
                room -= count + -count % self._multiple
        return [(each, taken[each]) for each in group if each in taken]


def pass_seconds(verifier: Verifier) -> float:
    """Measure what a verifier takes for a token."""
    job = VerifyRound(b"pace", [0] * 8, None, np.zeros(1), Sampling())
    times = []
    for _ in range(6):  # the first of them reads the text
        began = time.perf_counter()
        verifier.verify([job])
        times.append(time.perf_counter() - began)
    verifier.forget(job.session)
    return statistics.median(times[1:])
