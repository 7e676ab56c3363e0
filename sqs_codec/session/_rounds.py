"""What a cloud holds of a round."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from sqs_codec._codec.round import Round
from sqs_codec.session import _wire as wire

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Answered", "Draft", "Draws", "Generation"]


class Draws:
    """The numbers of one round, which its session's seed and `number` decide."""

    def __init__(self, seed: bytes, number: int) -> None:
        self.number = number
        key = blake2b(number.to_bytes(8, "big"), key=seed, digest_size=16).digest()
        philox = np.random.Philox(key=int.from_bytes(key, "big"))
        self._rng = np.random.Generator(philox)
        self._drawn = np.empty(0)

    def take(self, start: int, end: int) -> NDArray[np.float64]:
        """Return numbers `start` to `end`."""
        missing = end - self._drawn.size
        if missing > 0:
            # More than is missing, as whole texts are decoded one number at a time.
            fresh = self._rng.random(missing + self._drawn.size)
            self._drawn = np.concatenate([self._drawn, fresh])
        return self._drawn[start:end].copy()


@dataclass(frozen=True)
class Draft:
    """A drafted round in the works."""

    number: int
    draws: Draws
    asked: wire.Round
    round_: Round


@dataclass(frozen=True)
class Answered:
    """A drafted round that is over, so that it can be answered again."""

    number: int
    asked: wire.Round
    message: bytes


@dataclass
class Generation:
    """A round that is decoded by the target model alone."""

    number: int
    draws: Draws
    base: int
    n: int = 0
    sent: int = 0
    """How many of its tokens were put into messages."""
    had: int = 0
    """How many of them the edge has said that it has."""
    stopped: bool = False
