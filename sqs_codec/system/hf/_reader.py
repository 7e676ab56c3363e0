"""A model that tells of the texts that it reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from sqs_codec import vocabulary_fingerprint
from sqs_codec.system.hf._cached import CachedModel
from sqs_codec.system.hf._models import HFTokenizer, LanguageModel

if TYPE_CHECKING:
    from sqs_codec.distill import Task


CHUNK = 512
"""Tokens that are read side by side on a CPU, of one text or of several."""

FAR, WINDOW = 16, 4
"""How many times that on an accelerator, and how many times that are given at once."""


class TextReader:
    """What a `sqs_codec.distill.Reader` has besides `read`."""

    def __init__(
        self,
        name: str,
        tokenizer: HFTokenizer,
        vocab_size: int,
        max_tokens: int,
        at_once: int,
    ) -> None:
        self.at_once = at_once
        self.name, self.vocab_size, self.max_tokens = name, vocab_size, max_tokens
        vocabulary = tokenizer.get_vocab()
        self.tokenizer_fingerprint = vocabulary_fingerprint(vocabulary, vocab_size)
        own, bos = tokenizer.encode(""), tokenizer.bos_token_id
        self.bos: int | None = bos if bos in own[:1] else None
        self.tokenizer = tokenizer

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.name}>"

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Return the tokens of a text, in which it may spell special ones."""
        how = {"verbose": False, "split_special_tokens": not special}
        try:
            return list(self.tokenizer.encode(text, **how))
        except ValueError:  # of mistral-common, with which a text never spells any
            return list(self.tokenizer.encode(text, verbose=False))


class ModelReader(TextReader):
    """A `sqs_codec.distill.Reader`: it makes counts where a model's logits are."""

    def __init__(self, model: LanguageModel) -> None:
        config = model.model.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None)
        most = limit or 1 << 31  # where none is said
        self._chunk = CHUNK if model.model.device.type == "cpu" else FAR * CHUNK
        shared = model.summary, model.tokenizer, model.vocab_size, most
        super().__init__(*shared, WINDOW * self._chunk)
        self._model = model

    def read(self, tasks: Sequence[Task]) -> None:
        """Tell tasks of their texts, of a long one by chunks."""
        model, size = self._model.model, self.vocab_size
        sizes = [len(task.tokens) for task in tasks]
        for task in tasks:
            task.require_length(self.name, self.max_tokens)
        for batch in batches(sizes, self._chunk):
            own = [tasks[i] for i in batch]
            if len(own) > 1:
                # Without a mask: what comes after a token doesn't change its logits.
                rows = [torch.tensor(task.tokens) for task in own]
                ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
                wanted = [len(task.places) for task in own]
                texts = np.repeat(np.arange(len(own)), wanted)
                places = np.concatenate([task.places for task in own])
                at = torch.from_numpy(texts), torch.from_numpy(places)
                last = model.get_output_embeddings()
                with (
                    torch.inference_mode(),
                    # It may take most of the time, so it reads the wanted places only.
                    last.register_forward_pre_hook(
                        lambda _, given, at=at: (given[0][at][None], *given[1:])
                    ),
                ):
                    out = model(input_ids=ids.to(model.device), use_cache=False).logits
                # A model that doesn't call the last layer as a module has all logits.
                logits = out[0] if len(out) == 1 else out[at]
                for task, part in zip(own, torch.split(logits, wanted), strict=True):
                    task.tell(part[:, :size])
            else:
                self._read_long(own[0])

    def _read_long(self, task: Task) -> None:
        cached = CachedModel(self._model.model, self.vocab_size)
        for start in range(0, int(task.places[-1]) + 1, self._chunk):
            seen = task.tokens[: start + self._chunk]
            at = task.places[(start <= task.places) & (task.places < len(seen))]
            first = int(at[0]) if at.size else len(seen) - 1
            task.tell(cached.tensor(seen, len(seen) - first)[at - first])


def batches(sizes: Sequence[int], most: int) -> Iterator[list[int]]:
    """Yield which texts to read side by side: up to so many tokens with the padding."""
    batch: list[int] = []
    for i in sorted(range(len(sizes)), key=sizes.__getitem__):
        if batch and (len(batch) + 1) * sizes[i] > most:
            yield batch
            batch = []
        batch.append(i)
    yield batch
