"""Base files of llama-perplexity, as input for a reference."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sqs_codec._base.files import require_file
from sqs_codec._base.format import MAX_SEQUENCE, MAX_VOCAB
from sqs_codec.distill._header import damage
from sqs_codec.distill._make import Piece
from sqs_codec.distill._tasks import AT_ONCE, Answer, Counting, Task, Tokenizer

MAGIC = b"_logits_"

STEPS = 65535
"""Quantization steps of log-probabilities, from a row's smallest to its largest."""

CLIPPED = 16 - 1 / 256
"""Nats below the largest, rounded down; llama.cpp raises lower values to -16."""

SLACK = 1 / 64
"""Nats of rounding error of a log-probability."""


class BaseFile:
    """A base file of llama-perplexity (``--kl-divergence-base``), as a `Reader`.

    `make` converts it into a reference. Tokens that llama.cpp clipped, more than 16
    nats below a row's most probable token, get the probability 0; other ``logprobs``
    are the file's. The file doesn't name its tokenizer: pass the model's, whose size
    excludes padding. An invalid file is a ValueError.
    """

    def __init__(self, path: str | os.PathLike[str], tokenizer: Tokenizer) -> None:
        self._path, self.tokenizer = path, tokenizer
        require_file(path)
        with damage(path), open(path, "rb") as file:
            self._read_header(file.read(20), Path(path).stat().st_size)

    def _read_header(self, head: bytes, size: int) -> None:
        if head[: len(MAGIC)] != MAGIC:
            raise ValueError("it doesn't begin as a base file of llama-perplexity")
        if len(head) < 20:
            raise ValueError("it is cut in its header")
        n, vocab_size, chunks = np.frombuffer(head, "<i4", offset=8).tolist()
        for name, value, least, most in (
            ("n_ctx", n, 3, MAX_SEQUENCE),
            ("n_vocab", vocab_size, 2, MAX_VOCAB),
            ("n_chunk", chunks, 1, size),
        ):
            if not least <= value <= most:
                raise ValueError(f"its {name} is {value}, not in [{least}, {most}]")
        padded = vocab_size + vocab_size % 2
        row = np.dtype([("scale", "<f4"), ("least", "<f4"), ("steps", "<u2", padded)])
        shape, start = (chunks, n - 1 - n // 2), 20 + 4 * n * chunks
        expected = start + shape[0] * shape[1] * row.itemsize
        if size != expected:
            whole = f"{chunks} contexts of {n} tokens of {vocab_size} take {expected}"
            raise ValueError(f"it has {size} bytes, and {whole}")
        self._rows = np.memmap(self._path, row, "r", start, shape)
        tokens = np.fromfile(self._path, "<i4", n * chunks, offset=20)
        self.max_tokens, self.at_once = n, 4 * n
        if self.tokenizer.vocab_size > vocab_size:
            own = f"the model has {self.tokenizer.vocab_size}"
            raise ValueError(f"it is of {vocab_size} tokens, and {own}")
        outside = (tokens < 0) | (tokens >= self.tokenizer.vocab_size)
        if outside.any():
            end = f"there are {self.tokenizer.vocab_size}"
            raise ValueError(f"its text has the token {tokens[outside][0]}, and {end}")
        self._tokens = tokens.reshape(chunks, n)
        if (bos := self.tokenizer.bos) is not None:
            self._tokens[:, 0] = bos

    def contexts(self) -> list[Piece]:
        """Return each context and the places of its rows, for `make`."""
        n = self.max_tokens
        return [Piece(row, range(n // 2, n - 1)) for row in self._tokens.tolist()]

    def read(self, texts: Iterable[Task]) -> Iterator[tuple[Task, Answer]]:
        """Yield the answers of the file's contexts, at temperature 1."""
        for task in texts:
            if not isinstance(task, Counting) or task.header.temperature != 1:
                only = "for a reference of temperature 1, nothing else"
                raise ValueError(f"{self._path} is {only}")
            n, i = self.max_tokens, task.index
            is_own = np.array_equal(self._tokens[i : i + 1], [task.tokens])
            if not is_own or [*task.places] != [*range(n // 2, n - 1)]:
                raise ValueError(f"{self._path} has another text {i}")
            step = max(1, AT_ONCE // self.tokenizer.vocab_size)
            for start in range(0, len(task.places), step):
                with damage(f"{self._path}, context {i}"):
                    answer = self._look(task, slice(start, start + step))
                yield task, answer

    def _look(self, task: Counting, rows: slice) -> Answer:
        found: NDArray[np.void] = self._rows[task.index, rows]
        scale, least = (found[name][:, None] for name in ("scale", "least"))
        steps = found["steps"][:, : self.tokenizer.vocab_size]
        likeliest, each = steps.argmax(1), np.arange(len(steps))
        with np.errstate(invalid="ignore", over="ignore"):
            largest = scale[:, 0] * steps[each, likeliest] + least[:, 0]
        # One of V tokens has a probability of 1 / V at least, and none one above 1.
        bound = -np.log(self._rows["steps"].shape[-1]) - SLACK
        is_sound = (scale[:, 0] >= 0) & (bound <= largest) & (largest <= SLACK)
        if not is_sound.all():
            row = int(is_sound.argmin())
            has = f"the scale {scale[row, 0]} and the largest log p {largest[row]}"
            raise ValueError(f"row {rows.start + row} has {has}")
        logs = scale * steps + least
        masked = np.where((steps == 0) & (scale * STEPS >= CLIPPED), -np.inf, logs)
        counts = task.quantize(masked)
        rows_of_ids = np.repeat(each, np.diff(counts.offsets))
        told = {
            "logprobs": logs[rows_of_ids, counts.token_ids],
            "token_logprobs": logs[each, task.following[rows]],
            "likeliest": likeliest.astype(np.uint32),
        }
        return Answer(counts, task.extras_of(told))
