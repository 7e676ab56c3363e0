"""What small drafts learn of: files of a teacher's distributions, as arrays."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from sqs_codec import distill
from sqs_codec.system.hf import LanguageModel

HELD_OUT = 40
"""Of so many prompts the answers to one are held out."""


@dataclass(frozen=True)
class Lesson:
    """A text, and the distributions of some of its tokens."""

    tokens: NDArray[np.int64]
    places: NDArray[np.int64]
    """After which tokens these are."""
    rows: NDArray[np.int64]
    """Of each weight: the number of its distribution, from 0."""
    ids: NDArray[np.int64]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """Lessons side by side."""

    tokens: torch.Tensor
    """[B, T]."""
    taught: torch.Tensor
    """[B, T], bool: after which tokens there are distributions, N in all."""
    rows: torch.Tensor
    """[M], 0 to N - 1, ascending."""
    ids: torch.Tensor
    """[M], ascending in each row."""
    weights: torch.Tensor
    """[M]."""


def read(paths: Sequence[Path]) -> tuple[list[Lesson], list[Lesson]]:
    """Read files; return what is for learning, and what is held out."""
    parts: tuple[list[Lesson], list[Lesson]] = [], []
    for path in paths:
        for text in distill.open(path):
            sizes = np.diff(text.rows.offsets)
            ids = text.rows.token_ids.astype(np.int64)
            weights = text.rows.counts.astype(np.float32) / text.rows.resolution
            rows = np.repeat(np.arange(len(sizes)), sizes)
            if text.tail:  # what a list left out isn't taught
                kept = ids < text.rows.vocab_size - 1
                rows, ids, weights = rows[kept], ids[kept], weights[kept]
                weights /= np.bincount(rows, weights)[rows].astype(np.float32)
            tokens = text.tokens.astype(np.int64)
            asked = zlib.crc32(tokens[: text.places[0] + 1].tobytes())
            held = asked % HELD_OUT == 0
            parts[held].append(Lesson(tokens, text.places, rows, ids, weights))
    return parts


def counts(lessons: Sequence[Lesson], vocab_size: int) -> NDArray[np.float64]:
    """Return how often each token is expected after what is taught."""
    found = np.full(vocab_size, 1e-3)
    for lesson in lessons:
        np.add.at(found, lesson.ids, lesson.weights)
        np.add.at(found, lesson.tokens, 0.1)
    return found


def nearest(model: LanguageModel, columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the column of each token, or of the one whose embedding is most alike."""
    table = model.model.get_input_embeddings().weight.detach()[: model.vocab_size]
    table = normalize(table.float() - table.float().mean(0))
    found = torch.cat(
        [(part @ table[columns].T).argmax(1) for part in table.split(4096)]
    ).numpy()
    found[columns] = np.arange(len(columns))
    return found


def directions(
    model: LanguageModel, columns: NDArray[np.int64], width: int
) -> torch.Tensor:
    """Return the main directions [C, width] of the columns' embeddings."""
    table = model.model.get_output_embeddings().weight.detach()[columns].float()
    table = table - table.mean(0)
    main = table @ torch.linalg.eigh(table.T @ table).eigenvectors[:, -width:]
    return main / main.std()


def batches(
    lessons: Sequence[Lesson], size: int, rng: np.random.Generator | None = None
) -> Iterator[Batch]:
    """Yield all lessons, those of about the same length side by side."""
    lengths = np.array([len(lesson.tokens) for lesson in lessons], float)
    if rng is not None:
        lengths += rng.normal(0, 20, len(lengths))
    order = np.argsort(lengths)
    groups = [order[i : i + size] for i in range(0, len(order), size)]
    if rng is not None:
        rng.shuffle(groups)
    for group in groups:
        own = [lessons[i] for i in group]
        shape = len(own), max(len(lesson.tokens) for lesson in own)
        tokens, taught = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
        for i, lesson in enumerate(own):
            tokens[i, : len(lesson.tokens)] = lesson.tokens
            taught[i, lesson.places] = True
        before = np.cumsum([0, *(len(lesson.places) for lesson in own)])
        rows = [n + lesson.rows for n, lesson in zip(before, own, strict=False)]
        yield Batch(
            torch.from_numpy(tokens),
            torch.from_numpy(taught),
            torch.from_numpy(np.concatenate(rows)),
            torch.from_numpy(np.concatenate([lesson.ids for lesson in own])),
            torch.from_numpy(np.concatenate([lesson.weights for lesson in own])),
        )
