"""Stored texts, found by their tokens."""

from bisect import bisect_left

import numpy as np
from numpy.typing import ArrayLike

from sqs_codec._base import checks
from sqs_codec.distill._dataset import Dataset, Text

TOKEN = np.dtype(">u4")
"""Tokens as bytes that compare as the tokens do."""


class MissError(LookupError):
    """No stored text begins with the tokens asked for: none has `token` at `position`.

    Before that, some have them all. What stored texts have there isn't said.
    """

    def __init__(self, position: int, token: int) -> None:
        super().__init__(
            f"no stored text goes on with token {token} at position {position}"
        )
        self.position, self.token = position, token


class Lookup:
    """Finds the sequence of a file that begins with given tokens.

    Keeps the tokens of all texts in memory, 4 bytes each, sorted. A search makes about
    ``log2(len(data))`` comparisons.
    """

    def __init__(self, data: Dataset) -> None:
        self._texts = [tokens.astype(TOKEN).tobytes() for tokens in data.tokens()]
        self._order = sorted(range(len(self._texts)), key=self._texts.__getitem__)
        self._data = data

    def __repr__(self) -> str:
        return f"<Lookup in {len(self._texts)} sequences>"

    def find(self, tokens: ArrayLike) -> Text:
        """Return the first sequence, in the order of texts, that begins with tokens.

        A MissError says that there is none, a ValueError that the file has changed.
        """
        i = self.seek(tokens)
        return self._read(i, len(self._texts[i]) // TOKEN.itemsize)

    def start(self, tokens: ArrayLike) -> Text:
        """Return all of these tokens except the last, and the distribution after each.

        The result is the start of the sequence that `find` returns, with the same
        errors. The time depends on the number of tokens, not on the sequence's length.
        """
        return self._read(self.seek(tokens), np.size(tokens) - 1)

    def _read(self, i: int, length: int) -> Text:
        found, size = self._data.start(i, length), length * TOKEN.itemsize
        if found.tokens.astype(TOKEN).tobytes() != self._texts[i][:size]:
            raise ValueError(f"{self._data.path} isn't the file that it was")
        return found

    def seek(self, tokens: ArrayLike) -> int:
        """Return the index of the sequence that `find` returns, without reading it."""
        ids = checks.uint32("tokens", tokens)
        if not ids.size:
            raise ValueError("a text needs one token at least, to be found")
        asked = ids.astype(TOKEN).tobytes()
        order, texts = self._order, self._texts
        at = bisect_left(order, asked, key=lambda i: texts[i][: len(asked)])
        if at < len(order) and texts[order[at]].startswith(asked):
            return order[at]
        # Of all texts, its neighbors have most of its beginning.
        beside = order[max(at - 1, 0) : at + 1]
        position = max((_shared(asked, texts[i]) for i in beside), default=0)
        raise MissError(position, int(ids[position]))


def _shared(a: bytes, b: bytes) -> int:
    """Return how many tokens two texts have in common at their beginning."""
    size = min(len(a), len(b)) // TOKEN.itemsize
    differ = np.frombuffer(a, TOKEN, size) != np.frombuffer(b, TOKEN, size)
    return int(differ.argmax()) if differ.any() else size
