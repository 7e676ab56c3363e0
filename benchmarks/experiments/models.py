"""The models of experiments, and their prompts."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import gguf

import sqs_codec as sqs
from benchmarks.data.make_corpus import TEXTS as FITTED
from benchmarks.data.make_corpus import read_texts
from benchmarks.pair import Pair, gemma3_pair, load_pair, smollm2_pair
from benchmarks.sources import read_prompts
from sqs_codec.cli.options import DROP_LAYERS
from tests.drafts import held_out_categories

if TYPE_CHECKING:
    from benchmarks.experiments.experiment import Options

SMOLLM2, GEMMA3, GIVEN = "smollm2", "gemma3", "given"

TEXTS = Path(__file__).with_name("texts.txt")
"""Prompts for Gemma, in addition to those held out from its prior."""

CONTINUE = "Continue this text: {}"


@dataclass(frozen=True)
class Prompt:
    """A prompt, and its category or language."""

    kind: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Models:
    """A pair of models with its prior and prompts."""

    name: str
    pair: Pair
    prior: sqs.Prior | None
    """The prior of the entropy coding; it wasn't fitted to `prompts`."""
    prompts: tuple[Prompt, ...]
    """Prompts in an order in which kinds take turns."""

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.pair.vocab_size

    @property
    def dropped(self) -> int:
        """The number of layers that the pair's draft omits; 0 for a separate model."""
        return 0 if self.name == GIVEN else DROP_LAYERS


def load(options: Options, name: str) -> Models:
    """Load a pair of models once per process."""
    return _load(name, options.draft, options.target, options.prompts)


@cache
def _load(
    name: str, draft: str | None, target: str | None, prompts: Path | None
) -> Models:
    # transformers parses a GGUF file three times, and lists all tensor names for each
    # module, which takes most of the time.
    names = ("GGUFReader", "get_tensor_name_map")
    patch = mock.patch.dict(vars(gguf), {n: cache(getattr(gguf, n)) for n in names})
    # No setting disables its progress bars.
    with patch, contextlib.redirect_stderr(io.StringIO()):
        if name == GEMMA3:
            pair, prior = gemma3_pair(), sqs.Prior.builtin(GEMMA3)
        elif name == SMOLLM2:
            pair, prior = smollm2_pair(DROP_LAYERS), sqs.Prior.builtin(SMOLLM2)
        else:
            pair, prior = load_pair(draft, target, DROP_LAYERS), None
    if prompts:
        found = [
            Prompt("given", tuple(pair.encode(text))) for text in read_prompts(prompts)
        ]
    elif name == GEMMA3:
        found = list(_gemma3_prompts(pair))
    else:
        found = list(_chat_prompts(pair))
    return Models(name, pair, prior, _balanced(found))


def _chat_prompts(pair: Pair) -> Iterator[Prompt]:
    """Yield the prompts to which nothing was fitted."""
    lines = FITTED.with_name("prompts.txt").read_text("utf-8").splitlines()
    pairs = [line.split("\t") for line in lines if line and not line.startswith("#")]
    kept = held_out_categories(kind for kind, _ in pairs)
    for kind, text in pairs:
        if kind in kept:
            yield Prompt(kind, tuple(pair.encode(text)))
    texts = read_texts(held_out=True)
    for text in (*texts["en"], *texts["code"]):
        yield Prompt("continue", tuple(pair.encode(CONTINUE.format(text))))


def _gemma3_prompts(pair: Pair) -> Iterator[Prompt]:
    """Yield beginnings of texts, for a model without a chat template."""
    kinds = read_texts(held_out=True)
    del kinds["chat"]
    for line in TEXTS.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            kind, text = line.split("\t")
            kinds[kind].append(text.replace("\\n", "\n"))
    for kind, texts in kinds.items():
        for text in texts:
            tokens = pair.tokenizer(text, add_special_tokens=False)["input_ids"]
            yield Prompt(kind, (pair.tokenizer.bos_token_id, *map(int, tokens)))


def _balanced(prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """Take the first of each kind, then the second ones, and so on."""
    seen: dict[str, int] = {}
    places = []
    for prompt in prompts:
        seen[prompt.kind] = seen.get(prompt.kind, 0) + 1
        places.append(seen[prompt.kind])
    order = sorted(range(len(prompts)), key=places.__getitem__)
    return tuple(prompts[i] for i in order)
