"""What is asked of a model about a text, wherever its logits are."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sqs_codec._base import checks
from sqs_codec._codec.codec import random_numbers
from sqs_codec._codec.rows import SparseRows
from sqs_codec.distill._header import LEAST_LOG, Header

AT_ONCE = 1 << 18
"""Logits that are looked at together: what a core has near it."""

Tasks = TypeVar("Tasks", bound="Sequence[Task]")

Answer = dict[str, Any]
"""Arrays by their names: of all rows, or of all ids of all rows, in order."""


class Task(ABC):
    """A text, and what a `Reader` is to tell of it.

    Attributes
    ----------
    index : int
        Which of all texts it is.
    tokens : sequence of int
        The text.
    places : ndarray of int64 [N]
        Ascending: where rows of logits are wanted. Row i is of what follows
        ``tokens[: places[i] + 1]``.
    following : ndarray of int64 [N]
        What does follow, or -1 after the last token.
    vocab_size : int
        How many logits a row has.
    """

    def __init__(
        self, index: int, tokens: Sequence[int], places: Any, vocab_size: int
    ) -> None:
        self.index, self.tokens, self.vocab_size = index, tokens, vocab_size
        self.places = np.asarray(places, np.int64)
        text = np.array([*tokens, -1], np.int64)
        self.following = text[self.places + 1]
        self._parts: list[Mapping[str, Any]] = []
        self._told = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.places)} rows>"

    def tell(self, logits: Any) -> None:
        """Take the logits of the next of the rows that are wanted.

        Parameters
        ----------
        logits : array_like or torch.Tensor of floats [n, vocab_size]
            Of any number of rows, on any device.
        """
        shape, left = tuple(np.shape(logits)), len(self.places) - self._told
        if len(shape) != 2 or shape[0] > left or shape[1] != self.vocab_size:
            raise ValueError(
                f"logits must have shape [n, {self.vocab_size}] with n up to {left}, "
                f"the rows that are left, got {[*shape]}"
            )
        rows = slice(self._told, self._told + shape[0])
        self.take(self._look(logits, rows), shape[0])

    def require_length(self, name: str, most: int) -> None:
        """Refuse a text that a model can't read."""
        if (n := len(self.tokens)) > most:
            raise ValueError(
                f"text {self.index} has {n} tokens, and {name} reads {most} at most"
            )

    def take(self, answer: Answer, rows: int | None = None) -> None:
        """Take `answer` of a task that is like this one, for the next rows, or all."""
        self._parts.append(answer)
        self._told += len(self.places) if rows is None else rows

    @cached_property
    def answer(self) -> Answer:
        """What was asked for, once all has been told."""
        if self._told != len(self.places) or not self._parts:
            raise ValueError(
                f"text {self.index}: {self._told} rows of {len(self.places)} were told"
            )
        return {
            name: np.concatenate([part[name] for part in self._parts])
            for name in self._parts[0]
        }

    @abstractmethod
    def _look(self, logits: Any, rows: slice) -> Answer:
        """Return the answer for some rows."""


class Counting(Task):
    """Asks for counts, and for the numbers that a header names.

    Attributes
    ----------
    header : Header
    rng : numpy.random.Generator
        Of the rounding.
    """

    def __init__(
        self,
        index: int,
        tokens: Sequence[int],
        places: Any,
        header: Header,
        rng: np.random.Generator,
    ) -> None:
        super().__init__(index, tokens, places, header.codec.vocab_size)
        self.header, self.rng = header, rng

    def quantize(self, logits: Any) -> SparseRows:
        """Return the counts of rows of logits."""
        codec, t = self.header.codec, self.header.temperature
        if not _is_tensor(logits):
            return codec.quantize_unbiased_rows(logits, temperature=t, rng=self.rng)
        from sqs_codec.torch._unbiased import round_rows

        return round_rows(codec, logits, t, partial(random_numbers, self.rng))

    def _look(self, logits: Any, rows: slice) -> Answer:
        counts, told = self.quantize(logits), {}
        if self.header.numbers:
            asked = counts.token_ids, np.diff(counts.offsets), self.following[rows]
            told = look_up(logits, *asked, temperature=self.header.temperature)
        return self.answer_of(counts, told)

    def answer_of(self, counts: SparseRows, told: Answer) -> Answer:
        """Return the answer for rows with these counts, and with such numbers."""
        return {
            "token_ids": counts.token_ids,
            "counts": counts.counts,
            "sizes": np.diff(counts.offsets),
            **{name: told[name] for name in self.header.numbers},
        }

    def rows(self) -> tuple[SparseRows, Answer]:
        """Return all distributions, and the numbers of the header."""
        told, codec = self.answer, self.header.codec
        offsets = np.concatenate([[0], np.cumsum(told["sizes"], dtype=np.int64)])
        shape = codec.vocab_size, codec.resolution
        counts = SparseRows(told["token_ids"], told["counts"], offsets, *shape)
        numbers: Answer = {name: told[name] for name in self.header.numbers}
        for name in ("logprobs", "token_logprobs"):
            if name in numbers:  # which rounding, or a mask, may take beyond
                numbers[name] = np.clip(numbers[name], LEAST_LOG, 0)
        return counts, numbers


class Comparing(Task):
    """Asks for the probabilities of ids: the answer is that of `look_up`.

    Attributes
    ----------
    ids : ndarray of uint32 [n]
        Of one row after the other.
    sizes : ndarray of int64 [N]
        How many of them are of each row.
    """

    def __init__(
        self,
        index: int,
        tokens: Sequence[int],
        places: Any,
        vocab_size: int,
        ids: NDArray[np.uint32],
        sizes: NDArray[np.int64],
    ) -> None:
        super().__init__(index, tokens, places, vocab_size)
        self.ids, self.sizes = ids, sizes
        self._ends = np.concatenate([[0], np.cumsum(sizes)])

    def _look(self, logits: Any, rows: slice) -> Answer:
        ids = self.ids[self._ends[rows.start] : self._ends[rows.stop]]
        return look_up(logits, ids, self.sizes[rows], self.following[rows])


class Reader(Protocol):
    """What reads texts and tells of its distributions, wherever its logits are.

    It has the model's name for a file, how many tokens there are and, of a text, it can
    read, `sqs.vocabulary_fingerprint` of the tokenizer, or none, the token that the
    model wants at a text's beginning, if it does, and how many tokens of texts it is to
    be given at once, which an interruption loses. One that several threads may ask at
    a time says how many, as ``replicas``.
    """

    name: str
    vocab_size: int
    tokenizer_fingerprint: bytes
    max_tokens: int
    bos: int | None
    at_once: int

    def tokenize(self, text: str, *, special: bool = True) -> Sequence[int]:
        """Return the tokens of a text, with those that the model has around it.

        A special token that the text spells is this token, or, if not `special`, text.
        """

    def read(self, tasks: Sequence[Task]) -> None:
        """Read the texts of tasks, and `Task.tell` each of them of its rows.

        A task is told in order, in as many parts as there are. What tells elsewhere,
        where the logits are, gives `Task.take` the answer from there.
        """


def done(reader: Reader, batches: Iterable[Tasks]) -> Iterator[Tasks]:
    """Have a reader do batches of tasks, as many at a time as it can, in order."""
    most = getattr(reader, "replicas", 1)
    if most == 1:
        for tasks in batches:
            reader.read(tasks)
            yield tasks
        return
    pool, asked = ThreadPoolExecutor(most), deque[tuple[Future[None], Tasks]]()
    try:
        for tasks in batches:
            asked.append((pool.submit(reader.read, tasks), tasks))
            if len(asked) > 2 * most:  # so that none waits while another one reads on
                yield _first(asked)
        while asked:
            yield _first(asked)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _first(asked: deque[tuple[Future[None], Tasks]]) -> Tasks:
    future, tasks = asked.popleft()
    future.result()
    return tasks


def look_up(
    logits: Any,
    ids: NDArray[Any],
    sizes: NDArray[Any],
    following: NDArray[np.int64],
    *,
    temperature: float = 1.0,
) -> Answer:
    """Return what rows of logits [N, V] say of ids [n], `sizes` of them of each row."""
    # Where no token follows, -1, its logarithm is 0. A row with NaN has NaN for all.
    if not checks.temperature(temperature):
        raise ValueError("logarithms of probabilities need a temperature above 0")
    part_of: Any = _look_up_part
    if is_far := _is_far(logits):
        from sqs_codec.torch._look_up import look_up_part as part_of
    elif not _is_tensor(logits):
        logits = checks.rows("logits", logits, np.shape(logits)[1]).values
    step = max(1, (AT_ONCE << 5 * is_far) // logits.shape[1])  # each part is a wait
    ends = np.concatenate([[0], np.cumsum(sizes)])
    rows = np.repeat(np.arange(len(sizes)), sizes)

    def told(i: int) -> tuple[NDArray[Any], ...]:
        own = slice(ends[i], ends[min(i + step, len(sizes))])
        asked = rows[own] - i, ids[own].astype(np.int64), following[i : i + step]
        found: tuple[NDArray[Any], ...] = part_of(
            logits[i : i + step], *asked, temperature
        )
        return found

    starts = range(0, max(len(sizes), 1), step)
    if is_far:  # in this thread, whose stream the logits are on
        parts = [*map(told, starts)]
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            parts = [*pool.map(told, starts)]
    found = zip(*parts, strict=True)
    logprobs, token_logprobs, likeliest = map(np.concatenate, found)
    return {
        "logprobs": logprobs,
        "token_logprobs": np.where(following < 0, np.float32(0), token_logprobs),
        "likeliest": likeliest.astype(np.uint32),
    }


def _look_up_part(
    logits: Any,
    rows: NDArray[np.int64],
    ids: NDArray[np.int64],
    following: NDArray[np.int64],
    temperature: float,
) -> tuple[NDArray[Any], ...]:
    if _is_tensor(logits):
        from sqs_codec.torch._look_up import on_host

        logits = on_host(logits)
    x = logits.astype(np.promote_types(logits.dtype, np.float32), copy=False)
    likeliest, each = x.argmax(1), np.arange(len(x))
    with np.errstate(invalid="ignore"):
        y = x - x[each, likeliest][:, None]
        if temperature != 1:
            y /= y.dtype.type(temperature)
        own, next_ = y[rows, ids], y[each, following]
        logs = np.log(np.exp(y, out=y).sum(1))
        told = own - logs[rows], next_ - logs
    return *(part.astype(np.float32, copy=False) for part in told), likeliest


def _is_far(logits: Any) -> bool:
    """Whether logits are on an accelerator, which looks up there."""
    return _is_tensor(logits) and logits.device.type not in ("cpu", "mps")


def _is_tensor(logits: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(logits, torch.Tensor)
