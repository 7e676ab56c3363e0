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

BRANCHES = 8  # maximum number of texts with a common prefix in one batch


class Draft(edge.Draft):
    """A draft model from a GGUF file, with its `tokenizer` and KV cache.

    llama.cpp's log is silenced for the whole process. Use the object in one thread.

    Parameters
    ----------
    path : str or path
        The file, or the first one of a model in several files.
    n_ctx : int, optional
        Maximum length of a text in tokens, at most the model's training context. Its
        memory is allocated at once.
    threads : int, optional
        Number of threads. If None, half of the machine's cores.

    Raises
    ------
    ValueError
        llama.cpp can't load the file, or it isn't a language model.
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
        """Return a draft with the same weights and its own KV cache.

        It may be used in another thread, but not at the same time as this one.
        """
        twin = copy.copy(self)
        twin._open()
        return twin

    def _open(self) -> None:
        self._context = Context(self._model, self.n_ctx, BRANCHES, goes_back=True)
        # The cached tokens of each of llama.cpp's sequences.
        self._texts: list[list[int]] = [[] for _ in range(self._context.places)]

    def __len__(self) -> int:
        """Return the number of cached tokens of the longest text."""
        return max(map(len, self._texts))

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Logits [1, V] after a text; the model reads only tokens that aren't cached.

        The next call overwrites them: they are llama.cpp's own memory. An empty text or
        one longer than `n_ctx` is a ValueError; other failures are a RuntimeError.
        """
        self._check(tokens)
        (place,) = self._place([tokens])
        size = self._context.batch_size
        while (left := len(tokens) - len(self._texts[place])) > 0:
            chunk = tokens[-left:][:size]
            row = self._decode([place], [chunk], wanted=left <= size)
        return row

    def branches(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Logits [w, V] after each of w texts that share a prefix.

        Up to eight texts are read in one batch if their prefix is cached and `n_ctx`
        has room for the rest. Otherwise, and by recurrent models, they are read one by
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
            # If llama.cpp can't drop a part of its cache, all of it is cleared.
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
        """Assign a sequence to each text, rolled back to their common prefix."""
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
        """Cut a sequence to `length` tokens, or clear all if it can't be cut."""
        # Cut in any case: after an interrupt llama.cpp may hold more than `_texts`.
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
        """Append texts to sequences; return the logits after each, if wanted."""
        # With at most `BRANCHES` rows llama.cpp never moves its buffer.
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
