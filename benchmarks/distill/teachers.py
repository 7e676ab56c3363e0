"""Teachers, the texts that they write, and what is kept of their distributions."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import sqs_codec as sqs
from benchmarks.data.make_corpus import Writer, read_texts, write
from benchmarks.distill.schemes import RESOLUTIONS, Array, lists
from benchmarks.experiments.experiment import Options
from benchmarks.experiments.models import Models, load
from benchmarks.sources import read_prompts
from sqs_codec.hf._models import CachedModel, Pair

WHOLE, HEAD = 65_536, 16_384
"""A student has all tokens of vocabularies up to the first; of larger ones so many
columns, the last of which stands for all other tokens."""

HELD_OUT = 10
"""Of so many texts one is held out."""

Text = tuple[list[int], list[int]]
"""What a teacher was given, and how it went on."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes
    ----------
    tokens : int
        Of a text at most.
    texts : int
        Of each kind, whose bytes and errors are measured.
    prompts : int or None
        Texts for students; None are all there are.
    seeds, epochs, width, layers : int
        Of students.
    rates : tuple of float
        Of which the best one is taken.
    """

    tokens: int = 64
    texts: int = 5
    prompts: int | None = None
    seeds: int = 5
    epochs: int = 3
    width: int = 256
    layers: int = 4
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)


class Lessons:
    """What students of a teacher read.

    Attributes
    ----------
    about : dict
        Bytes a token by what is kept, and how much there is.
    tokens : list of ndarray
        Of each text, as columns of a student.
    first : ndarray of int
        Where the distributions of each text begin, and those of the last one end. They
        are of the tokens that the teacher wrote.
    dense : ndarray of float16, [N, columns]
        Logarithms of the teacher's probabilities.
    kept : dict of str to list of ndarray
        By what is kept, and the seed: columns, weights, and where each row begins.
    """

    def __init__(self, folder: Path) -> None:
        self.about = json.loads((folder / "about.json").read_text("utf-8"))
        with np.load(folder / "kept.npz") as file:
            arrays = dict(file)
        self.tokens = np.split(arrays.pop("tokens"), arrays.pop("cuts"))
        self.first = arrays.pop("first")
        shape = int(self.first[-1]), self.about["columns"]
        self.dense = np.memmap(folder / "dense.f16", np.float16, "r", shape=shape)
        names = {name.rpartition(" ")[0] for name in arrays}
        self.kept = {name: [arrays[f"{name} {i}"] for i in range(3)] for name in names}


def teach(options: Options, name: str, size: Size) -> Lessons:
    """Return what a teacher's students read; what isn't in the folder yet is made."""
    folder = options.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "about.json").exists():
        models, file = load(options, name), folder / "texts.json"
        if not file.exists():
            begun = _prompts(models, options.prompts)[: size.prompts]
            texts = write_texts(models.pair, begun, size.tokens)
            file.write_text(json.dumps(texts), "utf-8")
        _read_all(folder, models, json.loads(file.read_text("utf-8")), size.seeds)
    return Lessons(folder)


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


def _read_all(folder: Path, models: Models, texts: list[Text], seeds: int) -> None:
    """Read texts once, and keep each row in all the ways that are compared."""
    column = columns(texts, models.vocab_size)
    first = np.cumsum([0, *(len(answer) for _, answer in texts)])
    shape = int(first[-1]), int(column.max()) + 1
    dense = np.memmap(folder / "dense.f16", np.float16, "w+", shape=shape)
    rngs = [np.random.default_rng((seed, 26)) for seed in range(seeds)]
    codecs = [sqs.Codec(models.vocab_size, x, prior=models.prior) for x in RESOLUTIONS]
    rows: dict[str, list[tuple[Array, Array]]] = defaultdict(list)
    taken: dict[str, int] = defaultdict(int)
    for at, text in zip(first, tqdm(texts), strict=False):
        logits = read(models.pair, text)
        probs = softmax(logits)
        dense[at : at + len(logits)] = _logs(probs, column, shape[1])
        ids, values = lists(probs, 64)
        values = np.exp(np.log(values).astype(np.float16), dtype=np.float64)
        values /= values.sum(-1, keepdims=True)
        rows["top"] += zip(column[ids], values, strict=True)
        for codec in codecs:
            for seed, rng in enumerate(rngs):
                counts = codec.quantize_unbiased_batch(logits, rng=rng)
                name = f"{codec.resolution} {seed}"
                rows[name] += [(column[row.token_ids], row.probs) for row in counts]
                taken[name] += len(codec.encode_sequence(counts))
    _save(folder, [column[[*given, *answer]] for given, answer in texts], first, rows)
    sizes = {"dense": 2.0 * models.vocab_size}
    sizes["top"] = 64.0 * (4 if models.vocab_size <= 1 << 16 else 6)
    sizes |= {name: n / shape[0] for name, n in taken.items()}
    taught = len(texts) * (HELD_OUT - 1) // HELD_OUT
    about = {"columns": shape[1], "positions": shape[0], "bytes": sizes}
    about |= {"texts": taught, "taught": int(first[taught])}
    (folder / "about.json").write_text(json.dumps(about), "utf-8")


def _logs(probs: Array, column: Array, width: int) -> Array:
    """Return logarithms of probabilities by column."""
    if width == probs.shape[1]:
        return np.log(probs)
    others = column == width - 1
    found = np.empty((len(probs), width))
    found[:, column] = probs
    found[:, -1] = probs[:, others].sum(-1)
    return np.log(found)


def _save(
    folder: Path,
    tokens: list[Array],
    first: Array,
    kept: dict[str, list[tuple[Array, Array]]],
) -> None:
    arrays = {"tokens": np.concatenate(tokens), "first": first}
    arrays["cuts"] = np.cumsum([len(text) for text in tokens])[:-1]
    for name, rows in kept.items():
        ids, weights = zip(*rows, strict=True)
        arrays[f"{name} 0"] = np.concatenate(ids)
        arrays[f"{name} 1"] = np.concatenate(weights).astype(np.float32)
        arrays[f"{name} 2"] = np.cumsum([0, *map(len, ids)])
    np.savez(folder / "kept.npz", **arrays)
