"""What a completer wants of a draft model: that of any kind in this package has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from sqs_codec.system import edge

__all__ = ["Model", "Text"]


class Text(Protocol):
    """Text that comes token by token."""

    def add(self, tokens: Iterable[int]) -> str:
        """Return what these tokens add to it, as far as it is whole characters."""


class Model(edge.Draft, Protocol):
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

    def branches(self, texts: Sequence[Sequence[int]]) -> Any:
        """Return logits [w, V] after each of some texts that begin alike."""

    def twin(self) -> Model:
        """Return another draft of the same weights, for a text of its own."""

    def encode_prompt(self, prompt: str) -> list[int]:
        """Token ids of one user message, in the template if there is one."""

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a chat in the template, up to where the answer begins."""

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text as it is."""

    def stream(self) -> Text:
        """Return an empty text."""
