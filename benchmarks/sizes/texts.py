"""A chat model answers prompts; a file stores its distributions of the answers.

Prompts come from ``starts.txt``: complete ones, on topics or on an earlier answer, and
beginnings that the model continues as a user would. A model without a chat template
continues the texts of ``benchmarks/data/texts.txt``, in nine languages. So a draft
learns only from the model's own texts. Many texts are generated in one batch; when one
ends, the next one takes its place. If the process ends, at most a minute is lost.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

import sqs_codec as sqs
from benchmarks.data.make_corpus import read_texts, sample
from sqs_codec import distill
from sqs_codec.cli.options import find_prior
from sqs_codec.system import hf
from sqs_codec.system._caching import TextPiece
from sqs_codec.system.hf._ragged import Cache, RaggedModel

STARTS = Path(__file__).with_name("starts.txt")

RESOLUTION = 128
"""The file's resolution: about 45 bytes per token."""

TEMPERATURES = (0.7, 1.0, 0.5)
"""Temperatures of answers: in turn for complete prompts, all for the others."""

WORD = re.compile("[Ġ▁][A-Za-z][a-z]{4,}")
"""Tokens that can be topics."""

WHOLE = 6
"""Complete prompts per beginning."""

PROMPT_TEMPERATURE = 0.9

LIKELY = 1024
"""Tokens are sampled from this many of the most probable ones."""


class _Next(NamedTuple):
    """The next tokens of a text for the model."""

    tokens: Sequence[int]
    temperature: float
    """The temperature of the token after them."""
    rows: list[sqs.SparseRows] | None = None
    """In an answer: the list that gets this token's distribution."""


class _File:
    """The file of answers."""

    def __init__(self, folder: Path, own: hf._models.LanguageModel, seed: int) -> None:
        known = hf.Tokenizer(own.tokenizer, own.model).fingerprint
        self._codec = sqs.Codec(
            own.vocab_size, RESOLUTION, prior=find_prior(None, known)
        )
        header = distill.Header(
            self._codec,
            model=own.summary,
            source=f"its own answers; seed {seed}",
            tokenizer_fingerprint=known,
        )
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = distill.Writer(folder / f"{RESOLUTION}.parquet", header)
        self._rng = np.random.default_rng([seed, len(self._writer)])
        torch.manual_seed(int(self._rng.integers(1 << 32)))
        self.texts = self.tokens = 0

    def round(self, logits: torch.Tensor) -> sqs.SparseRows:
        """Return the stored counts of a token's logits [V]."""
        rows = logits[None].numpy()
        return self._codec.quantize_unbiased_rows(rows, rng=self._rng)

    def write(self, tokens: list[int], rows: list[sqs.SparseRows]) -> None:
        """Write a text with the counts of its answer's tokens."""
        places = np.arange(len(tokens) - len(rows) - 1, len(tokens) - 1)
        self._writer.write(tokens, sqs.SparseRows.concatenate(rows), places)
        self.texts, self.tokens = self.texts + 1, self.tokens + len(rows)

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


def read_starts(
    rng: np.random.Generator, words: Sequence[str], said: Sequence[str]
) -> Iterator[tuple[str, bool]]:
    """Yield beginnings of prompts forever, and whether each is complete.

    Half of the topics are `words`; some prompts ask about earlier answers, `said`.
    """
    kinds: dict[str, list[str]] = {}
    for line in STARTS.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            kind, start = line.split("\t")
            kinds.setdefault(kind, []).append(start)
    topics = ", ".join(kinds.pop("topics", [])).split(", ")
    given = (f"{ask}\n\n{{text}}" for ask in kinds.pop("given", []))
    whole = [*kinds.pop("about", []), *given]
    rng.shuffle(whole)
    asks = itertools.cycle(whole)
    begun = [*itertools.chain.from_iterable(kinds.values())]
    for start in itertools.cycle(begun or [""]):
        for ask in itertools.islice(asks, WHOLE):
            while "{}" in ask:
                topic = rng.choice(words if words and rng.random() < 0.5 else topics)
                ask = ask.replace("{}", str(topic), 1)
            if "{text}" in ask:
                if not said:
                    continue
                ask = ask.replace("{text}", said[int(rng.integers(len(said)))])
            yield ask, True
        if begun:
            yield start, False


@dataclass(frozen=True)
class _Chat:
    """Generates the texts of a model."""

    starts: Iterator[tuple[list[int], bool]]
    """Beginnings of prompts with the template's tokens, and whether each is complete.
    """
    after: list[int]
    """The tokens between prompt and answer."""
    ends: frozenset[int]
    """Tokens that end a prompt or an answer."""
    longest: int
    """The most tokens of a text; a prompt has at most half, a continued one a third."""
    said: list[str]
    """Beginnings of earlier answers, for prompts."""
    decode: Callable[[list[int]], str]

    @classmethod
    def of(cls, model: hf._models.LanguageModel, longest: int, seed: int) -> _Chat:
        """Use a model's template, and the beginnings."""
        mark, said = "\N{OBJECT REPLACEMENT CHARACTER}", list[str]()
        if model.tokenizer.chat_template:
            whole = model.tokenizer.apply_chat_template(
                [{"role": "user", "content": mark}],
                tokenize=False,
                add_generation_prompt=True,
            )
            pieces = model.tokenizer.get_vocab()
            words = [piece[1:] for piece in pieces if WORD.fullmatch(piece)]
            starts = read_starts(np.random.default_rng(seed), sorted(words), said)
        else:  # it continues texts paragraph by paragraph
            whole = f"{model.tokenizer.bos_token}{mark}\n\n"
            kinds = read_texts(held_out=False)
            texts = [text for kind in kinds if kind != "chat" for text in kinds[kind]]
            starts = ((text, False) for text in itertools.cycle(texts))
        encode = partial(model.tokenizer.encode, add_special_tokens=False)
        before, after = map(encode, whole.split(mark))
        begun = (([*before, *encode(text)], complete) for text, complete in starts)
        ends = frozenset({*model.stop, after[0]})
        return cls(begun, after, ends, longest, said, model.tokenizer.decode)

    def texts(self, cache: Cache, file: _File) -> Generator[_Next, int, None]:
        """Generate prompts and answers forever; each yield returns a sampled token."""
        turns = itertools.cycle(TEMPERATURES)
        for text, whole in self.starts:
            cache.tokens.clear()
            del text[self.longest // 2 :]
            token = yield _Next(text, PROMPT_TEMPERATURE)
            while (
                not whole and token not in self.ends and len(text) < self.longest // 3
            ):
                text.append(token)
                token = yield _Next([token], PROMPT_TEMPERATURE)
            for temperature in [next(turns)] if whole else TEMPERATURES:
                del cache.tokens[len(text) :]
                rows: list[sqs.SparseRows] = []
                answered = [*text, *self.after]
                answered.append((yield _Next(self.after, temperature, rows)))
                while answered[-1] not in self.ends and len(answered) < self.longest:
                    answered.append((yield _Next(answered[-1:], temperature, rows)))
                file.write(answered, rows)
                part = answered[len(text) + len(self.after) : -1][: self.longest // 5]
                self.said.append(self.decode(part))


def write(
    folder: Path, target: str | None, tokens: int, places: int, longest: int, seed: int
) -> None:
    """Write a file with `tokens` tokens of a target's answers."""
    model = hf.load_model(target)
    file, chat = _File(folder, model, seed), _Chat.of(model, longest, seed)
    reader, caches = RaggedModel(model.model, model.vocab_size), []
    for _ in range(places):
        caches.append(Cache())
        caches[-1].grow(reader.layout, longest)
    texts = [chat.texts(cache, file) for cache in caches]
    wanted = [next(text) for text in texts]
    with contextlib.suppress(KeyboardInterrupt), tqdm(total=tokens) as bar:
        while file.tokens < tokens:
            pieces = zip(caches, wanted, strict=True)
            logits = reader.read([TextPiece(cache, n.tokens, 1) for cache, n in pieces])
            for n, row in zip(wanted, logits, strict=True):
                if n.rows is not None:
                    n.rows.append(file.round(row))
            heat = torch.tensor([[n.temperature] for n in wanted])
            drawn = sample(logits, heat, LIKELY)[:, 0].tolist()
            wanted = [
                text.send(token) for text, token in zip(texts, drawn, strict=True)
            ]
            bar.update(file.tokens - bar.n)
    file.close()
    print(f"{file.texts:,} texts with {file.tokens:,} tokens of answers, in {folder}")
