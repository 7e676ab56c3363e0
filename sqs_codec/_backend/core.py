"""The interface between Python and the backends."""

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
    """A backend's functions for one codec.

    The caller checks the type, shape and range of all arguments. The backend returns
    other errors as a `sqs_codec._base.errors.Status`. Given arrays are C-contiguous;
    results are new. Ids and counts in results are `frozen`; those of rows and rounds
    are concatenated.

    Functions on rows stop at the first status that isn't OK, which belongs to the row
    after the rows done. Unless the status is OK, ignore the other results. OVER_LIMIT
    is the status of packets with more than `most` survivors in total.

    A keep rule is a valid ``most`` and ``least`` of ``sqs_keep`` in ``csrc/sqs.h``.

    A round is four arrays: ids and counts of all distributions, their sizes, and the
    positions of the drafted tokens in them.

    A prior is its file's bytes, and has the codec's vocabulary.

    Methods with a body have a default; backends override it where that is faster.
    """

    def __init__(
        self, vocab_size: int, resolution: int, coding: int, prior: bytes | None
    ) -> None: ...

    def quantize_logits(
        self, logits: NDArray[Any], temperature: float, keep: Rule, mass: bool
    ) -> tuple[int, Ids, Ids, float | None]:
        """Return the row's status, ids, counts and, if `mass`, the dropped mass.

        The row [V] is contiguous: float16, float32, float64, or uint16 for bfloat16.
        """

    def quantize_probs(
        self, probs: NDArray[np.floating], keep: Rule, mass: bool
    ) -> tuple[int, Ids, Ids, float | None]:
        """Quantize probabilities, with results as `quantize_logits`."""

    def quantize_rows(
        self, logits: NDArray[Any], temperature: float, keep: Rule
    ) -> tuple[int, int, Ids, Ids, Ids]:
        """Return status, rows done, their ids, counts and sizes.

        The rows [B, V] are as in `quantize_logits`, with any non-negative stride.
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
        """Return the packets of concatenated distributions."""
        ends = survivors.cumsum()
        rows = zip(ends - survivors, ends, strict=True)
        return [self.encode(ids[start:end], counts[start:end]) for start, end in rows]

    def decode_rows(
        self, packets: Sequence[bytes], most: int
    ) -> tuple[int, int, Ids, Ids, Ids]:
        """Return status, packets done, and the arguments of `encode_rows`."""
        return rows_of(self.decode(packet, most) for packet in packets)

    def encode_round(self, round_: Arrays) -> bytes:
        """Return the packet of a round."""

    def decode_round(self, packet: bytes, most: int) -> tuple[int, Ids, Ids, Ids, Ids]:
        """Return the packet's status and the round."""

    def encode_sequence(self, ids: Ids, counts: Ids, survivors: Ids) -> bytes:
        """Return the packet of a sequence of distributions; ENTROPY only."""

    def decode_sequence(
        self, packet: bytes, length: int, most: int
    ) -> tuple[int, Ids, Ids, Ids]:
        """Return status and the first `length` distributions, concatenated."""

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
    """Return a copy that can't be made writable, because it is a view of bytes."""
    return np.frombuffer(array.tobytes(), array.dtype)


def joined(arrays: Sequence[Ids]) -> Ids:
    """Concatenate frozen arrays, three times as fast as np.concatenate."""
    if len(arrays) == 1:
        return arrays[0]
    return np.frombuffer(b"".join([array.data for array in arrays]), np.uint32)


def rows_of(
    answers: Iterable[tuple[Any, ...]],
) -> tuple[int, int, Ids, Ids, Ids]:
    """Join the results of rows, up to the first whose status isn't OK."""
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
