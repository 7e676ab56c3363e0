"""A small draft: its network, its tokenizer, and the texts that it has read."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence

import numpy as np
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sqs_codec import vocabulary_fingerprint
from sqs_codec._base import checks
from sqs_codec.system._base import chat
from sqs_codec.system._base.hub import SMALL
from sqs_codec.system._base.tokens import common_length
from sqs_codec.system.edge import DraftModel
from sqs_codec.system.small._file import File
from sqs_codec.system.small._network import Array, Network

SEEN = 1024
"""The last positions of a text, at which a network may point."""

TEXTS = 8
"""Whose states are kept, of those read last."""


class Draft(DraftModel):
    """A small draft, with the states of the texts that it has read last.

    It reads a token in some 0.2 ms and needs half a megabyte of memory for 250 tokens
    of a text, which may be of any length. The object is for one thread.

    Parameters
    ----------
    path : str or path, optional
        The file. By default it is the one that comes with the package, for
        SmolLM2-135M-Instruct.

    Attributes
    ----------
    vocab_size : int
        V.
    stop : frozenset of int
        Tokens that end a text.
    fingerprint : bytes
        That of the target's tokenizer, which is in the file.
    summary : str
        What it drafts for, and how large it is, for people.
    n_ctx : None
        A text may be of any length.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It isn't one of a small draft, is cut, or was made for another version.
    """

    n_ctx = None

    def __init__(self, path: str | os.PathLike[str] = SMALL) -> None:
        self._file = file = File.read(path)
        self._network = file.network
        self._tokenizer = file.tokenizer
        self.vocab_size = file.network.inputs.size
        self.stop, self.summary = frozenset(file.stop), file.summary
        vocabulary = file.tokenizer.get_vocab()
        self.fingerprint = vocabulary_fingerprint(vocabulary, self.vocab_size)
        self._texts = [_Text(self._network)]

    def __repr__(self) -> str:
        return f"<Draft of {self.summary}>"

    def twin(self) -> Draft:
        """Return a draft of the same weights, for a text of its own."""
        twin = copy.copy(self)
        twin._texts = [_Text(self._network)]
        return twin

    def logits(self, tokens: Sequence[int]) -> Array:
        """Logits after a text.

        Parameters
        ----------
        tokens : sequence of int
            The whole text. What it has in common with one that was read is not read
            again.

        Returns
        -------
        ndarray of float32, shape [1, V]

        Raises
        ------
        ValueError
            The text is empty, or a token is not in the vocabulary.
        """
        if not len(tokens):
            raise ValueError("a text must have one token or more")
        known = [common_length(text.tokens, tokens) for text in self._texts]
        text = self._texts[known.index(max(known))]
        if max(known) == len(text.tokens):
            self._texts.remove(text)
        else:
            text = text.cut(max(known))
        for token in tokens[len(text.tokens) :]:
            checks.in_range("a token", token, 0, self.vocab_size - 1)
            text.read(int(token))
        self._texts = [text, *self._texts[: TEXTS - 1]]
        return text.logits()[None]

    def encode_prompt(self, prompt: str) -> list[int]:
        """Token ids of one user message, in the chat template if there is one.

        Raises
        ------
        ValueError
            The prompt has bytes that aren't text, or the template fails.
        """
        return chat.encode_prompt(self, prompt)

    @property
    def has_template(self) -> bool:
        """Whether there is a chat template."""
        return bool(self._file.template)

    @property
    def sampling(self) -> dict[str, float]:
        """What the target's own files say of how it is drawn from: nothing."""
        return {}

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text as it is."""
        return list(self._tokenizer.encode(text).ids)

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a chat in the template, up to where the answer begins.

        What a message says is text: it can't spell a token that tells roles apart.

        Raises
        ------
        ValueError
            There is no template, or it fails, or a message spells such a token anyway.
        """
        if not self.has_template:
            raise ValueError("the draft's file has no chat template")
        return chat.encode(
            messages,
            render=self._render,
            tokenize=self._tokenize,
            reserved=chat.reserved(
                self._tokenizer.get_added_tokens_decoder(),
                self._file.template,
                self._tokenize(chat.OPEN),
            ),
        )

    def _tokenize(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _render(self, messages: Sequence[Mapping[str, str]]) -> str:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True
        )
        try:
            template = environment.from_string(self._file.template)
            return template.render(messages=messages, add_generation_prompt=True)
        except Exception as error:  # a template is a program
            raise ValueError(f"the draft's chat template fails: {error}") from error

    def stream(self, prompt: Sequence[int] = ()) -> chat.TextStream:
        """Return the text of a completion, which comes token by token."""
        own = self._tokenizer
        return chat.TextStream(own.decode, own.id_to_token, prompt)


class _Text:
    """The states of a text, and at what of it the network may point."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.tokens: list[int] = []
        self._states = [network.begin]
        self._keys = np.empty((64, network.pointer.shape[0] // 2), np.float32)
        self._pointing: list[tuple[Array, float]] = []

    def cut(self, length: int) -> _Text:
        """Return the first tokens of the text, which needn't be read again."""
        text = copy.copy(self)
        text.tokens, text._states = self.tokens[:length], self._states[: length + 1]
        text._pointing, text._keys = self._pointing[:length], self._keys.copy()
        return text

    def read(self, token: int) -> None:
        """Read another token."""
        state = self._network.step(token, self._states[-1])
        n = len(self.tokens)
        if n == len(self._keys):
            self._keys = np.concatenate([self._keys, np.empty_like(self._keys)])
        query, self._keys[n], pointed = self._network.point(state)
        self._pointing.append((query, pointed))
        self._states.append(state)
        self.tokens.append(token)

    def logits(self) -> Array:
        """Return the logits of what follows, [V]."""
        first, last = max(0, len(self.tokens) - 1 - SEEN), len(self.tokens) - 1
        return self._network.logits(
            self._states[-1],
            self._keys[first:last],
            self.tokens[first + 1 :],
            *self._pointing[-1],
        )
