"""A reader that yields the logits of texts, with a GGUF file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqs_codec.system.llama_cpp._model import Context, Model, Part
from sqs_codec.system.llama_cpp._options import BATCH, TEXTS, Options
from sqs_codec.system.llama_cpp._tokenizer import Tokenizer

if TYPE_CHECKING:
    from sqs_codec.distill._tasks import Task


class ModelReader:
    """A `sqs_codec.distill.Reader` with a GGUF file; parameters as of `Draft`.

    It computes logits as ``llama-perplexity`` does. Batches have 512 tokens, of one
    text or of several short ones. llama.cpp's log is silenced for the whole process.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, threads: int | None = None
    ) -> None:
        model = Model(path, Options(threads=threads))
        self.name = model.name
        self.tokenizer = Tokenizer(model)
        self.max_tokens, self.at_once = model.max_tokens, 4 * BATCH
        self._model, self._context = model, Context(model, BATCH, TEXTS)

    def __repr__(self) -> str:
        return f"<ModelReader of {self.name}>"

    def read(self, texts: Iterable[Task]) -> Iterator[tuple[Task, Any]]:
        """Yield texts with their logits. The next step overwrites these."""
        for _, together in groupby(texts, attrgetter("batch")):
            for batch in self._batches(together):
                self._context.clear()
                end = int(max(task.places[-1] for task in batch)) + 1
                for start in range(0, end, BATCH):
                    parts: list[Part] = []
                    for i, task in enumerate(batch):
                        at = task.places - start
                        wanted = at[(at >= 0) & (at < BATCH)].tolist()
                        own = task.tokens[start : start + BATCH]
                        parts.append((i, start, own, wanted))
                    rows = self._context.decode(parts)
                    for i, _, _, wanted in parts:
                        yield batch[i], rows[: len(wanted)]
                        rows = rows[len(wanted) :]

    def _batches(self, tasks: Iterable[Task]) -> Iterator[list[Task]]:
        """Yield batches of texts, after enlarging the context for them."""
        batch: list[Task] = []
        room = 0
        for task in tasks:
            size = len(task.tokens)
            if size > room or len(batch) == self._context.places:
                if batch:
                    yield batch
                batch, room = [], max(BATCH, size)
                if room > self._context.n_ctx:
                    # A power of two, so that longer texts rarely need another one.
                    most = 1 << (room - 1).bit_length()
                    self._context = Context(self._model, most, TEXTS)
            batch.append(task)
            room -= size
        if batch:
            yield batch
