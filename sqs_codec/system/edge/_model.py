"""The interface of draft models."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Vocabulary(Protocol):
    """The properties of a tokenizer that a cloud checks."""

    @property
    def fingerprint(self) -> bytes:
        """The result of `vocabulary_fingerprint`; empty if unknown."""

    @property
    def stop(self) -> frozenset[int]:
        """The model's stop tokens."""


class Draft(ABC):
    """A draft model with its KV cache. Subclasses define `logits`.

    Attributes
    ----------
    vocab_size : int
        V. Subclasses set it.
    tokenizer : optional
        Any object with a ``fingerprint`` (bytes from `vocabulary_fingerprint`) and
        ``stop`` (a frozenset of the model's stop tokens). Without one, the cloud can't
        check that both models have the same vocabulary.
    n_ctx : int, optional
        Maximum context length in tokens, if there is a limit.
    """

    vocab_size: int
    tokenizer: Vocabulary | None = None
    n_ctx: int | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, vocabulary {self.vocab_size}>"

    @abstractmethod
    def logits(self, tokens: Sequence[int]) -> Any:
        """Return the logits [1, V] after a text, as an array or array-like.

        The dtype is float16, float32 or float64. The next call may overwrite the
        result. Each call passes the whole text so far, and a long text grows over
        several calls, so a draft should keep a KV cache.
        """

    def branches(self, texts: Sequence[Sequence[int]]) -> Any:
        """Return the logits [w, V] after each of w texts with a common beginning.

        The default reads them one after the other.
        """
        return np.stack([np.array(self.logits(text)[-1]) for text in texts])

    def twin(self) -> Draft:
        """Return another draft of the same model, with its own KV cache.

        The default is a deep copy. Override it if the copies should share weights.
        """
        return copy.deepcopy(self)
