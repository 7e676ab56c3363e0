"""Teachers, the texts that they generate, and their stored distributions."""

from __future__ import annotations

import json
import pickle
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.data.make_corpus import Writer, write
from benchmarks.distill.schemes import (
    DRAWS,
    FEW,
    FIXED,
    TAIL,
    TOP,
    UNBIASED,
    Array,
    Rows,
    Sparse,
)
from benchmarks.experiments.experiment import Options
from benchmarks.experiments.models import Models, load
from benchmarks.pair import Pair
from benchmarks.sizes.lessons import directions
from benchmarks.sizes.texts import read_starts
from benchmarks.sources import read_prompts
from sqs_codec.system.hf import CachedModel

HEAD = 16_384
"""Columns of a student. The last one stands for all other tokens."""

TOGETHER = 8
"""Texts that are processed and compressed together."""

TAUGHT = (TOP, TAIL, FEW, DRAWS, "counts, l = 16", "counts, l = 50", "counts, l = 128")
"""The stored forms that students learn from."""

SCALE = 0.03
"""Standard deviation of students' initial embeddings."""

HELD_OUT = 4
"""One of this many texts is held out."""

Text = tuple[list[int], list[int]]
"""A teacher's prompt and its completion."""


@dataclass(frozen=True)
class Size:
    """The amount of texts, and the size of students."""

    tokens: int = 64
    texts_of_a_kind: int = 12
    prompts: int = 128
    seeds: int = 4
    epochs: int = 2
    width: int = 256
    layers: int = 4
    rate: float = 1e-3


@dataclass(frozen=True)
class Lessons:
    """The training data of a teacher's students."""

    about: dict[str, Any]
    """Bytes per token by stored form, and the numbers of texts and positions."""
    tokens: Array
    """Padded texts in columns of a student, [texts, T]."""
    rows: Array
    """The index of the distribution after each token, or -1, [texts, T]."""
    kept: dict[str, tuple[Array, Array, Array]]
    """Columns, weights and the start of each row, by stored form and seed."""
    embedding: Array
    """Students' initial embeddings, [columns, width]."""
    dense: Array
    """The teacher's log-probabilities, [N, columns]."""


def teach(options: Options, name: str, size: Size) -> Lessons:
    """Return the data of a teacher's students; make it unless it is in the folder."""
    folder = options.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "lessons.pickle"
    if not file.exists():
        models, written = load(options, name), folder / "texts.json"
        if not written.exists():
            begun = islice(_prompts(options.prompts), size.prompts)
            prompts = [models.pair.encode(text) for text in begun]
            texts = write_texts(models.pair, prompts, size.tokens)
            written.write_text(json.dumps(texts), "utf-8")
        texts = json.loads(written.read_text("utf-8"))
        file.write_bytes(pickle.dumps(_read_all(folder, models, texts, size)))
    parts = pickle.loads(file.read_bytes())
    shape = parts["about"]["positions"], parts["about"]["columns"]
    dense = np.memmap(folder / "dense.f16", np.float16, "r", shape=shape)
    return Lessons(**parts, dense=dense)


def _prompts(file: Path | None) -> Iterator[str]:
    """Yield the prompts of a file, or texts that no prior was fitted to."""
    if file:
        texts = read_prompts(file)
        order = np.random.default_rng(0).permutation(len(texts))
        yield from (texts[i] for i in order)
    else:
        starts = read_starts(np.random.default_rng(0), (), ())
        yield from (text for text, whole in starts if whole)


def write_texts(pair: Pair, prompts: Sequence[list[int]], tokens: int) -> list[Text]:
    """Generate a teacher's completions of prompts, at temperature 1."""
    kinds = [("", prompt) for prompt in prompts]
    writer = Writer(pair.target, pair.target, kinds, pair.stop)
    written: dict[int, list[int]] = defaultdict(list)
    for part in write(writer, tokens, 1.0, 1):
        for number, token in zip(part["text"], part["token"], strict=True):
            written[int(number)].append(int(token))
    return [(prompt, written[i]) for i, prompt in enumerate(prompts)]


def read(pair: Pair, text: Text) -> NDArray[np.float32]:
    """Return a teacher's logits at each generated token, [n, V]."""
    model, (given, answer) = CachedModel(pair.target, pair.vocab_size), text
    return model.logits([*given, *answer[:-1]], last=len(answer))


def softmax(logits: Array) -> NDArray[np.float64]:
    """Return the probabilities of rows of logits."""
    probs = np.exp(logits - logits.max(-1, keepdims=True), dtype=np.float64)
    return np.asarray(probs / probs.sum(-1, keepdims=True))


def columns(texts: Sequence[Text], vocab_size: int) -> NDArray[np.int64]:
    """Return the column of each token.

    The most frequent tokens have their own column, with ties by id.
    """
    tokens = [token for given, answer in texts for token in (*given, *answer)]
    seen = np.bincount(tokens, minlength=vocab_size)
    found = np.full(vocab_size, HEAD - 1)
    found[np.argsort(-seen, kind="stable")[: HEAD - 1]] = np.arange(HEAD - 1)
    return found


def _read_all(
    folder: Path, models: Models, texts: list[Text], size: Size
) -> dict[str, Any]:
    """Compute the logits of texts once, and store each row in all forms."""
    column = columns(texts, models.vocab_size)
    first = np.cumsum([0, *(len(answer) for _, answer in texts)])
    shape = int(first[-1]), int(column.max()) + 1
    dense = np.memmap(folder / "dense.f16", np.float16, "w+", shape=shape)
    kept: dict[str, Sparse] = defaultdict(list)
    taken: dict[str, float] = defaultdict(float)
    for start in tqdm(range(0, len(texts), TOGETHER)):
        logits = [read(models.pair, text) for text in texts[start : start + TOGETHER]]
        probs = softmax(np.concatenate(logits))
        dense[first[start] :][: len(probs)] = _logs(probs, column, shape[1])
        lengths, own = [*map(len, logits)], probs.astype(np.float32)
        part = Rows(np.concatenate(logits), own, lengths, models.prior)
        for what in TAUGHT:
            seeds = size.seeds if what in UNBIASED else 1
            for seed in range(seeds):
                rng = np.random.default_rng((seed, start))
                ways, back = (FIXED | UNBIASED)[what](part, rng)
                kept[f"{what} {seed}"] += back
                taken[what] += min(map(sum, ways.values())) / seeds / shape[0]
    tokens = np.zeros((len(texts), max(len(g) + len(a) for g, a in texts)), np.int64)
    rows = np.full(tokens.shape, -1)
    for n, (given, answer) in enumerate(texts):
        end = len(given) + len(answer)
        tokens[n, :end] = column[[*given, *answer]]
        rows[n, len(given) - 1 : end - 1] = np.arange(first[n], first[n + 1])
    taught = len(texts) * (HELD_OUT - 1) // HELD_OUT
    taken["dense"] = 2.0 * models.vocab_size
    about = {"columns": shape[1], "positions": shape[0], "bytes": taken}
    about |= {"texts": taught, "taught": int(first[taught])}
    return {
        "about": about,
        "tokens": tokens,
        "rows": rows,
        "kept": {name: _joined(parts, column) for name, parts in kept.items()},
        "embedding": _embedding(models.pair, column, size.width),
    }


def _embedding(pair: Pair, column: Array, width: int) -> Array:
    """Return the principal directions of a teacher's embeddings, by column."""
    weights = pair.target.get_output_embeddings().weight.detach()[: pair.vocab_size]
    own = torch.zeros(int(column.max()) + 1, weights.shape[1])
    own.index_add_(0, torch.from_numpy(column), weights.float())
    own /= torch.from_numpy(np.bincount(column))[:, None]
    return (SCALE * directions(own, width)).numpy()


def _logs(probs: Array, column: Array, width: int) -> Array:
    """Return log-probabilities by column."""
    found = np.empty((len(probs), width))
    found[:, column] = probs
    found[:, -1] = probs[:, column == width - 1].sum(-1)
    return np.log(found)


def _joined(parts: Sparse, column: Array) -> tuple[Array, Array, Array]:
    """Return the columns and weights of listed tokens, and the start of each row."""
    row = np.repeat(np.arange(len(parts)), [len(ids) for ids, _ in parts])
    ids, weights = map(np.concatenate, zip(*parts, strict=True))
    listed = ids < len(column)  # the others are the tail
    at = row[listed] * HEAD + column[ids[listed]]
    at, place = np.unique(at, return_inverse=True)
    first = np.searchsorted(at, np.arange(len(parts) + 1) * HEAD)
    return at % HEAD, np.bincount(place, weights[listed]).astype(np.float32), first
