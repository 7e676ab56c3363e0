"""A chat model writes prompts and answers; its distributions of these are kept.

The model goes on with the beginnings of ``starts.txt`` as a user would, then answers.
So all that a draft learns of is the model's own. Many texts are written side by side:
one that ends leaves its place to the next. Ends of the process lose a minute at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tqdm import tqdm

import sqs_codec as sqs
from benchmarks.data.make_corpus import sample
from sqs_codec import distill
from sqs_codec.cli.options import find_prior
from sqs_codec.system import hf

STARTS = Path(__file__).with_name("starts.txt")

ATTENTION = "sqs_codec_places"
"""The name of `_Places.attend` in transformers."""

RESOLUTIONS = (16, 50, 128)
"""Of the files: some 12, 24 and 45 bytes a token."""

TOP = 64
"""Tokens of the lists of another file, whose resolution is `FINE`."""

FINE = 4096

TEMPERATURES = (0.7, 1.0, 0.5)
"""At which each prompt is answered, once each."""

PROMPT_TEMPERATURE = 0.9
LONGEST = 512
"""Tokens of a text, of which a third is for the prompt."""

LIKELY = 1024
"""Tokens are drawn of so many likeliest ones."""


@dataclass
class Text:
    """A text in the making."""

    tokens: list[int]
    forced: list[int]
    """What comes next, whatever the model would say."""
    answered: int = 0
    """How often the prompt was answered before."""
    longest: int = LONGEST
    is_asked: bool = False
    """Whether the prompt is whole."""
    is_whole: bool = False
    rows: list[list[sqs.SparseRows]] = field(default_factory=list)
    """Of each token of the answer, by file."""

    @property
    def answers(self) -> bool:
        """Whether the next token is the answer's."""
        return self.is_asked and not self.forced

    @property
    def temperature(self) -> float:
        """At which the next token is drawn."""
        return TEMPERATURES[self.answered] if self.is_asked else PROMPT_TEMPERATURE

    def again(self) -> Text:
        """Return the text whose prompt is to be answered once more."""
        asked = self.tokens[: -len(self.rows)]
        return Text(asked, [], self.answered + 1, self.longest, is_asked=True)

    def go_on(self, drawn: int, ends: AbstractSet[int], after: Sequence[int]) -> None:
        """Add the next token: the one that is drawn unless another has to come."""
        if self.forced:
            self.tokens.append(self.forced.pop(0))
        elif self.is_asked:
            self.tokens.append(drawn)
            self.is_whole = drawn in ends or len(self.tokens) >= self.longest
        elif drawn in ends or len(self.tokens) >= self.longest // 3:
            first, *self.forced = after
            self.tokens.append(first)
            self.is_asked = True
        else:
            self.tokens.append(drawn)


class _Places:
    """A causal model that adds a token to each of many texts."""

    def __init__(self, model: Any, places: int, longest: int) -> None:
        self._model, self._all = model, torch.arange(places)
        self._longest = longest
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._at = self._mask = torch.zeros(0)
        self._seen = 0
        transformers.AttentionInterface.register(ATTENTION, self.attend)
        model.set_attn_implementation(ATTENTION)

    @torch.inference_mode()
    def read(self, tokens: Sequence[int], at: Sequence[int]) -> torch.Tensor:
        """Return logits [places, V] after a token at a position of each text."""
        self._at, self._seen = torch.tensor(at), max(at) + 1
        hidden = torch.arange(self._seen) > self._at[:, None]
        mask = torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf)
        self._mask = mask[:, None, None]
        out = self._model(
            input_ids=torch.tensor(tokens)[:, None],
            position_ids=self._at[:, None],
            use_cache=False,
        )
        logits: torch.Tensor = out.logits[:, 0]
        return logits

    def attend(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        _mask: object,
        *,
        scaling: float,
        **__: object,
    ) -> tuple[torch.Tensor, None]:
        """Attention as transformers calls it, [places, heads, 1, dim]."""
        places, heads, _, dim = query.shape
        shape = places, key.shape[1], self._longest, dim
        if module.layer_idx not in self._kept:
            self._kept[module.layer_idx] = torch.zeros(shape), torch.zeros(shape)
        keys, values = self._kept[module.layer_idx]
        keys[self._all, :, self._at] = key[:, :, 0]
        values[self._all, :, self._at] = value[:, :, 0]
        grouped = query.view(places, key.shape[1], -1, dim) * scaling
        scores = grouped @ keys[:, :, : self._seen].transpose(-1, -2)
        seen = (scores + self._mask).softmax(-1) @ values[:, :, : self._seen]
        return seen.reshape(places, 1, heads, dim), None


class _Files:
    """The files of answers, of several resolutions and of lists."""

    def __init__(self, folder: Path, model: hf.LanguageModel, source: str) -> None:
        known = hf.tokenizer_fingerprint(model.tokenizer, model.vocab_size)
        prior = find_prior(None, known)
        said: dict[str, Any] = {"model": model.summary, "source": source}
        said |= {"tokenizer_fingerprint": known}
        codecs = [sqs.Codec(model.vocab_size, x, prior=prior) for x in RESOLUTIONS]
        headers = [distill.Header(codec, **said) for codec in codecs]
        tailed = prior.with_tail() if prior else None
        codec = sqs.Codec(model.vocab_size + 1, FINE, prior=tailed)
        headers.append(distill.Header(codec, rounding="lattice", tail=True, **said))
        names = [*map(str, RESOLUTIONS), f"top-{TOP}"]
        self._writers = [
            distill.Writer(folder / f"{name}.parquet", header)
            for name, header in zip(names, headers, strict=True)
        ]

    def __len__(self) -> int:
        """How many texts there are, those of an earlier run counted."""
        return len(self._writers[0])

    def round(
        self, logits: torch.Tensor, rng: np.random.Generator
    ) -> list[sqs.SparseRows]:
        """Return what is kept of rows, by file."""
        logs, ids = logits.log_softmax(-1).topk(TOP)
        *exact, lists = [writer.header.codec for writer in self._writers]
        return [
            *(codec.quantize_unbiased_rows(logits.numpy(), rng=rng) for codec in exact),
            lists.quantize_top_logprobs_rows(ids.numpy(), logs.numpy()),
        ]

    def write(self, text: Text) -> None:
        """Write a text whose answer is whole."""
        places = np.arange(len(text.tokens) - len(text.rows) - 1, len(text.tokens) - 1)
        for writer, rows in zip(
            self._writers, zip(*text.rows, strict=True), strict=True
        ):
            writer.write(text.tokens, sqs.SparseRows.concatenate(rows), places)

    def close(self) -> None:
        """Finish the files."""
        for writer in self._writers:
            writer.close()


class _Prompts:
    """What the next texts begin with."""

    def __init__(self, model: hf.LanguageModel, longest: int) -> None:
        self._longest = longest
        mark = "\N{OBJECT REPLACEMENT CHARACTER}"
        chat = [{"role": "user", "content": mark}]
        whole = model.tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True
        )
        before, after = whole.split(mark)
        encode = partial(model.tokenizer.encode, add_special_tokens=False)
        self.before: list[int] = encode(before)
        self.after: list[int] = encode(after)
        """What ends a prompt, and begins the answer."""
        lines = STARTS.read_text("utf-8").splitlines()
        starts = [line.split("\t")[1] for line in lines if line[0] != "#"]
        self._starts = [encode(start) for start in starts]
        self._next = 0

    def text(self) -> Text:
        """Return the next text."""
        start = self._starts[self._next % len(self._starts)]
        self._next += 1
        forced = [*self.before[1:], *start]
        return Text([self.before[0]], forced, longest=self._longest)


def write(
    folder: Path, target: str | None, tokens: int, places: int, longest: int, seed: int
) -> None:
    """Write files of so many tokens of a target's answers."""
    model = hf.load_model(target)
    folder.mkdir(parents=True, exist_ok=True)
    source = f"its own answers to prompts of its own; seed {seed}"
    files, prompts = _Files(folder, model, source), _Prompts(model, longest)
    ends = {*model.stop, prompts.after[0]}
    rng = np.random.default_rng([seed, len(files)])
    torch.manual_seed(int(rng.integers(1 << 32)))
    texts = [prompts.text() for _ in range(places)]
    at = _Places(model.model, places, longest)
    try:
        with tqdm(total=tokens, unit=" tokens") as bar:
            while bar.n < tokens:
                last = [text.tokens[-1] for text in texts]
                logits = at.read(last, [len(text.tokens) - 1 for text in texts])
                logits = logits[:, : model.vocab_size]
                answers = [i for i, text in enumerate(texts) if text.answers]
                if answers:
                    parts = files.round(logits[answers], rng)
                    for n, i in enumerate(answers):
                        texts[i].rows.append([rows[n : n + 1] for rows in parts])
                heat = torch.tensor([[text.temperature] for text in texts])
                drawn = sample(logits, heat, LIKELY)[:, 0].tolist()
                for i, (text, token) in enumerate(zip(texts, drawn, strict=True)):
                    text.go_on(token, ends, prompts.after)
                    if text.is_whole:
                        files.write(text)
                        bar.update(len(text.rows))
                        more = text.answered + 1 < len(TEMPERATURES)
                        texts[i] = text.again() if more else prompts.text()
    except KeyboardInterrupt:
        pass  # what is written is kept
    files.close()
