"""The tokenizer of a small draft's file."""

from collections.abc import Mapping, Sequence

import tokenizers
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sqs_codec import vocabulary_fingerprint
from sqs_codec.system._base import chat


class Tokenizer(chat.Tokenizer):
    """A tokenizer of ``tokenizers`` and a template in Jinja, empty if there is none."""

    sampling: Mapping[str, float] = {}  # a file says nothing of it

    def __init__(
        self,
        own: tokenizers.Tokenizer,
        template: str,
        stop: frozenset[int],
        vocab_size: int,
    ) -> None:
        self._own, self._template, self.stop = own, template, stop
        self.fingerprint = vocabulary_fingerprint(own.get_vocab(), vocab_size)
        self.has_template = bool(template)
        self._decode, self._spell = own.decode, own.id_to_token

    def _tokenize(self, text: str, *, ends: bool) -> list[int]:
        return list(self._own.encode(text, add_special_tokens=ends).ids)

    def _render(self, messages: Sequence[Mapping[str, str]]) -> str:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True
        )
        template = environment.from_string(self._template)
        return template.render(messages=messages, add_generation_prompt=True)

    def _reserved(self) -> dict[int, str]:
        unknown = self._tokenize(chat.OPEN, ends=False)
        added = self._own.get_added_tokens_decoder()
        return chat.reserved(added, self._template, unknown)
