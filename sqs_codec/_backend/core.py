"""What a backend provides: the seam between Python and the code that does the work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.uint32]
Rule = tuple[int, float]
Arrays = tuple[Ids, Ids, Ids, Ids]
Best = list[tuple[list[int], list[float]]]


BackendName = Literal["native", "numba"]
IsaName = Literal["scalar", "avx2", "avx512", "neon"]

T = TypeVar("T", bound=np.generic)


class Core(Protocol):
    """What a backend provides for one codec.

    The caller has checked the type, shape and range of every argument. What only
    the work itself can find is answered with a `sqs_codec._base.errors.Status`. Arrays
    that go in are C-contiguous; arrays that come out are new. The ids and counts of
    distributions come out `frozen`, those of rows or of a round one after the other.

    Where rows are done until a status is not OK, the row after those done is to blame.
    Of any status but OK, what else comes out is of no use. Of a packet it is OVER_LIMIT
    if there are more than `most` survivors, in all.

    A keep rule is ``most`` and ``least`` of ``sqs_keep`` in ``csrc/sqs.h``, in range.

    A round is the ids and counts of its distributions, one after the other, the size of
    each and the position of the drafted token in it.

    A prior is the bytes of its file, and has the codec's vocabulary.

    What can be made of other methods is written here, and again only where it pays.
    """

    def __init__(
        self, vocab_size: int, resolution: int, coding: int, prior: bytes | None
    ) -> None: ...

    def quantize_logits(
        self, logits: NDArray[Any], temperature: float, keep: Rule, mass: bool
    ) -> tuple[int, Ids, Ids, float | None]:
        """Return status (of the row [V]), ids, counts and, if `mass`, dropped mass.

        The values, which are contiguous, are float16, float32, float64 or, as bfloat16,
        uint16.
        """

    def quantize_probs(
        self, probs: NDArray[np.floating], keep: Rule, mass: bool
    ) -> tuple[int, Ids, Ids, float | None]:
        """Return what `quantize_logits` does, of probabilities."""

    def quantize_rows(
        self, logits: NDArray[Any], temperature: float, keep: Rule
    ) -> tuple[int, int, Ids, Ids, Ids]:
        """Return status, rows done, their ids, counts and sizes.

        The rows [B, V] are as in `quantize_logits`, and the stride between rows is any
        number of values that is not negative.
        """

    def quantize_unbiased(
        self, logits: NDArray[Any], numbers: NDArray[np.uint64], temperature: float
    ) -> tuple[int, int, Ids, Ids, Ids]:
        """As `quantize_rows`, with a random number for each row."""

    def bits(self, ids: Ids, counts: Ids) -> int:
        """Return the bits of a distribution that the coding can hold."""

    def encode(self, ids: Ids, counts: Ids) -> bytes:
        """Return the packet of a distribution that the coding can hold."""

    def decode(self, packet: bytes, most: int) -> tuple[int, Ids, Ids]:
        """Return status (of the packet), token ids and counts."""

    def encode_rows(self, ids: Ids, counts: Ids, survivors: Ids) -> list[bytes]:
        """Return what `encode` makes of each of distributions one after the other."""
        ends = survivors.cumsum()
        rows = zip(ends - survivors, ends, strict=True)
        return [self.encode(ids[start:end], counts[start:end]) for start, end in rows]

    def decode_rows(
        self, packets: Sequence[bytes], most: int
    ) -> tuple[int, int, Ids, Ids, Ids]:
        """Return status, packets done, and what `encode_rows` takes of each."""
        return rows_of(self.decode(packet, most) for packet in packets)

    def encode_round(self, round_: Arrays) -> bytes:
        """Return the packet of a round."""

    def decode_round(self, packet: bytes, most: int) -> tuple[int, Ids, Ids, Ids, Ids]:
        """Return status (of the packet), and what `encode_round` takes."""

    def encode_sequence(self, ids: Ids, counts: Ids, survivors: Ids) -> bytes:
        """Return the packet of distributions one after the other; ENTROPY only."""

    def decode_sequence(
        self, packet: bytes, length: int, most: int
    ) -> tuple[int, Ids, Ids, Ids]:
        """Return status, and what `encode_sequence` takes; the first `length` of it."""

    @staticmethod
    def verify(
        round_: Arrays, target: NDArray[np.floating], draws: NDArray[np.float64]
    ) -> tuple[int, int, int, int]:
        """Return status, rows checked, accepted tokens and the next token."""
        # Rows are [L+1, V] of float32 or float64; the L+1 numbers are from [0, 1). A
        # distribution's resolution is the sum of its counts.

    @staticmethod
    def gumbel(
        logits: NDArray[Any], temperature: float, key: Ids, position: int, most: int
    ) -> tuple[int, int, Best]:
        """Return status, rows done and the best 1 to 8 ids of each row, with scores."""


def frozen(array: NDArray[T]) -> NDArray[T]:
    """Return a copy that can't be made writeable, as it is a view of bytes."""
    return np.frombuffer(array.tobytes(), array.dtype)


def joined(arrays: Sequence[Ids]) -> Ids:
    """Return one frozen array of frozen ones; np.concatenate takes thrice as long."""
    if len(arrays) == 1:
        return arrays[0]
    return np.frombuffer(b"".join([array.data for array in arrays]), np.uint32)


def rows_of(
    answers: Iterable[tuple[Any, ...]],
) -> tuple[int, int, Ids, Ids, Ids]:
    """Join answers to rows, up to the first whose status isn't OK."""
    found: list[tuple[Ids, Ids]] = []
    for status, ids, counts, *_ in answers:
        if status:
            break
        found.append((ids, counts))
    else:
        status = 0
    ids, counts = (joined([NONE, *(row[i] for row in found)]) for i in range(2))
    sizes = np.array([row[0].size for row in found], np.uint32)
    return status, len(found), ids, counts, sizes


NONE = frozen(np.empty(0, np.uint32))
