"""The calls that the codec, the drafter, the streams and the torch adapter share.

Internal. `Codec` is what a user sees, and documents what these calls mean. They
take what it has no argument for: a stream's memory, or whether the dropped mass is
wanted. So every choice is an argument without a default.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sqs_codec._backend import core_class
from sqs_codec._base import checks
from sqs_codec._base.errors import Status, packet_error, row_error
from sqs_codec._base.format import (
    MAX_ENTROPY_SURVIVORS,
    MAX_ENUMERATIVE_SQUARES,
    MAX_ENUMERATIVE_SUPPORT,
    MAX_SURVIVORS,
    Coding,
)
from sqs_codec._base.threads import share
from sqs_codec._codec.distribution import SparseDistribution, as_distribution
from sqs_codec._codec.keep import Keep, rule
from sqs_codec._codec.round import Round, as_round

if TYPE_CHECKING:
    from types import FrameType

    from numpy.typing import ArrayLike, NDArray

    from sqs_codec._backend.core import Core, Ids
    from sqs_codec._codec.prior import Prior

__all__ = ["Calls"]


def _depth() -> int:
    """Return the stacklevel, in the function that asks, of who uses this package."""
    frame: FrameType | None = sys._getframe(1)
    depth = 1
    while frame and str(frame.f_globals.get("__name__")).startswith("sqs_codec."):
        frame, depth = frame.f_back, depth + 1
    return depth


class Calls:
    """A core, with the values of this package in place of arrays and statuses.

    A `Codec` makes one of its own parameters, which it has checked. Logits, rules,
    temperatures and limits are checked here.
    """

    __slots__ = (
        "_unseen",
        "coding",
        "core",
        "max_support",
        "resolution",
        "vocab_size",
    )

    def __init__(
        self, vocab_size: int, resolution: int, coding: str, prior: Prior | None
    ) -> None:
        self.vocab_size = vocab_size
        self.resolution = resolution
        self.coding = coding
        self.max_support = min(vocab_size, resolution)
        if coding == "enumerative":
            self.max_support = min(self.max_support, MAX_ENUMERATIVE_SUPPORT)
        self.core: Core = core_class()(
            vocab_size,
            resolution,
            Coding[coding.upper()],
            None if prior is None else prior.to_bytes(),
        )
        self._unseen = True  # whether the first row of logits is yet to come

    # Rows of logits

    def _look_at(self, first: NDArray[np.floating]) -> None:
        """Warn if the first row of logits looks like probabilities.

        Of the first row alone, as it takes a time: who mixes the two up does so
        from the beginning.
        """
        self._unseen = False
        if checks.look_like_probabilities(first):
            warnings.warn(
                "these logits look like probabilities: none is negative, and they sum "
                "to 1; Codec.quantize_probs takes probabilities",
                stacklevel=_depth(),
            )

    def quantize(
        self, logits: ArrayLike, keep: Keep, temperature: float, *, mass: bool
    ) -> SparseDistribution:
        """Return what `Codec.quantize` does; without dropped mass unless `mass`."""
        row = checks.row("logits", logits, self.vocab_size)
        if self._unseen:
            self._look_at(row)
        temperature = checks.temperature(temperature)
        status, _, pairs, masses = self.core.quantize_logits(
            row, temperature, *rule(keep), mass
        )
        if status:
            raise self._row_error("logits", row, status)
        ids, counts = pairs[0]
        return as_distribution(
            ids, counts, self.vocab_size, self.resolution, masses[0] if mass else None
        )

    def encode_logits(self, logits: ArrayLike, keep: Keep, temperature: float) -> bytes:
        """Return what `Codec.encode_logits` does."""
        row = checks.row("logits", logits, self.vocab_size)
        if self._unseen:
            self._look_at(row)
        temperature = checks.temperature(temperature)
        status, _, packets = self.core.encode_logits(row, temperature, *rule(keep))
        if status:
            raise self._row_error("logits", row, status)
        return packets[0]

    def quantize_rows(
        self,
        rows: NDArray[Any],
        shape: Sequence[int],
        keep: Keep,
        temperature: float,
        threads: int,
    ) -> list[SparseDistribution]:
        """Return the distributions of rows [B, V] that cores take.

        An error names the row by its index in `shape`, which the rows had before
        they were put one after the other.
        """
        if self._unseen and len(rows):
            self._look_at(rows[0])
        temperature = checks.temperature(temperature)
        kind, value = rule(keep)
        results = share(
            lambda start, end: self.core.quantize_logits(
                rows[start:end], temperature, kind, value, True
            ),
            len(rows),
            threads,
        )
        self._check_done(
            [(status, done) for status, done, _, _ in results], rows, shape
        )
        return [
            as_distribution(ids, counts, self.vocab_size, self.resolution, mass)
            for _, _, pairs, masses in results
            for (ids, counts), mass in zip(pairs, masses, strict=True)
        ]

    def encode_rows(
        self,
        rows: NDArray[Any],
        shape: Sequence[int],
        keep: Keep,
        temperature: float,
        threads: int,
    ) -> list[bytes]:
        """Return the packets of rows, which `quantize_rows` describes."""
        if self._unseen and len(rows):
            self._look_at(rows[0])
        temperature = checks.temperature(temperature)
        kind, value = rule(keep)
        results = share(
            lambda start, end: self.core.encode_logits(
                rows[start:end], temperature, kind, value
            ),
            len(rows),
            threads,
        )
        self._check_done([result[:2] for result in results], rows, shape)
        return [packet for _, _, packets in results for packet in packets]

    def _check_done(
        self,
        parts: Sequence[tuple[int, int]],
        rows: NDArray[Any],
        shape: Sequence[int],
    ) -> None:
        """Name the first bad row, given each part's status and rows done."""
        before = 0
        for status, done in parts:
            before += done
            if status:
                name = "logits"
                if shape:
                    name += str([int(i) for i in np.unravel_index(before, shape)])
                raise self._row_error(name, rows[before], status)

    def _row_error(self, name: str, row: NDArray[Any], status: int) -> ValueError:
        if status == Status.LARGE_SUPPORT:
            return ValueError(
                f"{name}: coding {self.coding!r} holds at most {self.max_support} "
                "tokens; keep fewer, lower the resolution or use 'entropy'"
            )
        return row_error(name, row, status)

    # Distributions and rounds

    def check(self, q: SparseDistribution) -> None:
        """Check that packets of this codec can hold a distribution."""
        if not isinstance(q, SparseDistribution):
            raise TypeError(f"expected a SparseDistribution, got {type(q).__name__}")
        self._check_fit("the distribution", q.vocab_size, q.resolution)
        self._check_support(q.token_ids.size)

    def _check_support(self, size: int) -> None:
        if size > self.max_support:
            raise ValueError(
                f"coding {self.coding!r} holds at most {self.max_support} tokens, got "
                f"{size}; keep fewer, lower the resolution or use 'entropy'"
            )

    def _check_fit(self, name: str, vocab_size: int, resolution: int) -> None:
        if (vocab_size, resolution) != (self.vocab_size, self.resolution):
            raise ValueError(
                f"{name} doesn't fit the codec: expected vocabulary {self.vocab_size} "
                f"and resolution {self.resolution}, got {vocab_size} and {resolution}"
            )

    def holds(self, sizes: Sequence[int]) -> bool:
        """Say whether supports of these sizes may share a round."""
        if self.coding == "entropy":
            return sum(sizes) <= MAX_ENTROPY_SURVIVORS
        squares = sum(k * k for k in sizes)
        return self.coding != "enumerative" or squares <= MAX_ENUMERATIVE_SQUARES

    def encode_round(self, round_: Round, memory: Ids | None) -> bytes:
        """Return the packet of a round; a memory learns from the round."""
        self._check_fit("the round", round_.vocab_size, round_.resolution)
        arrays = round_.arrays
        sizes = arrays[2].tolist()
        self._check_support(max(sizes))
        if not self.holds(sizes):
            raise ValueError(
                f"too many tokens for one {self.coding!r} round: the sizes of its "
                f"supports sum to {sum(sizes)}, their squares to "
                f"{sum(k * k for k in sizes)}, and at most {MAX_ENTROPY_SURVIVORS} "
                f"('entropy') and {MAX_ENUMERATIVE_SQUARES} ('enumerative') are "
                "allowed; draft fewer tokens"
            )
        return self.core.encode_round(*arrays, memory)

    def decode_round(
        self, packet: bytes, memory: Ids | None, max_survivors: int | None
    ) -> Round:
        """Return the round of a packet; a memory learns from the round."""
        most = survivors_limit(max_survivors)
        status, ids, counts, sizes, positions = self.core.decode_round(
            packet, memory, most
        )
        if status:
            raise packet_error(status, len(packet), most)
        arrays = ids, counts, sizes, positions
        return as_round(arrays, self.vocab_size, self.resolution)


def survivors_limit(max_survivors: int | None) -> int:
    """Return what cores take as the receiver's limit on the survivors of a packet."""
    if max_survivors is None:
        return MAX_SURVIVORS
    return min(checks.in_range("max_survivors", max_survivors, 1), MAX_SURVIVORS)
