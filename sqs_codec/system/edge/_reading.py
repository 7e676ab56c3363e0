"""Prefill of the draft model, in parts."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sqs_codec.system._base.tokens import common_length
from sqs_codec.system.edge._model import Draft

FIRST = 64
"""Tokens of the first part, so that short prompts stay whole. On a CPU, SmolLM2-135M
takes 4.5 times as long for 64 tokens as for one (`CachedModel.logits`)."""

LONGEST = 0.03
"""Goal for the seconds of a part. A token that arrives during a part waits for its end:
here at most 15 % of 0.2 s, the time to the first token on a good link."""

SLOWER = 1.25
"""A part is too small if its time per token is this many times the best one."""


class Reader:
    """A draft model, and the text that its KV cache is assumed to hold."""

    def __init__(self, draft: Draft, clock: Callable[[], float]) -> None:
        self._draft = draft
        self._clock = clock
        self._known: Sequence[int] = ()
        self._size, self._least = FIRST, 1  # present and smallest part, in tokens
        self._pace = math.inf  # seconds per token of the fastest part

    def logits(self, tokens: Sequence[int]) -> Any:
        self._known = tokens
        logits = self._draft.logits(tokens)
        if np.ndim(logits) != 2:
            got = [*np.shape(logits)]
            raise ValueError(f"a draft's logits must have shape [1, V], got {got}")
        return logits

    def branches(self, texts: Sequence[Sequence[int]]) -> Any:
        self._known = texts[0]
        return self._draft.branches(texts)

    def read(self, text: Sequence[int]) -> bool:
        """Read the next part of a text; False if at most one part is left."""
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
