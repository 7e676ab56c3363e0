"""The verifier of a GGUF file: the sessions of many edges in one context."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sqs_codec import Verdict
from sqs_codec._base import checks
from sqs_codec.system._base.tokens import common_length
from sqs_codec.system.llama_cpp._model import MOST_DRAFTED, Context, Model, Part
from sqs_codec.system.llama_cpp._options import TEXTS, Options
from sqs_codec.system.session import Job, verify_jobs

CONTEXT = 4096
"""Tokens of a session, unless options or memory say otherwise."""

PAGE = 256
"""llama.cpp rounds a session's tokens up to a multiple of it."""

ALIKE = 8
"""For repeatable rows a pass has a multiple of so many of each text: fewer, and others,
go through other functions of ggml."""

SHORT = 56
"""Likewise it has no more of a text, as attention to 64 at once is another one."""


class Cloud:
    """A `Verifier` of rounds by a GGUF file.

    The new tokens of all jobs are one batch of llama.cpp. Each session has memory of
    its own for a text, which stays for its next job: what a job says otherwise is read
    again. Where there are more sessions than memory is for, the one that has waited
    longest loses its own. llama.cpp's log is silenced for the whole process.

    Parameters
    ----------
    path : str or path
        The file; of a model in several files, the first one.
    max_memory : int
        Bytes that keys and values may take, unless there is a ``ctx_size``.
    options : mapping, optional
        What `Options` has, for llama.cpp.

    Attributes
    ----------
    vocab_size, max_text : int
        As in `Verifier`.
    fingerprint : bytes
        That of the Hugging Face tokenizer from which the file was made.
    places : int
        How many sessions there is memory for.
    summary : str
        What runs where, for people.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        llama.cpp can't load it, it isn't a model that writes texts or goes back in one,
        or there isn't memory for it; the message says why.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_memory: int = 2**30,
        options: Options | None = None,
    ) -> None:
        checks.in_range("max_memory", max_memory, 1)
        options = options or Options()
        model = Model(path, options)
        self.vocab_size, self.fingerprint = model.vocab_size, model.fingerprint
        spare = ALIKE if options.repeatable else 0
        tokens, self.places = _sizes(model, max_memory, spare)
        context = Context(
            model, tokens * self.places, self.places, goes_back=True, apart=True
        )
        if not model.can_branch and context.goes_back < MOST_DRAFTED:
            raise ValueError(
                f"{path} keeps a recurrent state, which llama.cpp can't roll back over "
                f"the {MOST_DRAFTED} tokens that a draft may have"
            )
        self._context, self._spare = context, spare
        self.max_text = min(model.max_tokens, tokens - spare)
        self._slots = [_Slot(place) for place in range(self.places)]
        self._clock = itertools.count()
        self.summary = f"{model.name} by llama.cpp, {_where(model, context)}"
        if spare:
            self._compare()

    def __repr__(self) -> str:
        return (
            f"<Cloud of llama.cpp, vocabulary {self.vocab_size}, {self.places} texts "
            f"of at most {self.max_text} tokens>"
        )

    def verify(self, jobs: Sequence[Job]) -> list[Verdict | None]:
        """Return the verdict on each job, None where there was nothing to verify.

        Parameters
        ----------
        jobs : sequence of Job
            Of different sessions.

        Raises
        ------
        ValueError
            If a job is none that the model can do; nothing has been done then. Or if
            the model gives NaN.
        RuntimeError
            llama.cpp failed; what was cached is gone.
        """
        because = f"{self.places} sessions have that much of the memory each"
        tasks = []
        for i, job in enumerate(jobs):
            try:
                tokens = job.check(self.vocab_size, self.max_text, because)
            except ValueError as error:
                raise ValueError(f"jobs[{i}]: {error}") from None
            tasks.append(_Task(job, tokens))
        if len({job.session for job in jobs}) < len(jobs):
            raise ValueError("jobs must be of different sessions")
        verdicts: dict[bytes, Verdict | None] = {}
        # Those that are cached first, before the others evict them.
        known = {slot.session for slot in self._slots}
        tasks.sort(key=lambda task: task.job.session not in known)
        for i in range(0, len(tasks), self.places):
            self._run(tasks[i : i + self.places], verdicts)
        return [verdicts.get(job.session) for job in jobs]

    def forget(self, session: bytes) -> None:
        """Give a session's memory to the next that needs some. From any thread."""
        for slot in self._slots:
            if slot.session == session:
                slot.session = None

    def _run(self, group: list[_Task], verdicts: dict[bytes, Verdict | None]) -> None:
        """Do jobs that there is memory for, a batch at a time."""
        self._open(group)
        while group := [task for task in group if task.left]:
            # Rounds first, as a rule the shortest: others may wait for a long text.
            group.sort(key=lambda task: (not task.job.wanted, task.left))
            taken = self._take(group)
            logits = self._read([task.part(count) for task, count in taken])
            done = []
            for task, count in taken:
                task.slot.tokens += task.tokens[len(task.slot.tokens) :][:count]
                if task.job.wanted and not task.left:
                    done.append(task.job)
            found = verify_jobs(done, logits)
            for job, verdict in zip(done, found, strict=True):
                verdicts[job.session] = verdict

    def _open(self, group: Sequence[_Task]) -> None:
        """Give each job memory with nothing in it but what it can use."""
        own = {slot.session: slot for slot in self._slots if slot.session is not None}
        kept = [own[task.job.session] for task in group if task.job.session in own]
        # The lowest of those that are free, as llama.cpp reads neighbours at once.
        free = (slot for slot in self._slots if slot not in kept)
        others = iter(sorted(free, key=_Slot.turn))
        for task in group:
            session = task.job.session
            if session not in own:
                own[session] = next(others)
                own[session].tokens.clear()  # so that nobody learns what others say
            slot = task.slot = own[session]
            slot.session, slot.used = session, next(self._clock)
            most = len(task.tokens) - task.job.wanted
            length = min(common_length(slot.tokens, task.tokens), most)
            # A recurrent state may not go back so far.
            if not self._context.cut(slot.place, length):
                self._context.cut(slot.place, length := 0)
            del slot.tokens[length:]

    def _take(self, group: Sequence[_Task]) -> list[tuple[_Task, int]]:
        """Choose what to read next: of which text how many tokens."""
        taken: list[tuple[_Task, int]] = []
        room = self._context.batch_size
        for task in group:
            most = min(room, SHORT) if self._spare else room
            count = task.left
            if count > most:  # the wanted rows come out of one batch
                count = min(most, count - task.job.wanted)
            if count > 0:
                taken.append((task, count))
                room -= count + (-count % ALIKE if self._spare else 0)
        return sorted(taken, key=lambda each: each[0].slot.place)

    def _pad(self, text: Sequence[int]) -> Sequence[int]:
        """Add tokens to a part of a text, where rows have to be repeatable."""
        return [*text, *[0] * (-len(text) % ALIKE)] if self._spare else text

    def _compare(self) -> None:
        """Hold texts to each other that are read in other parts and beside others."""
        text = [(7 * i + 1) % self.vocab_size for i in range(SHORT + ALIKE)]
        most = min(self.places, 4, self._context.batch_size // SHORT)
        found: list[NDArray[np.float32]] = []
        for size, beside in (SHORT, most), (2 * ALIKE, 1), (ALIKE, most):
            for start in range(0, SHORT, size):
                part = text[start : min(start + size, SHORT)]
                self._read([(place, start, part, ()) for place in range(most)])
            parts = [(i, SHORT, text[SHORT:], range(ALIKE)) for i in range(beside)]
            rows = self._read(parts).reshape(beside, ALIKE, -1)
            found.extend(rows.copy())
            for place in range(most):
                self._context.cut(place, 0)
        error = max(float(np.abs(each - found[0]).max()) for each in found)
        if error:
            raise ValueError(
                f"rows aren't repeatable here: llama.cpp's logits change by up to "
                f"{error:.2g} with what is read beside them"
            )

    def _read(self, parts: Sequence[Part]) -> NDArray[np.float32]:
        """Return the wanted logits of parts of texts."""
        try:
            rows = self._context.decode(
                (place, start, self._pad(text), wanted)
                for place, start, text, wanted in parts
            )
        except RuntimeError:
            for slot in self._slots:
                slot.tokens.clear()
            self._context.clear()
            raise
        if self._spare:
            for place, start, tokens, _ in parts:
                self._context.cut(place, start + len(tokens))
        return rows


@dataclass(eq=False)
class _Slot:
    """One of llama.cpp's sequences: whose text it has, and as far as it was read."""

    place: int
    session: bytes | None = None
    tokens: list[int] = field(default_factory=list)
    used: int = -1

    def turn(self) -> tuple[bool, int]:
        """Sort those that are free by where they are, before others by their age."""
        taken = self.session is not None
        return taken, self.used if taken else self.place


@dataclass(eq=False)
class _Task:
    """A job in the works, its text and draft, and where they are read."""

    job: Job
    tokens: list[int]
    slot: _Slot = field(init=False)

    @property
    def left(self) -> int:
        return len(self.tokens) - len(self.slot.tokens)

    def part(self, count: int) -> Part:
        start = len(self.slot.tokens)
        wanted = range(count - self.job.wanted, count) if count == self.left else ()
        return self.slot.place, start, self.tokens[start : start + count], wanted


def _sizes(model: Model, max_memory: int, spare: int) -> tuple[int, int]:
    """Return the tokens of a session, and how many sessions there is memory for."""
    options = model.options
    most, places = min(model.max_tokens + spare, CONTEXT), options.parallel
    if options.ctx_size is not None:
        places = places or min(max(options.ctx_size // most, 1), TEXTS)
        return options.ctx_size // places // PAGE * PAGE or PAGE, places
    fixed, each = _memory(model)
    pages = -(-most // PAGE)
    if places is None:
        places = min(max(max_memory // (fixed + pages * PAGE * each), 1), TEXTS)
    else:
        pages = -(-(model.max_tokens + spare) // PAGE)
    pages = min(pages, (max_memory // places - fixed) // (PAGE * each))
    if pages < 1:
        least = places * (fixed + PAGE * each)
        raise ValueError(
            f"max_memory must be at least {least} for {places} sessions of {PAGE} "
            f"tokens of this model, got {max_memory}"
        )
    return pages * PAGE, places


def _memory(model: Model) -> tuple[int, int]:
    """Return the bytes that a text takes, and those that each of its tokens does."""
    context = Context(model, PAGE, 1, goes_back=True, apart=True)
    sizes = []
    for i in range(2):
        context.decode([(0, i, [0], ())])
        sizes.append(context.size(0))
    each = max(sizes[1] - sizes[0], 1)
    return max(sizes[0] - each, 0) * (1 + context.goes_back), each


def _where(model: Model, context: Context) -> str:
    """Say what is on which device."""
    said = []
    for kind, name in ("model", "weights"), ("KV", "keys and values"), ("RS", "states"):
        sizes: dict[str, float] = {}
        for where, what, size in model.buffers + context.buffers:
            if what == kind:
                sizes[where] = sizes.get(where, 0.0) + size
        if sizes:
            parts = (f"{size:.0f} MiB on {where}" for where, size in sizes.items())
            said.append(f"{name} {', '.join(parts)}")
    tokens = context.n_ctx // context.places
    said.append(f"{context.places} sessions of {tokens} tokens")
    return "; ".join(said)
