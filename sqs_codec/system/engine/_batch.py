"""An engine that verifies many jobs in one call of a target model."""

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

LEAST_PART = 64  # minimum tokens of a part: a call has a fixed cost
PART_SECONDS = 0.2
"""Maximum seconds of a call with a part while other sessions decode, as they wait for
it. At 21 ms per call and 1.3 ms per token, a part has 138 tokens instead of 512 in
0.7 s. Prefilling a text then takes 25 % longer."""

OLDEST_EVERY = 4
"""Every fourth part is of the oldest text. The others are of the text with the fewest
tokens left: that makes the mean wait short, but a long text could wait forever."""

RECENT_SECONDS = 1.0
"""For this long after a round, its session may send another, and prefills take at most
half of the time."""

STUCK_SECONDS = 120.0
"""Time limit of a call, or of each forward pass in it. Beyond it the model has hung."""

MOST_AT_ONCE = 64  # jobs in one call; more would only make each job wait longer

TURNS = 5
"""Turns of the event loop from a verdict to the same session's next job: the future
resolves, its task ends, and the service makes and submits the next job."""

PATIENCE = 0.25  # maximum wait for those turns, as a share of the call's time
WATCH_SECONDS = 1.0  # interval of checks for a call that takes too long
CLOSING_SECONDS = 1.0  # to wait for the last call; `Service.stop` has waited before

Outcome = Verdict | Exception | None

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Task:
    job: Job
    future: asyncio.Future[Verdict | None]
    number: int = field(default_factory=itertools.count().__next__)
    read: int = 0
    unread: int = field(init=False)  # number of tokens left to prefill
    part: Job = field(init=False)  # the next part of the job
    size: int = field(init=False)  # number of tokens that the part prefills

    def choose(self, room: int) -> None:
        """Choose a part that prefills `room` tokens, or more after a lost cache."""
        job = self.job
        last = len(job.text) - bool(job.wanted)
        begin = last - self.unread
        end = min(max(begin, self.read) + room, last)
        self.part, self.size = job, end - begin
        if end < last:
            self.part = Read(job.session, job.text[:end])


class BatchEngine:
    """An `Engine` that runs a `Verifier` in a thread of its own.

    One call does all waiting jobs. Before the next call, it waits for the next jobs of
    the same sessions: otherwise sessions that decode continuously would split into two
    halves that take turns.

    Texts are prefilled in parts, which begin where the cache of a `CachingVerifier`
    ends; a call has at most one part. The text with the fewest tokens left goes first,
    except that every fourth part is of the oldest text. So the n parts of the oldest
    text take at most 4 n calls. While other sessions decode, parts are smaller, and
    calls without a prefill follow for as long as a part took.

    If a call takes two minutes, the engine is unhealthy until it ends, and all waiting
    jobs fail. If a `CachingVerifier` needs several forward passes for a call, each may
    take that long.

    Parameters
    ----------
    summary, tokenizer
        As in `EngineInfo`.
    target_ms : float, optional
        Minimum time per call in milliseconds, to imitate a larger model.
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
            summary += f", slowed from {own:.0f} to {target_ms:g} ms per call,"
        self._caching = verifier if isinstance(verifier, CachingVerifier) else None
        places = self._caching.places if self._caching else 0
        self._info = EngineInfo(
            summary, verifier.vocab_size, verifier.max_text, tokenizer, places
        )
        self._waiting: list[_Task] = []
        self._fresh: list[_Task] = []
        self._at_work: set[_Task] = set()
        self._began: float | None = None  # start of the present call
        self._passes, self._passed = 0, -math.inf  # forward passes seen, and when
        self._rounds: dict[bytes, float] = {}  # end of each session's last round
        self._text_at = -math.inf  # earliest time of the next prefill
        self._part = LEAST_PART  # tokens that take `PART_SECONDS`, at most `PART`
        self._parts = 0  # number of parts so far
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
        """Return the verdict on a job, or None if it verifies nothing."""
        if self._stopped or not self._thread.is_alive():
            raise RuntimeError("the engine isn't open; call `open` first")
        task = _Task(job, self._loop.create_future())
        self._at_work.add(task)
        if not self._fresh:
            # Submit all jobs of one turn of the event loop together.
            self._loop.call_soon(self._submit)
        self._fresh.append(task)
        try:
            return await task.future
        except asyncio.CancelledError:
            with self._changed, contextlib.suppress(ValueError):  # it may have begun
                self._waiting.remove(task)  # don't wait for the present call
            raise
        finally:
            self._at_work.discard(task)

    def drop(self, session: bytes) -> None:
        """Free the cache of a session."""
        self.verifier.forget(session)

    def progress(self) -> dict[bytes, int]:
        """Return the number of prefilled tokens, by session with a prefill."""
        return {task.job.session: task.read for task in self._at_work if task.read}

    def health(self) -> str | None:
        """Return why it can't verify now, or None if it can."""
        if not self._thread.is_alive():
            return "the target model's thread isn't running"
        began, now = self._began, time.monotonic()
        passes = self._caching.passes if self._caching else 0
        if passes != self._passes:  # a call with a long text takes many
            self._passes, self._passed = passes, now
        seconds = 0.0 if began is None else now - max(began, self._passed)
        if seconds > STUCK_SECONDS:
            return f"the target model hasn't returned from a call for {seconds:.0f} s"
        return None

    def _watch(self) -> None:
        """If the model has hung, fail all jobs."""
        reason = self.health()
        if reason is not None and not self._stopped:
            self._settle({task: RuntimeError(reason) for task in self._at_work})
        if not self._stopped:
            self._loop.call_later(WATCH_SECONDS, self._watch)

    async def close(self) -> None:
        """End the thread after its present call. Unfinished jobs fail."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.ident is None:  # it was never started
            return
        await asyncio.to_thread(self._thread.join, CLOSING_SECONDS)
        if self._thread.is_alive():
            log.warning("closing while the target model still runs a call")
        self._settle(
            {task: RuntimeError("the engine closes") for task in self._at_work}
        )

    def _submit(self) -> None:
        with self._changed:
            self._waiting.extend(self._fresh)
            self._changed.notify()
        self._fresh = []

    def _pass(self, turns: int, followed: threading.Event) -> None:
        """Set the event after some turns of the event loop."""
        if turns:
            self._loop.call_soon(self._pass, turns - 1, followed)
        else:
            followed.set()

    def _settle(self, outcomes: dict[_Task, Outcome]) -> None:
        for task, outcome in outcomes.items():
            if task.future.done():
                continue  # canceled
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
            except RuntimeError:  # the loop was closed
                return
            followed.wait(PATIENCE * (now - began))

    def _take(self) -> list[_Task]:
        """Wait for jobs; take one per session, with at most one part of a prefill."""
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                # Remove canceled jobs, and those that failed as the model hung.
                self._waiting = [t for t in self._waiting if not t.future.done()]
                for each in self._waiting:
                    each.unread = self._unread(each)
                texts = self._in_turn([each for each in self._waiting if each.unread])
                rounds = sum(t.job.wanted for t in self._waiting if not t.unread)
                most = PART if self._alone(texts, now) else self._part
                # With its rounds, a part usually fits one forward pass.
                most = max(min(most, PART - rounds), LEAST_PART)
                room = most = 0 if now < self._text_at else most
                taken: dict[bytes, _Task] = {}
                queue = iter(texts)
                for each in self._waiting:
                    # Prefills swap places in the queue, to follow `_in_turn`.
                    task = next(queue) if each.unread else each
                    # Interrupt at most one prefill: its cache could be evicted.
                    fits = task.unread <= room or 0 < room == most
                    full = len(taken) == MOST_AT_ONCE
                    if fits and not full and task.job.session not in taken:
                        task.choose(room)
                        room -= task.size
                        taken[task.job.session] = task
                # The prefill goes last, so its cache is evicted last.
                tasks = sorted(taken.values(), key=lambda task: task.size > 0)
                if tasks:
                    self._parts += any(task.size for task in tasks)
                    self._waiting = [t for t in self._waiting if t not in tasks]
                    return tasks
                self._changed.wait(self._text_at - now if texts else None)
        return []

    def _unread(self, task: _Task) -> int:
        if self._caching:
            return self._caching.unread(task.job)
        return 0 if task.job.wanted else len(task.job.text) - task.read

    def _in_turn(self, texts: Sequence[_Task]) -> list[_Task]:
        """Sort prefills: fewest tokens left first, or every few parts the oldest."""
        # Rounded to powers of 4, so that sessions that evict each other take turns
        texts = sorted(texts, key=lambda task: task.number)
        first = int(self._parts % OLDEST_EVERY == 0)
        rest = sorted(texts[first:], key=lambda t: (t.unread.bit_length() + 1) // 2)
        return texts[:first] + rest

    def _alone(self, texts: Collection[_Task], now: float) -> bool:
        """Tell whether only sessions with these texts have decoded recently."""
        recent = {s for s, at in self._rounds.items() if now - at < RECENT_SECONDS}
        return recent <= {task.job.session for task in texts}

    def _note(self, tasks: Sequence[_Task], began: float, now: float) -> None:
        """Note which sessions decode; set time and size of the next part."""
        recent = began - RECENT_SECONDS
        rounds = {t.job.session: now for t in tasks if t.job.wanted and not t.size}
        self._rounds = {s: at for s, at in self._rounds.items() if at > recent} | rounds
        texts = [task for task in tasks if task.size]
        read, took = sum(task.size for task in texts), now - began
        if texts and not self._alone(texts, began):
            self._text_at = now + took
        if read >= LEAST_PART:  # fewer tokens would only measure the fixed cost
            seconds = max(took / read, PART_SECONDS / PART)
            self._part = max(round(PART_SECONDS / seconds), LEAST_PART)

    def _verify(self, jobs: Sequence[Job]) -> Sequence[Outcome]:
        """Verify jobs in one call. If it fails, try each half: good jobs succeed."""
        try:
            verdicts = self.verifier.verify(jobs)
            if len(verdicts) != len(jobs):
                raise RuntimeError(f"{len(verdicts)} verdicts for {len(jobs)} jobs")
            return verdicts
        except BaseException as error:  # also exits and panics: other jobs go on
            if len(jobs) == 1:
                log.exception("the target model failed on a job")
                return [RuntimeError(f"the target model failed: {error!r}")]
            log.warning("the target model failed on %d jobs: %r", len(jobs), error)
            half = len(jobs) // 2
            return [*self._verify(jobs[:half]), *self._verify(jobs[half:])]
