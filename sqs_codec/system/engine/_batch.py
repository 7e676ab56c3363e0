"""An engine of a target model that verifies many jobs in one call."""

import asyncio
import contextlib
import itertools
import logging
import math
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from sqs_codec import Verdict
from sqs_codec._base import checks
from sqs_codec.system._base.protocol import PART
from sqs_codec.system._caching import CachingVerifier, pass_seconds
from sqs_codec.system.engine._protocol import EngineInfo
from sqs_codec.system.session import Job, Read, Verifier

LEAST_PART = 64
"""As many are always read, in tokens, however slow the model is. A call with fewer is
hardly shorter, because it has a fixed cost."""

PART_SECONDS = 0.2
"""So long a call with a part may take where other sessions decode: they wait for it.
With 21 ms per call and 1.3 ms per token these are 138 tokens, not 512 in 0.7 s, and a
text takes a quarter longer."""

OLDEST_EVERY = 4
"""Every such part is of the oldest text. The others go where least is left: this makes
the mean wait short, but by itself a long text could wait for ever."""

RECENT_SECONDS = 1.0
"""So long after a round others may follow, and texts leave them half of the time."""

STUCK_SECONDS = 120.0
"""So long a call may take, or a pass of one. A model that is longer at it has hung."""

MOST_AT_ONCE = 64
"""Jobs in one call. More would only make each wait longer."""

TURNS = 5
"""Of the event loop, from a verdict to the next job of a session that goes on at once:
who waits is told, is done, the service gives the next job, and it is submitted."""

PATIENCE = 0.25
"""The share of a call's time that those turns are waited for."""

WATCH_SECONDS = 1.0
"""How often it is looked whether a call takes too long."""

CLOSING_SECONDS = 1.0
"""How long to wait for the last call. Whoever wants its verdict has waited before."""

Outcome = Verdict | Exception | None

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Task:
    """A job, who waits for it, and how much of its text has been read."""

    job: Job
    future: asyncio.Future[Verdict | None]
    number: int = field(default_factory=itertools.count().__next__)
    read: int = 0
    unread: int = field(init=False)  # how many tokens are only to be read
    part: Job = field(init=False)  # what is to be done next
    size: int = field(init=False)  # how many tokens it only reads

    def choose(self, room: int) -> None:
        """Choose the next part; it reads `room` tokens, or more after a lost cache."""
        job = self.job
        last = len(job.text) - bool(job.wanted)
        begin = last - self.unread
        end = min(max(begin, self.read) + room, last)
        self.part, self.size = job, end - begin
        if end < last:
            self.part = Read(job.session, job.text[:end])


class BatchEngine:
    """An `Engine` over a `Verifier`, which runs in a thread of its own.

    All jobs that wait are done in one call, and a call begins once the sessions that
    the last one was for have given their next jobs: otherwise those that decode without
    a pause would fall into halves that take turns. Texts are read in parts, which begin
    where the cache of a `CachingVerifier` ends, and a call has one part. The text with
    the least left is read first, but every fourth part is of the oldest text: once a
    text is the oldest, its n parts take at most 4 n calls. Where other sessions decode,
    parts are smaller, and calls without texts follow for as long. If a call takes two
    minutes, the engine is unwell until it ends, and whoever waits is told; if a
    `CachingVerifier` needs several passes for a call, each may take as long.

    Parameters
    ----------
    summary : str, optional
        What it is, for people.
    tokenizer : bytes, optional
        The fingerprint of its tokenizer, 8 bytes; or none.
    target_ms : float, optional
        Milliseconds that a call takes at least, to imitate a larger model.
    """

    def __init__(
        self,
        verifier: Verifier,
        *,
        summary: str = "",
        tokenizer: bytes = b"",
        target_ms: float = 0.0,
    ) -> None:
        self.verifier = verifier
        self._pace = (
            checks.finite("target_ms", target_ms, 0.0, 1e3 * STUCK_SECONDS) / 1e3
        )
        if target_ms:
            own = 1e3 * pass_seconds(verifier)
            summary += f", held to {target_ms:g} ms a pass (by itself {own:.0f} ms),"
        self._caching = verifier if isinstance(verifier, CachingVerifier) else None
        places = self._caching.places if self._caching else 0
        self._info = EngineInfo(
            summary, verifier.vocab_size, verifier.max_text, tokenizer, places
        )
        self._waiting: list[_Task] = []
        self._fresh: list[_Task] = []
        self._at_work: set[_Task] = set()
        self._began: float | None = None  # when the present call did
        self._passes, self._passed = 0, -math.inf  # how many were seen, and when
        self._rounds: dict[bytes, float] = {}  # when a session's last one ended
        self._text_at = -math.inf  # when a text may be read again
        self._part = LEAST_PART  # tokens that take `PART_SECONDS`, at most `PART`
        self._parts = 0  # how many were taken
        self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._run, name="sqs-verifier", daemon=True
        )

    def __repr__(self) -> str:
        return f"<BatchEngine of {self._info.summary or type(self.verifier).__name__}>"

    async def open(self) -> EngineInfo:
        """Start the thread."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self._watch()
        return self._info

    async def verify(self, job: Job) -> Verdict | None:
        """Return the verdict on a job, None if there was nothing to verify."""
        if self._stopped or not self._thread.is_alive():
            raise RuntimeError("the engine isn't open")
        task = _Task(job, self._loop.create_future())
        self._at_work.add(task)
        if not self._fresh:
            # Jobs that come up in one turn of the event loop go together.
            self._loop.call_soon(self._submit)
        self._fresh.append(task)
        try:
            return await task.future
        except asyncio.CancelledError:
            with self._changed, contextlib.suppress(ValueError):  # it may be taken
                self._waiting.remove(task)  # now, as calls may last
            raise
        finally:
            self._at_work.discard(task)

    def drop(self, session: bytes) -> None:
        """Free what is kept for a session, if anything is."""
        self.verifier.forget(session)

    def progress(self) -> dict[bytes, int]:
        """Return how many tokens were read of each session's long text so far."""
        return {task.job.session: task.read for task in self._at_work if task.read}

    def health(self) -> str | None:
        """Say why nothing can be verified now; None if it can."""
        if not self._thread.is_alive():
            return "the target model's thread isn't running"
        began, now = self._began, time.monotonic()
        passes = self._caching.passes if self._caching else 0
        if passes != self._passes:  # a long text takes many
            self._passes, self._passed = passes, now
        seconds = 0.0 if began is None else now - max(began, self._passed)
        if seconds > STUCK_SECONDS:
            return f"the target model has been at one call for {seconds:.0f} s"
        return None

    def _watch(self) -> None:
        """Tell those who wait for a model that has hung."""
        reason = self.health()
        if reason is not None and not self._stopped:
            self._settle({task: RuntimeError(reason) for task in self._at_work})
        if not self._stopped:
            self._loop.call_later(WATCH_SECONDS, self._watch)

    async def close(self) -> None:
        """End the thread after the call that it is at. Jobs under way fail."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.ident is None:  # it was never started
            return
        await asyncio.to_thread(self._thread.join, CLOSING_SECONDS)
        if self._thread.is_alive():
            log.warning("the target model is still at a batch; not waiting for it")
        self._settle(
            {task: RuntimeError("the engine closes") for task in self._at_work}
        )

    def _submit(self) -> None:
        with self._changed:
            self._waiting.extend(self._fresh)
            self._changed.notify()
        self._fresh = []

    def _pass(self, turns: int, followed: threading.Event) -> None:
        """Tell the thread after so many turns."""
        if turns:
            self._loop.call_soon(self._pass, turns - 1, followed)
        else:
            followed.set()

    def _settle(self, outcomes: dict[_Task, Outcome]) -> None:
        for task, outcome in outcomes.items():
            if task.future.done():
                continue  # it was cancelled
            if isinstance(outcome, Exception):
                task.future.set_exception(outcome)
            else:
                task.future.set_result(outcome)

    def _run(self) -> None:
        while tasks := self._take():
            self._began = began = time.monotonic()
            outcomes = self._verify([task.part for task in tasks])
            with self._changed:
                left = began + self._pace - time.monotonic()
                self._changed.wait_for(lambda: self._stopped, max(left, 0.0))
            self._began, now = None, time.monotonic()
            self._note(tasks, began, now)
            done: dict[_Task, Outcome] = {}
            for task, outcome in zip(tasks, outcomes, strict=True):
                if task.part is task.job or isinstance(outcome, Exception):
                    done[task] = outcome
                else:
                    task.read = len(task.part.text)
                    with self._changed:
                        self._waiting.append(task)
            followed = threading.Event()
            try:
                self._loop.call_soon_threadsafe(self._settle, done)
                self._loop.call_soon_threadsafe(self._pass, TURNS, followed)
            except RuntimeError:  # the loop was closed meanwhile: nobody is there
                return
            followed.wait(PATIENCE * (now - began))

    def _take(self) -> list[_Task]:
        """Wait for jobs; take one per session, but one part of those that read."""
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                # Without those that were cancelled, or told that the model hangs.
                self._waiting = [t for t in self._waiting if not t.future.done()]
                for each in self._waiting:
                    each.unread = self._unread(each)
                texts = self._in_turn([each for each in self._waiting if each.unread])
                rounds = sum(t.job.wanted for t in self._waiting if not t.unread)
                most = PART if self._alone(texts, now) else self._part
                most = max(min(most, PART - rounds), LEAST_PART)  # as a rule, one pass
                room = most = 0 if now < self._text_at else most
                taken: dict[bytes, _Task] = {}
                queue = iter(texts)
                for each in self._waiting:
                    # A text's place in the queue is taken by the text whose turn it is.
                    task = next(queue) if each.unread else each
                    # No more than one text is left half read, as it could be evicted.
                    fits = task.unread <= room or 0 < room == most
                    full = len(taken) == MOST_AT_ONCE
                    if fits and not full and task.job.session not in taken:
                        task.choose(room)
                        room -= task.size
                        taken[task.job.session] = task
                # What was read last is evicted last, so that others have their turn.
                tasks = sorted(taken.values(), key=lambda task: task.size > 0)
                if tasks:
                    self._parts += any(task.size for task in tasks)
                    self._waiting = [t for t in self._waiting if t not in tasks]
                    return tasks
                self._changed.wait(self._text_at - now if texts else None)
        return []

    def _unread(self, task: _Task) -> int:
        """Return how many tokens of a job only have to be read, as far as is known."""
        if self._caching:
            return self._caching.unread(task.job)
        return 0 if task.job.wanted else len(task.job.text) - task.read

    def _in_turn(self, texts: Sequence[_Task]) -> list[_Task]:
        """Put the text with the least left first; every few parts, the oldest."""
        # Lengths count by factors of 4, so sessions that evict each other take turns.
        texts = sorted(texts, key=lambda task: task.number)
        first = int(self._parts % OLDEST_EVERY == 0)
        rest = sorted(texts[first:], key=lambda t: (t.unread.bit_length() + 1) // 2)
        return texts[:first] + rest

    def _alone(self, texts: Collection[_Task], now: float) -> bool:
        """Say whether no other session than those of texts has decoded lately."""
        recent = {s for s, at in self._rounds.items() if now - at < RECENT_SECONDS}
        return recent <= {task.job.session for task in texts}

    def _note(self, tasks: Sequence[_Task], began: float, now: float) -> None:
        """Note who decodes, and for the next part when it may be and how large."""
        recent = began - RECENT_SECONDS
        rounds = {t.job.session: now for t in tasks if t.job.wanted and not t.size}
        self._rounds = {s: at for s, at in self._rounds.items() if at > recent} | rounds
        texts = [task for task in tasks if task.size]
        read, took = sum(task.size for task in texts), now - began
        if texts and not self._alone(texts, began):
            self._text_at = now + took
        if read >= LEAST_PART:  # a few tokens would only say what a call costs
            seconds = max(took / read, PART_SECONDS / PART)
            self._part = max(round(PART_SECONDS / seconds), LEAST_PART)

    def _verify(self, jobs: Sequence[Job]) -> Sequence[Outcome]:
        """Verify jobs at once or, if that fails, by halves: bad ones fail alone."""
        try:
            verdicts = self.verifier.verify(jobs)
            if len(verdicts) != len(jobs):
                raise RuntimeError(f"{len(verdicts)} verdicts on {len(jobs)} jobs")
            return verdicts
        except BaseException as error:  # exits and panics as well: others go on
            if len(jobs) == 1:
                log.exception("the target model failed on a job")
                return [RuntimeError(f"the target model failed: {error!r}")]
            log.warning("the target model failed on %d jobs: %r", len(jobs), error)
            half = len(jobs) // 2
            return [*self._verify(jobs[:half]), *self._verify(jobs[half:])]
