"""Lists of tokens per position, in the format of vLLM's ``prompt_logprobs``."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sqs_codec.distill import Header, Text
from sqs_codec.distill._lists import NOTHING
from sqs_codec.system._endpoint.errors import ApiError

Ints = NDArray[np.integer]

BLOCK = 1 << 14  # approximate number of entries to write at once


class Passage:
    """The requested part of a stored text; its first position has no distribution."""

    def __init__(self, tokens: NDArray[np.uint32], found: Text) -> None:
        self.tokens, self.rows = tokens, found.rows
        self.positions = found.places + 1
        last = self.rows.token_ids[self.rows.offsets[1:] - 1]
        is_tail = found.tail & (last == self.rows.vocab_size - 1)
        self.sizes = np.diff(self.rows.offsets) - is_tail

    def check(self, name: str, k: int) -> None:
        """Raise an ApiError if a list has more than k tokens."""
        if (most := int(self.sizes.max(initial=0))) > k:
            raise ApiError(
                f"prompt_logprobs is {k}, but position "
                f"{self.positions[self.sizes.argmax()]} of {name} has {most} tokens. "
                f"With fewer, the student would learn a different distribution; "
                f"prompt_logprobs={self.rows.resolution} is enough for every list",
                param="prompt_logprobs",
            )


class ListWriter:
    """Writes lists as JSON, by copying arrays of fixed-width strings."""

    def __init__(self, header: Header) -> None:
        self._vocab_size = header.codec.vocab_size - header.tail
        self._tail = header.tail
        self._ids = _table(f',"{i}":{{"logprob":' for i in range(self._vocab_size))
        shares = np.arange(1, header.codec.resolution + 1) / header.codec.resolution
        logprobs = [NOTHING, *np.log(shares).astype(np.float32)]
        self._logprobs = _table(f'{x!s},"rank":' for x in logprobs)

    def write(self, text: Passage, fill: int) -> Iterator[bytes]:
        """Yield the lists from the second on, each filled up to `fill` tokens."""
        step = max(BLOCK // (fill or int(text.sizes.max(initial=0)) + 1), 1)
        for start in range(1, text.tokens.size, step):
            yield self._block(text, start, min(start + step, text.tokens.size), fill)

    def _block(self, text: Passage, start: int, end: int, fill: int) -> bytes:
        """Return the lists of some positions, each after a comma."""
        at, ids, counts = self._entries(text, start, end, fill)
        ends = np.searchsorted(at, np.arange(end - start + 1))
        rank = np.arange(at.size) - ends[at]
        most = int(rank.max(initial=0)) + 1
        ranks = _table(f'{i},"decoded_token":null}}' for i in range(1, most + 1))
        parts = self._ids.take(ids), self._logprobs.take(counts), ranks.take(rank)
        entries = np.rec.fromarrays(parts)
        data, width = entries.tobytes(), entries.itemsize
        lists = (data[a * width + 1 : b * width] for a, b in pairwise(ends.tolist()))
        return b"".join(b",{%b}" % each if each else b",null" for each in lists)

    def _entries(self, text: Passage, start: int, end: int, fill: int) -> list[Ints]:
        """Return the position, token and count of each entry, in order."""
        n = end - start
        some = slice(*np.searchsorted(text.positions, (start, end)))
        rows, places = text.rows[some], text.positions[some] - start
        kept = rows.token_ids < self._vocab_size
        ids, counts = rows.token_ids[kept], rows.counts[kept].astype(np.int64)
        at = np.repeat(places, text.sizes[some])
        # Append tokens without a count, which sort after those with a count.
        own = text.tokens[start:end]
        # Except where there is a tail: the text's token is in it.
        lacks = np.full(n, fill > 0)
        lacks[places] |= not self._tail
        lacks[at[ids == own[at]]] = False
        at, ids = np.append(at, np.flatnonzero(lacks)), np.append(ids, own[lacks])
        if fill:
            free = np.ones((n, fill), np.bool_)
            low = ids < fill
            free[at[low], ids[low]] = False
            short = fill - np.bincount(at, minlength=n)
            row, more = np.nonzero(free & (free.cumsum(axis=1) <= short[:, None]))
            at, ids = np.append(at, row), np.append(ids, more)
        counts = np.append(counts, np.zeros(at.size - counts.size, np.int64))
        order = np.argsort(at * self._logprobs.size - counts, kind="stable")
        return [at[order], ids[order], counts[order]]


def _table(strings: Iterable[str]) -> NDArray[np.bytes_]:
    """Return strings, padded to the width of the widest."""
    found = [*strings]
    width = max(map(len, found))
    return np.array([string.ljust(width) for string in found], np.bytes_)
