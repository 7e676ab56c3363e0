"""What a cloud holds of a round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqs_codec import Round
from sqs_codec.system.session import _wire as wire

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Answered", "CloudGeneration", "CloudRound"]


@dataclass(frozen=True)
class CloudRound:
    """A drafted round in the works."""

    number: int
    draws: NDArray[np.float64]
    asked: wire.RoundMessage
    round_: Round


@dataclass(frozen=True)
class Answered:
    """A drafted round that is over, so that it can be answered again."""

    number: int
    asked: wire.RoundMessage
    message: bytes


@dataclass
class CloudGeneration:
    """A round that is decoded by the numbers that both ends share."""

    number: int
    base: int
    n: int = 0
    sent: int = 0
    """How many of its tokens were put into messages."""
    had: int = 0
    """How many of them the edge has said that it has."""
    stopped: bool = False
