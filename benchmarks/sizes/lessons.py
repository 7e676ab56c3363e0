"""Training data of small drafts: files of teacher logits, as arrays."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from sqs_codec import distill
from sqs_codec.system.hf._models import LanguageModel

Texts = list[distill.Text]

HELD_OUT = 40
"""The answers to one of this many prompts are held out."""


@dataclass(frozen=True)
class Batch:
    """A batch of texts with N distributions."""

    tokens: torch.Tensor
    """[B, T]."""
    taught: torch.Tensor
    """Whether a distribution follows each token, bool [B, T]."""
    rows: torch.Tensor
    """The distribution of each weight, 0 to N - 1, ascending, [M]."""
    ids: torch.Tensor
    """The token of each weight, ascending in each row, [M]."""
    weights: torch.Tensor
    """[M]."""


def read(paths: Sequence[Path]) -> tuple[Texts, Texts]:
    """Read files; return training texts and held-out texts."""
    parts: tuple[Texts, Texts] = [], []
    for text in itertools.chain.from_iterable(map(distill.load, paths)):
        asked = text.tokens[: text.places[0] + 1].astype(np.int64)
        parts[zlib.crc32(asked.tobytes()) % HELD_OUT == 0].append(text)
    return parts


def _taught(text: distill.Text) -> tuple[NDArray[Any], ...]:
    """Return the row, the token and the value of each weight."""
    sizes = np.diff(text.rows.offsets)
    rows, ids = np.repeat(np.arange(len(sizes)), sizes), text.rows.token_ids
    weights = text.rows.counts.astype(np.float32) / text.rows.resolution
    if text.tail:  # the tail isn't taught
        kept = ids < text.rows.vocab_size - 1
        rows, ids, weights = rows[kept], ids[kept], weights[kept]
        weights /= np.bincount(rows, weights)[rows].astype(np.float32)
    return rows, ids.astype(np.int64), weights


def counts(texts: Texts, vocab_size: int) -> NDArray[np.float64]:
    """Return the expected frequency of each token in the distributions."""
    found = np.full(vocab_size, 1e-3)
    for text in texts:
        np.add.at(found, *_taught(text)[1:])
        np.add.at(found, text.tokens, 0.1)
    return found


def nearest(model: LanguageModel, columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each token's column, or that of the token with the nearest embedding."""
    table = model.model.get_input_embeddings().weight.detach()[: model.vocab_size]
    table = normalize(table.float() - table.float().mean(0))
    found = torch.cat(
        [(part @ table[columns].T).argmax(1) for part in table.split(4096)]
    ).numpy()
    found[columns] = np.arange(len(columns))
    return found


def directions(table: torch.Tensor, width: int) -> torch.Tensor:
    """Project a table's rows on its `width` principal directions, scaled to std 1."""
    table = table - table.mean(0)
    main = table @ torch.linalg.eigh(table.T @ table).eigenvectors[:, -width:]
    return main / main.std()


def batches(
    texts: Texts, size: int, rng: np.random.Generator | None = None
) -> Iterator[Batch]:
    """Yield all texts in batches of similar length."""
    lengths = np.array([len(text.tokens) for text in texts], float)
    if rng is not None:
        lengths += rng.normal(0, 20, len(lengths))
    order = np.argsort(lengths)
    groups = [order[i : i + size] for i in range(0, len(order), size)]
    if rng is not None:
        rng.shuffle(groups)
    for group in groups:
        own = [texts[i] for i in group]
        shape = len(own), max(len(text.tokens) for text in own)
        tokens, taught = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
        parts, before = [], 0
        for i, text in enumerate(own):
            tokens[i, : len(text.tokens)] = text.tokens
            taught[i, text.places] = True
            rows, *weighed = _taught(text)
            parts.append((before + rows, *weighed))
            before += len(text.places)
        joined = map(np.concatenate, zip(*parts, strict=True))
        yield Batch(*map(torch.from_numpy, (tokens, taught, *joined)))
