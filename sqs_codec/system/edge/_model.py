"""What a draft is: what the loop and an edge ask of a model."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Vocabulary(Protocol):
    """What a cloud has to know of a tokenizer."""

    @property
    def fingerprint(self) -> bytes:
        """As `vocabulary_fingerprint` gives it; empty if it isn't known."""

    @property
    def stop(self) -> frozenset[int]:
        """The model's own stop tokens."""


class Draft(ABC):
    """A model that drafts, with its KV cache. A subclass has to define `logits`.

    Attributes
    ----------
    vocab_size : int
        V. A subclass has to set it.
    tokenizer : optional
        Any object with a ``fingerprint`` (bytes, as `vocabulary_fingerprint` gives it)
        and ``stop`` (a frozenset of the model's stop tokens). Without one, the cloud
        can't check that both models have the same vocabulary.
    n_ctx : int, optional
        The longest text in tokens, if there is a limit.
    """

    vocab_size: int
    tokenizer: Vocabulary | None = None
    n_ctx: int | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, vocabulary {self.vocab_size}>"

    @abstractmethod
    def logits(self, tokens: Sequence[int]) -> Any:
        """Return logits [1, V] after a text: arrays, or what NumPy makes one of.

        Of float16, float32 or float64. They are used before the next call, and may
        change with it. A long text may come in parts, each after those before it. So a
        draft should cache what it has read.
        """

    def branches(self, texts: Sequence[Sequence[int]]) -> Any:
        """Return logits [w, V] after each of some texts that begin alike.

        By default it reads them one after the other.
        """
        return np.stack([np.array(self.logits(text)[-1]) for text in texts])

    def twin(self) -> Draft:
        """Return another draft of the same model, with a KV cache of its own.

        By default it is a deep copy. A draft with large weights should share them.
        """
        return copy.deepcopy(self)
