"""GGUF files as draft models."""

from __future__ import annotations

import copy
import ctypes
import functools
import json
import os
from collections.abc import Mapping, Sequence

import llama_cpp as llama
import numpy as np
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
from numpy.typing import NDArray

from sqs_codec._base import checks
from sqs_codec.system._base import chat
from sqs_codec.system._base.tokens import common_length
from sqs_codec.system.llama_cpp._model import USER_DEFINED, Context, Model
from sqs_codec.system.llama_cpp._options import Options

BRANCHES = 8
"""Texts that share a beginning and are read at once."""

SAMPLING = {"temperature": "temp", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
"""What a file calls the fields of `sqs_codec.Sampling`."""

CONTROL = llama.LLAMA_TOKEN_ATTR_CONTROL
"""Tokens that aren't parts of words: these, and some of `USER_DEFINED`."""


class Draft:
    """A GGUF file as a `sqs_codec.system.edge.TextDraft`, with the text's KV cache.

    llama.cpp's log is silenced for the whole process. The object is for one thread. Its
    `fingerprint` and `vocabulary` are those of the Hugging Face tokenizer that the file
    was made from, without what only pads the vocabulary.

    Parameters
    ----------
    path : str or path
        The file; of a model in several files, the first one.
    n_ctx : int, optional
        The longest text in tokens. Memory for it is taken at once; it is never more
        than the model was trained for.
    threads : int, optional
        If None, half of the machine's cores.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        llama.cpp can't load it, or it isn't a model that writes texts.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        n_ctx: int = 4096,
        threads: int | None = None,
    ) -> None:
        checks.in_range("n_ctx", n_ctx, 1)
        self._model = Model(path, Options(threads=threads))
        self.n_ctx = min(n_ctx, self._model.max_tokens)
        self._read_vocabulary()
        self._open()

    def twin(self) -> Draft:
        """Return a draft of the same weights, with memory for a text of its own.

        It may be used in another thread, though not at the same time.
        """
        twin = copy.copy(self)
        twin._open()
        return twin

    def _open(self) -> None:
        """Take memory for a text."""
        self._context = Context(self._model, self.n_ctx, BRANCHES, goes_back=True)
        # The text of each of llama.cpp's sequences, as far as it is cached.
        self._texts: list[list[int]] = [[] for _ in range(self._context.places)]

    def __repr__(self) -> str:
        return f"<Draft of llama.cpp, vocabulary {self.vocab_size}>"

    def _read_vocabulary(self) -> None:
        model = self._model
        self.vocab_size, self.fingerprint = model.vocab_size, model.fingerprint
        self.vocabulary = model.vocabulary
        # Not all that llama.cpp holds for an end: it goes by the spelling, and ``</s>``
        # is HTML to some.
        ends = llama.llama_vocab_eos(model.vocab), llama.llama_vocab_eot(model.vocab)
        self.stop = frozenset(token for token in ends if token >= 0)
        template = llama.llama_model_chat_template(model.pointer, None)
        self._template = None if template is None else template.decode()
        self._reserved = {
            i: word
            for word, i in model.vocabulary.items()
            if (kind := model.attributes(i)) & CONTROL
            or (kind & USER_DEFINED and chat.names(self._template or "", word))
        }

    def __len__(self) -> int:
        """How many tokens are cached, of the longest text."""
        return max(map(len, self._texts))

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Logits [1, V] after a text, of which what is cached isn't read again.

        The next call overwrites them: they are llama.cpp's own memory. A text that is
        empty or longer than `n_ctx` is a ValueError; what else fails is a RuntimeError.
        """
        self._check(tokens)
        (place,) = self._place([tokens])
        size = self._context.batch_size
        while (left := len(tokens) - len(self._texts[place])) > 0:
            chunk = tokens[-left:][:size]
            row = self._decode([place], [chunk], wanted=left <= size)
        return row

    def branches(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Logits [w, V] after each of w texts that share a beginning.

        Up to eight are read side by side, once what they share is cached, if `n_ctx`
        has room for the rest. Others, and all of a recurrent model, are read one by
        one. Errors are those of `logits`.
        """
        if len(texts) == 0:
            raise ValueError("expected one or more texts, got none")
        for text in texts:
            self._check(text)
        shared = min(common_length(texts[0], text[:-1]) for text in texts)
        known = max(common_length(seen, texts[0][:shared]) for seen in self._texts)
        apart = sum(len(text) - shared for text in texts)
        room = min(self.n_ctx - shared, self._context.batch_size)
        if known >= shared and apart <= room and 1 < len(texts) <= len(self._texts):
            places = self._place(texts)
            fresh = [
                text[len(self._texts[place]) :]
                for place, text in zip(places, texts, strict=True)
            ]
            # All that was cached is gone if llama.cpp couldn't forget a part of it.
            if sum(map(len, fresh)) <= self._context.batch_size:
                return self._decode(places, fresh).copy()
        return np.concatenate([self.logits(text).copy() for text in texts])

    def _check(self, text: Sequence[int]) -> None:
        if not 1 <= len(text) <= self.n_ctx:
            raise ValueError(
                f"a text must have 1 to {self.n_ctx} tokens for this draft model "
                f"(its n_ctx), got {len(text)}"
            )

    def _place(self, texts: Sequence[Sequence[int]]) -> list[int]:
        """Return a sequence for each text, less its last token, read for logits."""
        found = []
        for text in texts:
            known = [common_length(seen, text[:-1]) for seen in self._texts]
            found.append((known.index(max(known)), max(known)))
        free = {*range(len(self._texts))} - {source for source, _ in found}
        places: list[int] = []
        for source, length in found:
            place = source
            if source in places:
                place = free.pop()
                self._rollback(place, 0)
                memory = self._context.memory
                llama.llama_memory_seq_cp(memory, source, place, 0, length)
                self._texts[place] = self._texts[source][:length]
            places.append(place)
        for place, (_, length) in zip(places, found, strict=True):
            self._rollback(place, length)
        for place in free:
            self._rollback(place, 0)
        return places

    def _rollback(self, place: int, length: int) -> None:
        """Cut a sequence to `length` tokens; a recurrent state begins again."""
        # After an interrupt llama.cpp may hold more than is noted here, so it is asked.
        del self._texts[place][length:]
        if not self._context.cut(place, length):
            self._clear()

    def _clear(self) -> None:
        for text in self._texts:
            text.clear()
        self._context.clear()

    def _decode(
        self,
        places: Sequence[int],
        texts: Sequence[Sequence[int]],
        *,
        wanted: bool = True,
    ) -> NDArray[np.float32]:
        """Read what follows in sequences; return the logits after each, if wanted."""
        # These are `BRANCHES` rows at most, so that llama.cpp never moves its buffer.
        pairs = [*zip(places, texts, strict=True)]
        try:
            rows = self._context.decode(
                (place, len(self._texts[place]), text, [len(text) - 1] * wanted)
                for place, text in pairs
            )
        except RuntimeError:
            self._clear()
            raise
        for place, text in pairs:
            self._texts[place].extend(text)
        return rows

    def encode_prompt(self, prompt: str) -> list[int]:
        """Token ids of one user message, in the chat template if there is one.

        A ValueError says that the prompt isn't text, or that the template fails.
        """
        return chat.encode_prompt(self, prompt)

    @property
    def has_template(self) -> bool:
        """Whether the file has a chat template."""
        return self._template is not None

    @property
    def sampling(self) -> dict[str, float]:
        """What the file has for `sqs_codec.Sampling`."""
        found, buffer = {}, ctypes.create_string_buffer(64)
        model = self._model.pointer
        for name, key in SAMPLING.items():
            path = f"general.sampling.{key}".encode()
            if llama.llama_model_meta_val_str(model, path, buffer, 64) > 0:
                found[name] = json.loads(buffer.value)
        return found

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text as it is."""
        return self._model.tokenize(text, ends=True, spells=True)

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a chat in the template, up to where the answer begins.

        What a message says is text: a ValueError says that one spells a token that
        tells roles apart, or that there is no template or it fails.
        """
        template, model = self._template, self._model
        if template is None:
            raise ValueError("the file has no chat template")

        def render(messages: Sequence[Mapping[str, str]]) -> str:
            try:
                formatter = Jinja2ChatFormatter(
                    template,
                    bos_token=model.word(llama.llama_vocab_bos(model.vocab)),
                    eos_token=model.word(llama.llama_vocab_eos(model.vocab)),
                )
                return str(formatter(messages=list(messages)).prompt)
            except Exception as error:  # a template is a program
                raise ValueError(f"the file's chat template fails: {error}") from error

        tokenize = functools.partial(model.tokenize, ends=False, spells=True)
        own = self._reserved
        return chat.encode(messages, render=render, tokenize=tokenize, reserved=own)

    def stream(self, prompt: Sequence[int] = ()) -> chat.TextStream:
        """Return the text of a completion, which comes token by token.

        A run of bytes that isn't UTF-8 has the characters that it has.
        """

        def decode(ids: list[int], **_: bool) -> str:
            return b"".join(map(self.piece, ids)).decode(errors="replace")

        return chat.TextStream(decode, lambda token: "", prompt)

    def piece(self, token: int) -> bytes:
        """Return what a token adds to a text in UTF-8, maybe half a character.

        Special tokens add nothing.
        """
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = llama.llama_token_to_piece(
                self._model.vocab, token, buffer, size, 0, False
            )
            if count >= 0:
                return buffer.raw[:count]
            size = -count
