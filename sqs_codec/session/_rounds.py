"""What a cloud holds of a round, and of a text that is to come."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from sqs_codec._codec.distribution import MixedRound, SparseDistribution
from sqs_codec._codec.verify import Wanted
from sqs_codec.session import _wire as wire
from sqs_codec.session._wire import WireError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Answered", "Draft", "Draws", "Generation", "PendingText", "until_stop"]


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


@dataclass
class Draft:
    """A drafted round in the works."""

    number: int
    draws: Draws
    setting: int
    parts: dict[int, MixedRound | None] = field(default_factory=dict)
    """Segments by index; None for one without tokens."""
    digests: dict[int, bytes] = field(default_factory=dict)
    last: int | None = None
    """Index of the last segment, once it has come."""
    done: int = 0
    """How many segments are verified."""
    accepted: list[int] = field(default_factory=list)
    drawn: int = 0
    """The token that follows the accepted ones, if the round ends there."""
    rejected: MixedRound | None = None
    """The token that is rejected, if its distribution was missing."""
    found: bool = False
    """Whether `rejected` has its distribution."""

    @property
    def length(self) -> int:
        """How many drafted tokens there are."""
        return sum(len(part) for part in self.parts.values() if part is not None)

    @property
    def survivors(self) -> int:
        """How many tokens their distributions have."""
        return sum(
            q.token_ids.size
            for part in self.parts.values()
            if part is not None
            for q in part.distributions
            if q is not None
        )

    @property
    def wanted(self) -> bool:
        """Whether a distribution is missing."""
        return self.rejected is not None and not self.found

    @property
    def ended(self) -> bool:
        """Whether all that is left is a last segment without tokens."""
        return self.done == self.last and self.parts[self.done] is None

    def knows(self, segment: wire.Segment) -> bool:
        """Say whether a segment has come before, which must have been the same."""
        return _knows(self.number, self.digests, segment)

    def add(self, segment: wire.Segment, part: MixedRound | None) -> None:
        """Take a segment and its tokens."""
        if segment.setting != self.setting:
            raise WireError(
                f"segment {segment.index} is of setting {segment.setting}, others of "
                f"its round are of {self.setting}"
            )
        self.parts[segment.index] = part
        self.digests[segment.index] = _digest(segment)
        lasts = [segment.index] if segment.last else []
        lasts += [] if self.last is None else [self.last]
        most = max(self.parts)
        if lasts and most > min(lasts):
            raise WireError(f"segment {most} follows the last, {min(lasts)}")
        self.last = min(lasts, default=None)

    def next_part(self) -> MixedRound | None:
        """Return what is to be verified next, if it is there."""
        if self.rejected is not None:
            return self.rejected if self.found else None
        return self.parts.get(self.done)

    def want(self, part: MixedRound, wanted: Wanted) -> None:
        """Take that a distribution is missing; what follows it is void."""
        at = wanted.position
        self.accepted += part.tokens[:at]
        self.rejected = MixedRound(
            part.tokens[at : at + 1],
            part.counts[at : at + 1],
            [None],
            resolution=part.resolution,
            vocab_size=part.vocab_size,
        )

    def find(self, q: SparseDistribution) -> None:
        """Take the distribution that was missing."""
        assert self.rejected is not None
        self.rejected = self.rejected.with_distribution(0, q)
        self.found = True


@dataclass(frozen=True)
class Answered:
    """A drafted round that is over, so that it can be answered again."""

    number: int
    digests: dict[int, bytes]
    decided: int
    """Index of the segment on which the answer came."""
    wanted: bool
    """Whether a distribution had to come before the answer."""
    message: bytes

    def decides(self, segment: wire.Segment) -> bool:
        """Say whether a segment that comes again is the one to answer."""
        _knows(self.number, self.digests, segment)
        return segment.index == self.decided


@dataclass
class Generation:
    """A round that is decoded by the target model alone."""

    number: int
    draws: Draws
    base: int
    n: int = 0
    sent: int = 0
    """How many of its tokens were put into messages."""
    stopped: bool = False


@dataclass
class PendingText:
    """A text that hasn't come whole."""

    number: int
    drawn: int
    """By which number the round that follows is drawn."""
    keep: int
    total: int
    tokens: list[int] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many tokens of the text there are."""
        return self.keep + len(self.tokens)

    def is_of(self, part: wire.Context) -> bool:
        """Say whether a part is one of this text."""
        mine = self.number, self.drawn, self.keep, self.total
        return mine == (part.number, part.drawn, part.keep, part.total)

    def add(self, part: wire.Context) -> None:
        """Take what a part has of the text, unless there is a gap before it."""
        if part.start <= self.count:
            self.tokens += part.tokens[self.count - part.start :]


def until_stop(tokens: list[int], stop: frozenset[int]) -> list[int]:
    """Return tokens up to the first stop token, which is the last one then."""
    ends = [i + 1 for i, token in enumerate(tokens) if token in stop]
    return tokens[: ends[0]] if ends else tokens


def _knows(number: int, digests: dict[int, bytes], segment: wire.Segment) -> bool:
    known = digests.get(segment.index)
    if known is not None and known != _digest(segment):
        raise WireError(
            f"segment {segment.index} of round {number} came before with other bytes"
        )
    return known is not None


def _digest(segment: wire.Segment) -> bytes:
    return blake2b(segment.to_bytes(), digest_size=16).digest()
