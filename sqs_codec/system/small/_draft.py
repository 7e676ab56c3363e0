"""A small draft: its network, and the states of the text that it has read."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from sqs_codec._base import checks
from sqs_codec.system import edge
from sqs_codec.system._base.kinds import SMALL
from sqs_codec.system._base.tokens import common_length
from sqs_codec.system.small._file import Tokenizer, read
from sqs_codec.system.small._network import Array, Network

SEEN = 1024  # the pointer covers this many last positions
RECENT = 256  # cached recent states: 16 for each of 6 branches, and those of a round


class Draft(edge.Draft):
    """A small draft with its tokenizer, and the states of its text.

    It reads a token in about 0.2 ms and needs 0.6 MB of memory per 250 tokens. A text
    may have any length. Use the object in one thread. `summary` is its
    target and size, for people.

    Parameters
    ----------
    path : str or path, optional
        The file. The default comes with the package, for SmolLM2-135M-Instruct.

    Raises
    ------
    ValueError
        The file isn't a small draft, is truncated, or has another version.
    """

    def __init__(self, path: str | os.PathLike[str] = SMALL) -> None:
        self._network, tokenizer, self.summary = read(path)
        self.vocab_size = self._network.inputs.size
        self.tokenizer: Tokenizer = tokenizer
        self._text = _Text(self._network)

    def __repr__(self) -> str:
        return f"<Draft of {self.summary}>"

    def twin(self) -> Draft:
        """Return a draft with the same weights and its own text."""
        twin = copy.copy(self)
        twin._text = _Text(self._network)
        return twin

    def logits(self, tokens: Sequence[int]) -> Array:
        """Logits [1, V] after a text; only tokens without cached states are read.

        An empty text, or a token outside the vocabulary, is a ValueError.
        """
        return self._text.logits([tokens])[0][None]

    def branches(self, texts: Sequence[Sequence[int]]) -> Array:
        """Logits [w, V] after each of w texts with a common prefix, as `logits`."""
        return np.stack(self._text.logits(texts))


class _Place:
    """The network's state after a token of a text."""

    __slots__ = "key", "pointed", "query", "state"

    def __init__(self, network: Network, state: Array) -> None:
        self.state = state
        self.query, self.key, self.pointed = network.point(state)


class _Text:
    """The states of the last text, and those of recent branches."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._tokens: list[int] = []
        self._places = [_Place(network, network.begin)]
        self._keys = np.empty((64, self._places[0].key.size), np.float32)
        self._ids = np.empty(64, np.int64)
        self._recent: dict[tuple[_Place, int], _Place] = {}

    def logits(self, texts: Sequence[Sequence[int]]) -> list[Array]:
        """Return the logits [V] after each text; keep the states of their prefix."""
        if not min(map(len, texts), default=0):
            raise ValueError("a text must have one token or more")
        known = min(common_length(self._tokens, text) for text in texts)
        tails = [list(text[known:]) for text in texts]
        shared = common_length(min(tails), max(tails))
        # Keep the caller's own objects: comparing these is fastest next time.
        self._tokens = list(texts[0][:known])
        del self._places[known + 1 :]
        for n, token in enumerate(tails[0][:shared], known):
            if n == len(self._keys):
                both = self._keys, self._ids
                self._keys, self._ids = (np.concatenate([x, x]) for x in both)
            place = self._next(self._places[-1], token)
            self._keys[n], self._ids[n] = place.key, token
            self._places.append(place)
            self._tokens.append(token)
        return [self._logits(tail[shared:]) for tail in tails]

    def _logits(self, tail: list[int]) -> Array:
        places = [*accumulate(tail, self._next, initial=self._places[-1])]
        n, last = len(self._tokens), places[-1]
        seen = slice(max(0, n - SEEN - 1), n)  # one more, as the last one is dropped
        keys = np.concatenate([self._keys[seen], *(p.key[None] for p in places[1:])])
        ids = np.concatenate([self._ids[seen], np.array(tail, np.int64)])[-SEEN - 1 :]
        given = keys[-SEEN - 1 : -1], ids[1:]
        return self._network.logits(last.state, *given, last.query, last.pointed)

    def _next(self, place: _Place, token: int) -> _Place:
        after = self._recent.get((place, token))
        if after is None:
            checks.in_range("a token", token, 0, self._network.inputs.size - 1)
            after = _Place(self._network, self._network.step(int(token), place.state))
            if len(self._recent) == RECENT:
                del self._recent[next(iter(self._recent))]
            self._recent[place, token] = after
        return after
