"""A draft model that reads a long text in parts."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sqs_codec.system._base.tokens import common_length
from sqs_codec.system.edge._model import Draft

FIRST = 64
"""Tokens of the first part. SmolLM2-135M on a CPU takes 4.5 times as long for 64 tokens
as for one (`CachedModel.logits` after 100 tokens), so short prompts stay whole."""

LONGEST = 0.03
"""Seconds of a part, if the draft is as quick by smaller parts. A token that comes
meanwhile waits as long: about 15 % of 0.2 s, the first token's time on a good link."""

SLOWER = 1.25
"""Parts that take so many times as long per token as the quickest are too small."""


class Reader:
    """A draft model, and the text that it read last, which is taken to be cached."""

    def __init__(self, draft: Draft, clock: Callable[[], float]) -> None:
        self._draft = draft
        self._clock = clock
        self._known: Sequence[int] = ()
        self._size, self._least = FIRST, 1  # of parts, in tokens
        self._pace = math.inf  # seconds per token of the quickest part

    def logits(self, tokens: Sequence[int]) -> Any:
        """Return the draft's logits [1, V] after a text."""
        self._known = tokens
        logits = self._draft.logits(tokens)
        if np.ndim(logits) != 2:
            got = [*np.shape(logits)]
            raise ValueError(f"a draft's logits must have shape [1, V], got {got}")
        return logits

    def branches(self, texts: Sequence[Sequence[int]]) -> Any:
        """Return the draft's logits [w, V] after each of some texts."""
        self._known = texts[0]
        return self._draft.branches(texts)

    def read(self, text: Sequence[int]) -> bool:
        """Read the next part of a text; False if no more than one part is left."""
        known, size = common_length(self._known, text), self._size
        if len(text) - known <= size:
            return False
        began = self._clock()
        self.logits(text[: known + size])
        took = self._clock() - began
        self._pace = min(self._pace, took / size)
        if took > SLOWER * self._pace * size and size < FIRST:
            self._size = self._least = 2 * size
        elif took > LONGEST and size > self._least:
            self._size //= 2
        elif took < LONGEST / 2:
            self._size *= 2
        return True
