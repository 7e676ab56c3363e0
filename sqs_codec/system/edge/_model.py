"""What a draft model is: to the loop, to an edge, and to who writes for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np


class DraftModel(Protocol):
    """A model that drafts."""

    def logits(self, tokens: Sequence[int]) -> Any:
        """Return logits [1, V] after a text: arrays, or what NumPy makes one of.

        Of float16, float32 or float64. They are used before the next call, and may
        change with it. A long text may come in parts, each after those before it. So a
        draft should cache what it has read.
        """

    def branches(self, texts: Sequence[Sequence[int]]) -> Any:
        """Return logits [w, V] after each of some texts that begin alike.

        A model that is declared a `DraftModel` inherits this: it reads them one after
        the other.
        """
        return np.stack([np.array(self.logits(text)[-1]) for text in texts])


class Draft(DraftModel, Protocol):
    """A model that drafts, and what a cloud has to know of it."""

    @property
    def vocab_size(self) -> int:
        """V."""

    @property
    def stop(self) -> frozenset[int]:
        """The model's own stop tokens."""

    @property
    def fingerprint(self) -> bytes:
        """As `vocabulary_fingerprint` gives it; empty if the vocabulary isn't known."""


class TextStream(Protocol):
    """Text that comes token by token."""

    def add(self, tokens: Iterable[int]) -> str:
        """Return what these tokens add to it, as far as it is whole characters."""

    def rest(self) -> str:
        """Return what is left once the text is over."""


class TextDraft(Draft, Protocol):
    """A draft model with its tokenizer.

    It is a `sqs_codec.system.hf.Draft` or a `sqs_codec.system.llama_cpp.Draft`.
    """

    @property
    def n_ctx(self) -> int | None:
        """The longest text in tokens, if the model says so."""

    @property
    def has_template(self) -> bool:
        """Whether there is a chat template."""

    @property
    def sampling(self) -> Mapping[str, float]:
        """What the model's own files say of how it is drawn from."""

    def twin(self) -> TextDraft:
        """Return another draft of the same weights, for a text of its own."""

    def encode_prompt(self, prompt: str) -> list[int]:
        """Token ids of one user message, in the template if there is one."""

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a chat in the template, up to where the answer begins."""

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text as it is."""

    def stream(self, prompt: Sequence[int] = ()) -> TextStream:
        """Return the text of a completion, which comes token by token."""
