"""The thread that a target model runs in."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sqs_codec._verify import Verdict, Wanted
from sqs_codec.session import Job, Verifier

__all__ = ["Batch", "Worker"]

PART = 512
"""Tokens of a long text that are read in one call: more than take a processor's time,
and few enough to wait for."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """What came of one call of the target model.

    Attributes
    ----------
    verdicts : mapping of Job to Verdict, Wanted, None or Exception
        On the jobs that are done with. An exception is what the model failed with.
    size : int
        How many jobs took part.
    seconds : float
        How long it took.
    """

    verdicts: Mapping[Job, Verdict | Wanted | Exception | None]
    size: int
    seconds: float


class Worker:
    """A thread that verifies jobs, all that wait at once.

    A long text that is only to be read is read in parts, so that the rounds of others
    wait for one part at most.

    Parameters
    ----------
    verifier : Verifier
    done : callable
        Is given each `Batch`, in the event loop that `start` was called in.
    most : int
        How many jobs to verify at once.
    """

    def __init__(
        self, verifier: Verifier, done: Callable[[Batch], None], most: int
    ) -> None:
        self._verifier = verifier
        self._done = done
        self._most = most
        self._waiting: deque[Job] = deque()
        self._read: dict[Job, int] = {}
        self._stopped = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; from the event loop that is to be told."""
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(
            target=self._run, args=(loop,), name="sqs-verifier", daemon=True
        )
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Have jobs verified."""
        with self._changed:
            self._waiting.extend(jobs)
            self._changed.notify()

    async def stop(self, timeout: float) -> None:
        """End the thread after the batch that it is at. What waits is dropped."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, timeout)
            if self._thread.is_alive():
                log.warning("the target model is still at a batch; not waiting for it")

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while jobs := self._take():
            parts = [self._part(job) for job in jobs]
            began = time.perf_counter()
            verdicts = self._verify(parts)
            seconds = time.perf_counter() - began
            done = {}
            for job, part, verdict in zip(jobs, parts, verdicts, strict=True):
                if part is job or isinstance(verdict, Exception):
                    done[job] = verdict
                    self._read.pop(job, None)
                else:
                    self._read[job] = len(part.text)
                    self.submit([job])
            try:
                loop.call_soon_threadsafe(self._done, Batch(done, len(jobs), seconds))
            except RuntimeError:  # the loop was closed meanwhile: nobody is there
                return

    def _part(self, job: Job) -> Job:
        """Return a job, or as much of it as is to be read next."""
        end = self._read.get(job, 0) + PART
        if len(job.draws) or len(job.text) <= end:
            return job
        return replace(job, text=job.text[:end])

    def _take(self) -> list[Job]:
        """Wait for jobs and take them, one of each session; none once stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopped)
            if self._stopped:
                return []
            taken: dict[bytes, Job] = {}
            left: deque[Job] = deque()
            for job in self._waiting:
                if job.session in taken or len(taken) == self._most:
                    left.append(job)
                else:
                    taken[job.session] = job
            self._waiting = left
            return list(taken.values())

    def _verify(
        self, jobs: Sequence[Job]
    ) -> Sequence[Verdict | Wanted | Exception | None]:
        """Verify jobs at once, or, where that fails, each alone.

        So a job that the model can't do, or that is too much for its memory together
        with others, doesn't take the others with it.
        """
        try:
            verdicts = self._verifier.verify(jobs)
            if len(verdicts) != len(jobs):
                raise RuntimeError(f"{len(verdicts)} verdicts on {len(jobs)} jobs")
            return verdicts
        except Exception as error:
            if len(jobs) == 1:
                log.exception("the target model failed on a job")
                return [error]
            log.warning("the target model failed on %d jobs: %r", len(jobs), error)
            return [verdict for job in jobs for verdict in self._verify([job])]
