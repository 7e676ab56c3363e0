"""Texts as tokens: prompts in a model's chat template, and what tokens say."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence

from sqs_codec import vocabulary_fingerprint
from sqs_codec._base import checks
from sqs_codec.system._base import chat
from sqs_codec.system.hf._models import HFTokenizer

__all__ = ["TextStream", "encode_chat", "encode_prompt", "tokenizer_fingerprint"]


def encode_prompt(tokenizer: HFTokenizer, prompt: str) -> list[int]:
    """Token ids of one user message, in the chat template if there is one.

    Raises
    ------
    ValueError
        The prompt has bytes that aren't text: Python hands those of another encoding
        than UTF-8 on as surrogates.
    """
    checks.utf8("the prompt", prompt)
    if tokenizer.chat_template is None:
        return list(tokenizer.encode(prompt))
    return encode_chat(tokenizer, [{"role": "user", "content": prompt}])


def encode_chat(
    tokenizer: HFTokenizer, messages: Sequence[Mapping[str, str]]
) -> list[int]:
    """Token ids of a chat in the template, up to where the answer begins.

    What a message says is text; ValueError if it spells a token in spite of that.
    """
    tokenize = functools.partial(tokenizer.encode, add_special_tokens=False)
    source = str(tokenizer.chat_template)
    # What stands for all that a vocabulary lacks opens nothing.
    unknown = tokenize(chat.OPEN)
    return chat.encode(
        messages,
        render=functools.partial(
            tokenizer.apply_chat_template, add_generation_prompt=True, tokenize=False
        ),
        tokenize=tokenize,
        reserved={
            i: token.content
            for i, token in tokenizer.added_tokens_decoder.items()
            if token.special or chat.names(source, token.content)
            if i not in unknown
        },
    )


def tokenizer_fingerprint(tokenizer: HFTokenizer | None) -> bytes:
    """Return 8 bytes that tell vocabularies apart: who has the same has the same ids.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase or None
        If None, there are no bytes.
    """
    return b"" if tokenizer is None else vocabulary_fingerprint(tokenizer.get_vocab())


class TextStream:
    """What tokens say, as far as it is whole characters."""

    def __init__(self, tokenizer: HFTokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = 0

    def add(self, tokens: Iterable[int]) -> str:
        """Return what these tokens add to the text; special ones add nothing."""
        self._ids += tokens
        said = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        whole = said.rstrip("\N{REPLACEMENT CHARACTER}")
        fresh = whole[self._shown :]
        self._shown = max(self._shown, len(whole))
        return str(fresh)
