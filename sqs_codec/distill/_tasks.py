"""Tasks: computations on a model's logits for a text, on any device."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate, groupby, tee
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sqs_codec._base import checks
from sqs_codec._codec.codec import random_numbers
from sqs_codec._codec.rows import SparseRows
from sqs_codec.distill._dataset import Text
from sqs_codec.distill._header import LEAST_LOG, Header

AT_ONCE = 1 << 18
"""Logits per step, so that they fit a core's cache."""

Asked = TypeVar("Asked", bound="Task")


class Answer(NamedTuple):
    """A task's result: the counts of a `Counting`, and other arrays by name."""

    rows: SparseRows | None
    told: dict[str, NDArray[Any]]


class Task(ABC):
    """A text, and a computation on its logits at some places.

    The logits at place i predict the token after ``tokens[: i + 1]``; after the last
    token, `following` is -1. Run tasks with the same `batch` together.
    """

    def __init__(
        self,
        index: int,
        tokens: Sequence[int],
        places: Any,
        vocab_size: int,
        batch: int = 0,
    ) -> None:
        self.index, self.tokens, self.vocab_size = index, tokens, vocab_size
        self.places, self.batch = np.asarray(places, np.int64), batch
        self.following = np.array([*tokens, -1], np.int64)[self.places + 1]
        self._parts: list[Answer] = []
        self._told = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.places)} rows>"

    def tell(self, part: Any) -> None:
        """Take the logits [n, vocab_size] at the next n places, or their answer."""
        if not isinstance(part, Answer):
            shape, left = tuple(np.shape(part)), len(self.places) - self._told
            if len(shape) != 2 or shape[0] > left or shape[1] != self.vocab_size:
                raise ValueError(
                    f"logits must have shape [n, {self.vocab_size}] with n at most "
                    f"{left}, the rows that are left, got {[*shape]}"
                )
            part = self._look(part, slice(self._told, self._told + shape[0]))
        self._parts.append(part)
        rows, told = part
        self._told += len(told["likeliest"] if rows is None else rows)

    @property
    def is_told(self) -> bool:
        """Whether the logits at all places have arrived."""
        return self._told == len(self.places)

    @property
    def answer(self) -> Answer:
        """The results, once all rows have arrived."""
        if not self.is_told or not self._parts:
            raise ValueError(
                f"text {self.index}: got {self._told} of {len(self.places)} rows"
            )
        every, told = zip(*self._parts, strict=True)
        rows = None if every[0] is None else SparseRows.concatenate(every)
        names = told[0]
        return Answer(rows, {n: np.concatenate([x[n] for x in told]) for n in names})

    @abstractmethod
    def _look(self, logits: Any, rows: slice) -> Answer:
        """Return the answer for some of the rows."""


class Counting(Task):
    """Computes counts, rounded with a generator, and a header's extras."""

    def __init__(
        self,
        index: int,
        tokens: Sequence[int],
        places: Any,
        header: Header,
        rng: np.random.Generator,
        batch: int = 0,
    ) -> None:
        super().__init__(index, tokens, places, header.codec.vocab_size, batch)
        self.header, self.rng = header, rng

    def quantize(self, logits: Any) -> SparseRows:
        codec, t = self.header.codec, self.header.temperature
        if not _is_tensor(logits):
            return codec.quantize_unbiased_rows(logits, temperature=t, rng=self.rng)
        from sqs_codec.torch._unbiased import round_rows

        return round_rows(codec, logits, t, partial(random_numbers, self.rng))

    def extras_of(self, told: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {n: told[n] for n in self.header.extras}
        for name in found.keys() - {"likeliest"}:
            # Rounding or a mask may exceed these limits.
            found[name] = np.clip(found[name], LEAST_LOG, 0)
        return found

    def _look(self, logits: Any, rows: slice) -> Answer:
        counts, told = self.quantize(logits), {}
        if self.header.extras:
            asked = counts, self.following[rows]
            told = look_up(logits, *asked, temperature=self.header.temperature)
        return Answer(counts, self.extras_of(told))


class Comparing(Task):
    """Computes the probabilities of the tokens of a reference's text."""

    def __init__(self, index: int, text: Text, batch: int = 0) -> None:
        tokens, size = text.tokens.tolist(), text.rows.vocab_size
        super().__init__(index, tokens, text.places, size, batch)
        self.text = text

    def _look(self, logits: Any, rows: slice) -> Answer:
        return Answer(None, look_up(logits, self.text.rows[rows], self.following[rows]))


class Tokenizer(Protocol):
    """The tokenizer of a `Reader`."""

    @property
    def vocab_size(self) -> int:
        """The number of logits at a place."""

    @property
    def fingerprint(self) -> bytes:
        """The result of `sqs.vocabulary_fingerprint`; empty if unknown."""

    @property
    def bos(self) -> int | None:
        """The token with which the model's texts begin, if any."""

    def encode(self, text: str, *, special: bool = True) -> Sequence[int]:
        """Tokenize a text; without `special`, special tokens in it are plain text."""


class Reader(Protocol):
    """A model that returns logits for texts."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""

    @property
    def max_tokens(self) -> int:
        """The length of the longest text."""

    @property
    def at_once(self) -> int:
        """Tokens per batch of texts; also the most that an interruption loses."""

    def read(self, texts: Iterable[Task]) -> Iterator[tuple[Task, Any]]:
        """Yield texts with their logits, an array_like or tensor [n, V].

        Logits are needed at ``text.places`` of ``text.tokens``; those at place i
        predict the token after ``tokens[: i + 1]``. A text may be yielded several
        times, each time with the logits at its next n places. Any order is allowed.
        """


def read_all(
    reader: Reader,
    texts: Iterable[Any],
    task_of: Callable[[int, Any, int], Asked],
    done: int = 0,
) -> Iterator[Asked]:
    """Run a reader on texts; yield a finished task for each, in order.

    `done` is the number of texts to skip, and `task_of` takes the index, the text and
    its batch. Batches don't depend on `done`, because the last bits of logits depend
    on the batch.
    """
    waiting = deque[Asked]()

    def asked() -> Iterator[Asked]:
        for first, window in windows(texts, reader.at_once):
            for i, text in enumerate(window, first):
                if (n := len(text.tokens)) > reader.max_tokens:
                    most = f"the reader takes at most {reader.max_tokens}"
                    raise ValueError(f"text {i} has {n} tokens, but {most}")
                if first + len(window) > done:
                    waiting.append(task_of(i, text, first))
                    yield waiting[-1]

    for told in reader.read(asked()):
        match told:
            case (Task() as task, part):
                task.tell(part)
            case _:
                raise TypeError(
                    "a reader must yield the tasks that it got, with logits"
                )
        while waiting and waiting[0].is_told:
            yield waiting.popleft()
    yield from waiting  # the answer of an unfinished task is an error


def windows(texts: Iterable[Any], size: int) -> Iterator[tuple[int, list[Any]]]:
    """Yield the texts that begin in each `size` tokens, with their first index."""
    texts, others = tee(texts)
    starts = accumulate((len(text.tokens) for text in others), initial=0)
    first = 0
    pairs = zip(texts, starts, strict=False)
    for _, own in groupby(pairs, lambda pair: pair[1] // size):
        window = [text for text, _ in own]
        yield first, window
        first += len(window)


def look_up(
    logits: Any,
    counts: SparseRows,
    following: NDArray[np.int64],
    *,
    temperature: float = 1.0,
) -> dict[str, NDArray[Any]]:
    """Look up, in N rows of logits, the log-probabilities of N rows of counts.

    If no token follows (-1), its log-probability is 0. A row with NaN gives NaN.
    """
    if not checks.temperature(temperature):
        raise ValueError("logarithms of probabilities need a temperature above 0")
    part_of: Any = _look_up_part
    if is_far := _is_far(logits):
        from sqs_codec.torch._distill import look_up_part as part_of
    elif not _is_tensor(logits):
        logits = checks.rows("logits", logits, np.shape(logits)[1]).values
    step = max(1, (AT_ONCE << 5 * is_far) // logits.shape[1])  # each part is a wait
    ids, ends, n = counts.token_ids.astype(np.int64), counts.offsets, len(counts)
    rows = np.repeat(np.arange(n), np.diff(ends))

    def told(i: int) -> tuple[NDArray[Any], ...]:
        own = slice(ends[i], ends[min(i + step, n)])
        asked = rows[own] - i, ids[own], following[i : i + step]
        found: tuple[NDArray[Any], ...] = part_of(
            logits[i : i + step], *asked, temperature
        )
        return found

    starts = range(0, max(n, 1), step)
    if is_far:  # only this thread uses the logits' stream
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
        from sqs_codec.torch._distill import on_host

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
    """Return whether logits are on an accelerator, which then does the look-up."""
    return _is_tensor(logits) and logits.device.type not in ("cpu", "mps")


def _is_tensor(logits: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(logits, torch.Tensor)
