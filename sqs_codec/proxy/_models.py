"""Draft models with what turns chats into tokens, and tokens into text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from sqs_codec.edge import Draft

if TYPE_CHECKING:
    from sqs_codec import llama_cpp
    from sqs_codec.hf._models import LanguageModel

__all__ = ["GGUFModel", "HFModel", "Model", "Text"]


class Text(Protocol):
    """Text that comes token by token."""

    def add(self, tokens: Iterable[int]) -> str:
        """Return what these tokens add to it, as far as it is whole characters."""


class Model(Protocol):
    """A draft model, and its tokenizer."""

    @property
    def has_template(self) -> bool:
        """Whether `encode_chat` can be used."""

    @property
    def most_tokens(self) -> int | None:
        """The longest text, if the model says so."""

    def draft(self) -> Draft:
        """Return the model with a cache of its own; the weights are shared."""

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a chat in the model's template; it may raise anything."""

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text."""

    def text(self) -> Text:
        """Return an empty text."""


class HFModel:
    """A model of transformers, as `sqs_codec.hf` loads it."""

    most_tokens = None

    def __init__(self, model: LanguageModel) -> None:
        self._model, self._tokenizer = model.model, model.tokenizer

    def __repr__(self) -> str:
        return f"<HFModel of {type(self._model).__name__}>"

    @property
    def has_template(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return self._tokenizer.chat_template is not None

    def draft(self) -> Draft:
        """Return the model with a cache of its own."""
        from sqs_codec.hf._edge import Draft

        return Draft(self._model, self._tokenizer)

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a chat."""
        from sqs_codec.hf._models import encode_chat

        return encode_chat(self._tokenizer, messages)

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text."""
        return [int(token) for token in self._tokenizer(text)["input_ids"]]

    def text(self) -> Text:
        """Return an empty text."""
        from sqs_codec.hf._text import TextStream

        return TextStream(self._tokenizer)


class GGUFModel:
    """A GGUF file, as `sqs_codec.llama_cpp` loads it."""

    def __init__(self, draft: llama_cpp.Draft) -> None:
        self._draft = draft
        self._unused: Draft | None = draft
        self.has_template, self.most_tokens = draft.has_template, draft.n_ctx
        self.encode_chat, self.encode_text = draft.encode_chat, draft.encode_text

    def __repr__(self) -> str:
        return f"<GGUFModel of {self._draft}>"

    def draft(self) -> Draft:
        """Return the model with a cache of its own."""
        draft, self._unused = self._unused, None
        return self._draft.twin() if draft is None else draft

    def text(self) -> Text:
        """Return an empty text."""
        from sqs_codec.llama_cpp import TextStream

        return TextStream(self._draft)
