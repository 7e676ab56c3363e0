"""A model that yields the logits of texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sqs_codec.system.hf._cached import CachedModel
from sqs_codec.system.hf._models import LanguageModel
from sqs_codec.system.hf._text import Tokenizer

if TYPE_CHECKING:
    from sqs_codec.distill._tasks import Task


CHUNK = 512  # maximum number of tokens per forward pass on a CPU
FAR = 16  # on an accelerator this number is larger by this factor
WINDOW = 4  # `read` gets texts for this many forward passes at once


@dataclass(eq=False)
class TextReader:
    """The attributes of a `sqs_codec.distill.Reader`, and the model's name."""

    name: str
    tokenizer: Tokenizer
    max_tokens: int
    at_once: int


class ModelReader(TextReader):
    """A `sqs_codec.distill.Reader`: its logits are tensors on the model's device."""

    def __init__(self, model: LanguageModel) -> None:
        config = model.model.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None)
        most = limit or 1 << 31  # if the configuration has no limit
        self._chunk = CHUNK if model.model.device.type == "cpu" else FAR * CHUNK
        tokenizer = Tokenizer(model.tokenizer, vocab_size=model.vocab_size)
        super().__init__(model.summary, tokenizer, most, WINDOW * self._chunk)
        self._model = model

    def read(self, texts: Iterable[Task]) -> Iterator[tuple[Task, Any]]:
        """Yield texts with their logits, those of a long text in chunks."""
        for _, together in groupby(texts, attrgetter("batch")):
            tasks = [*together]
            for batch in batches([len(task.tokens) for task in tasks], self._chunk):
                own = [tasks[i] for i in batch]
                if len(own) > 1:
                    yield from zip(own, self._read_short(own), strict=True)
                else:
                    yield from ((own[0], part) for part in self._read_long(own[0]))

    def _read_short(self, tasks: Sequence[Task]) -> Sequence[torch.Tensor]:
        model = self._model.model
        # Padding comes last and needs no mask: later tokens don't change logits.
        rows = [torch.tensor(task.tokens) for task in tasks]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        wanted = [len(task.places) for task in tasks]
        texts = np.repeat(np.arange(len(tasks)), wanted)
        places = np.concatenate([task.places for task in tasks])
        at = torch.from_numpy(texts), torch.from_numpy(places)
        last = model.get_output_embeddings()
        with (
            torch.inference_mode(),
            # The last layer may take most of the time, so it gets the wanted rows only.
            last.register_forward_pre_hook(
                lambda _, given: (given[0][at][None], *given[1:])
            ),
        ):
            out = model(input_ids=ids.to(model.device), use_cache=False).logits
        # A model that doesn't call the last layer as a module returns all logits.
        logits = out[0] if len(out) == 1 else out[at]
        return torch.split(logits[:, : self._model.vocab_size], wanted)

    def _read_long(self, task: Task) -> Iterator[torch.Tensor]:
        cached = CachedModel(self._model.model, self._model.vocab_size)
        for start in range(0, int(task.places[-1]) + 1, self._chunk):
            seen = task.tokens[: start + self._chunk]
            at = task.places[(start <= task.places) & (task.places < len(seen))]
            first = int(at[0]) if at.size else len(seen) - 1
            yield cached.tensor(seen, len(seen) - first)[at - first]


def batches(sizes: Sequence[int], most: int) -> Iterator[list[int]]:
    """Yield batches of indices, each of up to `most` tokens including padding."""
    batch: list[int] = []
    for i in sorted(range(len(sizes)), key=sizes.__getitem__):
        if batch and (len(batch) + 1) * sizes[i] > most:
            yield batch
            batch = []
        batch.append(i)
    yield batch
