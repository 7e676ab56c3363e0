"""A model that tells of the texts that it reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from sqs_codec import SparseRows
from sqs_codec.system.hf._cached import CachedModel
from sqs_codec.system.hf._models import LanguageModel
from sqs_codec.system.hf._text import tokenizer_fingerprint
from sqs_codec.torch import quantize_unbiased_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

    from sqs_codec.distill import Header

__all__ = ["ModelReader"]

CHUNK = 512
"""Tokens that are read at once, of one text or of several."""


class ModelReader:
    """A `sqs_codec.distill.Reader`: it makes counts where a model's logits are."""

    def __init__(self, model: LanguageModel) -> None:
        self.name = model.summary
        self.vocab_size = model.vocab_size
        self.tokenizer_fingerprint = tokenizer_fingerprint(model.tokenizer)
        config = model.model.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None)
        self.max_tokens: int = limit or 1 << 31  # where none is said
        self._model = model

    def __repr__(self) -> str:
        return f"<ModelReader of {self.name}>"

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        return list(self._model.tokenizer.encode(text, verbose=False))

    def read(
        self,
        texts: Sequence[Sequence[int]],
        header: Header,
        rngs: Sequence[np.random.Generator],
    ) -> list[tuple[SparseRows, dict[str, ArrayLike]]]:
        """Return the distributions of texts, and no numbers; see the protocol."""
        rows: list[list[SparseRows]] = [[] for _ in texts]
        for i, logits in self._logits(texts):
            options: Any = {"temperature": header.temperature, "rng": rngs[i]}
            rows[i].append(quantize_unbiased_rows(header.codec, logits, **options))
        return [(SparseRows.concatenate(parts), {}) for parts in rows]

    def _logits(
        self, texts: Sequence[Sequence[int]]
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield which text and the logits after its tokens, of a long one by chunks."""
        model, size = self._model.model, self.vocab_size
        for batch in batches([*map(len, texts)]):
            if len(batch) > 1:
                # Without a mask: what comes after a token doesn't change its logits.
                rows = [torch.tensor(texts[i]) for i in batch]
                ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
                with torch.inference_mode():
                    out = model(input_ids=ids.to(model.device), use_cache=False)
                for i, logits in zip(batch, out.logits, strict=True):
                    yield i, logits[: len(texts[i]), :size]
            else:
                cached = CachedModel(model, size)
                for start in range(0, len(texts[batch[0]]), CHUNK):
                    seen = texts[batch[0]][: start + CHUNK]
                    yield batch[0], cached.tensor(seen, len(seen) - start)


def batches(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Yield which texts to read side by side: up to `CHUNK` tokens with the padding."""
    batch: list[int] = []
    for i in sorted(range(len(sizes)), key=sizes.__getitem__):
        if batch and (len(batch) + 1) * sizes[i] > CHUNK:
            yield batch
            batch = []
        batch.append(i)
    yield batch
