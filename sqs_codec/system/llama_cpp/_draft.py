"""GGUF files as draft models."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence

import llama_cpp as llama
import numpy as np
from numpy.typing import NDArray

from sqs_codec._base import checks
from sqs_codec.system import edge
from sqs_codec.system._base.tokens import common_length
from sqs_codec.system.llama_cpp._model import Context, Model
from sqs_codec.system.llama_cpp._options import Options
from sqs_codec.system.llama_cpp._tokenizer import Tokenizer

BRANCHES = 8
"""Texts that share a beginning and are read at once."""


class Draft(edge.Draft):
    """A GGUF file with its `tokenizer`, and the text's KV cache.

    llama.cpp's log is silenced for the whole process. The object is for one thread.

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
        self.n_ctx: int = min(n_ctx, self._model.max_tokens)
        self.vocab_size = self._model.vocab_size
        self.tokenizer: Tokenizer = Tokenizer(self._model)
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
