"""Teachers, the texts that they generate, and their stored distributions."""

from __future__ import annotations

import json
import pickle
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

import sqs_codec as sqs
from benchmarks.data.make_corpus import Writer, read_texts, write
from benchmarks.distill.schemes import RESOLUTIONS, Array, lists
from benchmarks.experiments.experiment import Options
from benchmarks.experiments.models import GEMMA3, Models, load
from benchmarks.pair import Pair
from benchmarks.sizes.lessons import directions
from benchmarks.sources import read_prompts
from sqs_codec.system.hf import CachedModel

WHOLE, HEAD = 65_536, 16_384
"""A student has all tokens of vocabularies up to the first; of larger ones so many
columns, the last of which stands for all other tokens."""

FEWER = {GEMMA3: 240}
"""Prompts, if not all of them: rows of Gemma take five times as long."""

SCALE = 0.03
"""Standard deviation of what students' embeddings begin with."""

HELD_OUT = 10
"""Of so many texts one is held out."""

Text = tuple[list[int], list[int]]
"""What a teacher was given, and how it went on."""


@dataclass(frozen=True)
class Size:
    """How much is measured: of texts, and of students."""

    tokens: int = 64
    texts_of_a_kind: int = 5
    prompts: int | None = None
    seeds: int = 5
    epochs: int = 2
    width: int = 256
    layers: int = 4
    rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3)


@dataclass(frozen=True)
class Lessons:
    """What students of a teacher read."""

    about: dict[str, Any]
    """Bytes a token by what is kept, and how much there is."""
    tokens: Array
    """[texts, T]: as columns of a student, padded."""
    rows: Array
    """[texts, T]: the number of the distribution after each token, or -1."""
    kept: dict[str, tuple[Array, Array, Array]]
    """By what is kept, and the seed: columns, weights, and where each row begins."""
    embedding: Array
    """[columns, width]: what students begin with."""
    dense: Array
    """[N, columns]: logarithms of the teacher's probabilities."""


def teach(options: Options, name: str, size: Size) -> Lessons:
    """Return what a teacher's students read; what isn't in the folder yet is made."""
    folder = options.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "lessons.pickle"
    if not file.exists():
        models, written = load(options, name), folder / "texts.json"
        if not written.exists():
            begun = _prompts(models, options.prompts)[: size.prompts or FEWER.get(name)]
            texts = write_texts(models.pair, begun, size.tokens)
            written.write_text(json.dumps(texts), "utf-8")
        texts = json.loads(written.read_text("utf-8"))
        file.write_bytes(pickle.dumps(_read_all(folder, models, texts, size)))
    parts = pickle.loads(file.read_bytes())
    shape = parts["about"]["positions"], parts["about"]["columns"]
    dense = np.memmap(folder / "dense.f16", np.float16, "r", shape=shape)
    return Lessons(**parts, dense=dense)


def _prompts(models: Models, file: Path | None) -> list[list[int]]:
    """Return what a teacher goes on with, in an order that is always the same."""
    kinds = read_texts(held_out=False)
    texts = [*kinds["chat"], *kinds["en"], *kinds["code"]]
    if file:
        texts = read_prompts(file)
    order = np.random.default_rng(0).permutation(len(texts))
    return [models.pair.encode(texts[i]) for i in order]


def write_texts(pair: Pair, prompts: Sequence[list[int]], tokens: int) -> list[Text]:
    """Let a teacher go on with prompts, at temperature 1."""
    kinds = [("", prompt) for prompt in prompts]
    writer = Writer(pair.target, pair.target, kinds, pair.stop)
    written: dict[int, list[int]] = defaultdict(list)
    for part in write(writer, tokens, 1.0, 1):
        for number, token in zip(part["text"], part["token"], strict=True):
            written[int(number)].append(int(token))
    return [(prompt, written[i]) for i, prompt in enumerate(prompts)]


def read(pair: Pair, text: Text) -> NDArray[np.float32]:
    """Return a teacher's logits at each token that it wrote, [n, V]."""
    model, (given, answer) = CachedModel(pair.target, pair.vocab_size), text
    return model.logits([*given, *answer[:-1]], last=len(answer))


def softmax(logits: Array) -> NDArray[np.float64]:
    """Return probabilities of rows."""
    probs = np.exp(logits - logits.max(-1, keepdims=True), dtype=np.float64)
    return np.asarray(probs / probs.sum(-1, keepdims=True))


def columns(texts: Sequence[Text], vocab_size: int) -> NDArray[np.int64]:
    """Return the column of each token.

    If there aren't as many as tokens, those that texts have most have one, and of
    others those of low ids.
    """
    if vocab_size <= WHOLE:
        return np.arange(vocab_size)
    tokens = [token for given, answer in texts for token in (*given, *answer)]
    seen = np.bincount(tokens, minlength=vocab_size)
    found = np.full(vocab_size, HEAD - 1)
    found[np.argsort(-seen, kind="stable")[: HEAD - 1]] = np.arange(HEAD - 1)
    return found


def _read_all(
    folder: Path, models: Models, texts: list[Text], size: Size
) -> dict[str, Any]:
    """Read texts once, and keep each row in all the ways that are compared."""
    column = columns(texts, models.vocab_size)
    first = np.cumsum([0, *(len(answer) for _, answer in texts)])
    shape = int(first[-1]), int(column.max()) + 1
    dense = np.memmap(folder / "dense.f16", np.float16, "w+", shape=shape)
    rngs = [np.random.default_rng((seed, 26)) for seed in range(size.seeds)]
    codecs = [sqs.Codec(models.vocab_size, x, prior=models.prior) for x in RESOLUTIONS]
    kept: dict[str, list[tuple[Array, Array, Array]]] = defaultdict(list)
    taken: dict[str, float] = defaultdict(float)
    for at, text in zip(first, tqdm(texts), strict=False):
        logits = read(models.pair, text)
        probs = softmax(logits)
        dense[at : at + len(logits)] = _logs(probs, column, shape[1])
        ids, values = lists(probs, 64)
        values = np.exp(np.log(values).astype(np.float16), dtype=np.float64)
        values /= values.sum(-1, keepdims=True)
        lengths = np.full(len(ids), 64)
        kept["top"].append((column[ids].ravel(), values.ravel(), lengths))
        for codec in codecs:
            for seed, rng in enumerate(rngs):
                found = codec.quantize_unbiased_rows(logits, rng=rng)
                weights = found.counts / codec.resolution
                part = column[found.token_ids], weights, np.diff(found.offsets)
                kept[f"{codec.resolution} {seed}"].append(part)
            taken[f"{codec.resolution}"] += len(codec.encode_sequence(found)) / shape[0]
    tokens = np.zeros((len(texts), max(len(g) + len(a) for g, a in texts)), np.int64)
    rows = np.full(tokens.shape, -1)
    for n, (given, answer) in enumerate(texts):
        end = len(given) + len(answer)
        tokens[n, :end] = column[[*given, *answer]]
        rows[n, len(given) - 1 : end - 1] = np.arange(first[n], first[n + 1])
    taught = len(texts) * (HELD_OUT - 1) // HELD_OUT
    taken["dense"] = 2.0 * models.vocab_size
    taken["top"] = 64.0 * (4 if models.vocab_size <= 1 << 16 else 6)
    about = {"columns": shape[1], "positions": shape[0], "bytes": taken}
    about |= {"texts": taught, "taught": int(first[taught])}
    return {
        "about": about,
        "tokens": tokens,
        "rows": rows,
        "kept": {name: _joined(parts) for name, parts in kept.items()},
        "embedding": _embedding(models.pair, column, size.width),
    }


def _embedding(pair: Pair, column: Array, width: int) -> Array:
    """Return the main directions of a teacher's embeddings, by column."""
    weights = pair.target.get_output_embeddings().weight.detach()[: pair.vocab_size]
    own = torch.zeros(int(column.max()) + 1, weights.shape[1])
    own.index_add_(0, torch.from_numpy(column), weights.float())
    own /= torch.from_numpy(np.bincount(column))[:, None]
    return (SCALE * directions(own, width)).numpy()


def _logs(probs: Array, column: Array, width: int) -> Array:
    """Return logarithms of probabilities by column."""
    if width == probs.shape[1]:
        return np.log(probs)
    found = np.empty((len(probs), width))
    found[:, column] = probs
    found[:, -1] = probs[:, column == width - 1].sum(-1)
    return np.log(found)


def _joined(parts: list[tuple[Array, Array, Array]]) -> tuple[Array, Array, Array]:
    ids, weights, lengths = map(np.concatenate, zip(*parts, strict=True))
    return ids, weights.astype(np.float32), np.cumsum([0, *lengths])
