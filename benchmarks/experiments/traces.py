"""Completions of a target model, and both models' logits at each position."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.experiments.models import Models, load
from benchmarks.schemes import softmax
from sqs_codec.system._caching import TextPiece
from sqs_codec.system.hf import CachedModel, ModelError
from sqs_codec.system.hf._ragged import Cache, RaggedModel

if TYPE_CHECKING:
    from benchmarks.experiments.experiment import Options

TOKENS, QUICK_TOKENS = 48, 8
"""The most tokens of a completion."""

QUICK_PROMPTS = 3


@dataclass(frozen=True)
class Trace:
    """A completion and both models' logits."""

    prompt: int
    """The prompt's index."""
    kind: str
    """The prompt's kind."""
    tokens: list[int]
    """The n tokens of the completion."""
    target: NDArray[np.float32]
    """The target's logits before each token, [n, V]."""
    draft: NDArray[np.float32]
    """The draft's logits, [n, V]."""

    def __len__(self) -> int:
        return len(self.tokens)


def traces(
    options: Options,
    name: str,
    temperature: float,
    prompts: int | None = None,
) -> Iterator[Trace]:
    """Yield a target's completions of the first `prompts` prompts, or of all.

    They were generated at this temperature. Replaying them at another one would measure
    the models at contexts that they rarely reach.
    """
    models = load(options, name)
    cached = partial(CachedModel, vocab_size=models.vocab_size)
    for number, tokens in enumerate(texts(options, name, temperature)[:prompts]):
        prompt = models.prompts[number]
        text = [*prompt.tokens, *tokens[:-1]]
        yield Trace(
            number,
            prompt.kind,
            tokens,
            cached(models.pair.target).logits(text, len(tokens)),
            cached(models.pair.draft).logits(text, len(tokens)),
        )


def texts(options: Options, name: str, temperature: float) -> list[list[int]]:
    """Return the target's completion of each prompt; generate them the first time."""
    path = options.folder / "texts" / f"{name}-{temperature:g}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = write(load(options, name), temperature, options)
        write_whole(path, json.dumps(found))
    read: list[list[int]] = json.loads(path.read_text("utf-8"))
    return read


def write(models: Models, temperature: float, options: Options) -> list[list[int]]:
    """Generate the completions of all prompts in a batch, each with its own seed."""
    most = QUICK_TOKENS if options.quick else TOKENS
    prompts = models.prompts[: QUICK_PROMPTS if options.quick else None]
    _check_lengths(models, most)
    model = RaggedModel(models.pair.target, models.vocab_size)
    draws = [np.random.default_rng([options.seed, i]) for i in range(len(prompts))]
    found: list[list[int]] = [[] for _ in prompts]
    caches = [Cache() for _ in prompts]
    for cache, prompt in zip(caches, prompts, strict=True):
        cache.grow(model.layout, len(prompt.tokens) + most)
    new = {i: list(prompt.tokens) for i, prompt in enumerate(prompts)}
    while new:
        pieces = [TextPiece(caches[i], tokens, 1) for i, tokens in new.items()]
        rows = dict(zip(new, model.read(pieces), strict=True))
        for i, row in rows.items():
            token = _draw(row, temperature, draws[i])
            found[i].append(token)
            new[i] = [token]
            if token in models.pair.stop or len(found[i]) == most:
                del new[i]
    return found


def _check_lengths(models: Models, most: int) -> None:
    """Reject prompts if the completion would be too long for the models."""
    limit = min(
        getattr(model.config, "max_position_embeddings", math.inf)
        for model in (models.pair.draft, models.pair.target)
    )
    longest = max(len(prompt.tokens) for prompt in models.prompts)
    if longest + most > limit:
        raise ModelError(
            f"a prompt of {longest} tokens plus {most} is too long: the models take "
            f"{limit}"
        )


def _draw(row: torch.Tensor, temperature: float, rng: np.random.Generator) -> int:
    if temperature == 0:
        return int(row.argmax())
    sums = softmax(row.numpy(), temperature).cumsum()
    return int(np.searchsorted(sums, rng.random() * sums[-1], "right"))


def write_whole(path: Path, text: str) -> None:
    """Write a file atomically."""
    part = path.with_suffix(".part")
    part.write_text(text, "utf-8")
    part.replace(path)
