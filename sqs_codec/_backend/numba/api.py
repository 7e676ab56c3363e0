"""The functions of ``csrc/api.c``, as the class that the rest of the package calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqs_codec._backend.core import frozen, joined
from sqs_codec._backend.numba import fields, quantize, rows
from sqs_codec._backend.numba import packet as entropy
from sqs_codec._backend.numba import verify as verification
from sqs_codec._backend.numba.gumbel import race
from sqs_codec._backend.numba.prior import pack_prior
from sqs_codec._backend.numba.sparsify import KINDS
from sqs_codec._backend.numba.systematic import quantize_unbiased
from sqs_codec._base.errors import Status
from sqs_codec._base.format import Coding

Ids = NDArray[np.uint32]


NONE = frozen(np.empty(0, np.uint32))


class Core:
    """See `sqs_codec._backend.core.Core`."""

    def __init__(
        self, vocab_size: int, resolution: int, coding: int, prior: bytes | None
    ) -> None:
        self._resolution = resolution
        self._is_entropy = coding == Coding.ENTROPY
        self._model = vocab_size, resolution, pack_prior(prior)
        self._codec = vocab_size, resolution, int(coding)

    def quantize_logits(
        self,
        logits: NDArray[Any],
        temperature: float,
        kind: int,
        value: float,
        mass: bool,
    ) -> tuple[int, int, Ids, Ids, Ids, list[float]]:
        _check_kind(kind)
        pairs: list[tuple[Ids, Ids]] = []
        masses: list[float] = []
        for row in _rows(logits):
            status, ids, counts, dropped = quantize.quantize_logits(
                row, temperature, kind, value, mass, self._resolution
            )
            if status != Status.OK:
                return status, len(pairs), *_join(pairs), masses
            pairs.append((ids, counts))
            masses.append(dropped)
        return Status.OK, len(pairs), *_join(pairs), masses if mass else []

    def encode_logits(
        self, logits: NDArray[Any], temperature: float, kind: int, value: float
    ) -> tuple[int, int, list[bytes]]:
        status, done, *rows, _ = self.quantize_logits(
            logits, temperature, kind, value, False
        )
        large = np.flatnonzero(rows[2] > fields.max_survivors(self._codec))
        if large.size:
            return Status.LARGE_SUPPORT, int(large[0]), []
        return status, done, self.encode_rows(*rows)

    def quantize_probs(
        self, probs: NDArray[np.floating], kind: int, value: float
    ) -> tuple[int, Ids, Ids, float]:
        _check_kind(kind)
        status, ids, counts, dropped = quantize.quantize_probs(
            probs.astype(np.float64), kind, value, self._resolution
        )
        return status, frozen(ids), frozen(counts), dropped

    def quantize_unbiased(
        self, logits: NDArray[Any], numbers: NDArray[np.uint64], temperature: float
    ) -> tuple[int, int, Ids, Ids, Ids]:
        pairs: list[tuple[Ids, Ids]] = []
        for row, number in zip(_rows(logits), numbers, strict=True):
            status, *pair = quantize_unbiased(
                row, number, temperature, self._resolution
            )
            if status != Status.OK:
                return status, len(pairs), NONE, NONE, NONE
            pairs.append((pair[0], pair[1]))
        return Status.OK, len(pairs), *_join(pairs)

    def bits(self, ids: Ids, counts: Ids) -> int:
        if self._is_entropy:
            return int(entropy.bits(self._model, ids, counts))
        return int(fields.distribution_bits(self._codec, ids.size))

    def encode(self, ids: Ids, counts: Ids) -> bytes:
        packet: NDArray[np.uint8]
        if self._is_entropy:
            packet, _ = entropy.encode(self._model, ids, counts)
        else:
            packet = fields.encode(self._codec, ids, counts)
        return packet.tobytes()

    def decode(self, packet: bytes, most: int) -> tuple[int, Ids, Ids]:
        data = np.frombuffer(packet, np.uint8)
        if self._is_entropy:
            status, ids, counts = entropy.decode(data, self._model, most)
        else:
            status, ids, counts = fields.decode(data, self._codec, most)
        if status != Status.OK:
            return status, NONE, NONE
        return status, frozen(ids), frozen(counts)

    def encode_rows(self, ids: Ids, counts: Ids, survivors: Ids) -> list[bytes]:
        ends = survivors.cumsum()
        rows = zip(ends - survivors, ends, strict=True)
        return [self.encode(ids[start:end], counts[start:end]) for start, end in rows]

    def decode_rows(
        self, packets: Sequence[bytes], most: int
    ) -> tuple[int, int, Ids, Ids, Ids]:
        pairs: list[tuple[Ids, Ids]] = []
        for packet in packets:
            status, *pair = self.decode(packet, most)
            if status != Status.OK:
                return status, len(pairs), NONE, NONE, NONE
            pairs.append((pair[0], pair[1]))
        return Status.OK, len(pairs), *_join(pairs)

    def encode_round(
        self, ids: Ids, counts: Ids, survivors: Ids, positions: Ids
    ) -> bytes:
        round_ = ids, counts, survivors, positions
        packet: NDArray[np.uint8]
        if self._is_entropy:
            packet = entropy.encode_round(self._model, *round_)
        else:
            packet = fields.encode_round(self._codec, *round_)
        return packet.tobytes()

    def decode_round(self, packet: bytes, most: int) -> tuple[int, Ids, Ids, Ids, Ids]:
        data = np.frombuffer(packet, np.uint8)
        if self._is_entropy:
            status, *found = entropy.decode_round(data, self._model, most, True)
        else:
            status, *found = fields.decode_round(data, self._codec, most)
        if status != Status.OK:
            return status, NONE, NONE, NONE, NONE
        ids, counts, survivors, positions = map(frozen, found)
        return status, ids, counts, survivors, positions

    def encode_sequence(self, ids: Ids, counts: Ids, survivors: Ids) -> bytes:
        return bytes(entropy.encode_round(self._model, ids, counts, survivors, NONE))

    def decode_sequence(self, packet: bytes, most: int) -> tuple[int, Ids, Ids, Ids]:
        status, *found, _ = entropy.decode_round(
            np.frombuffer(packet, np.uint8), self._model, most, False
        )
        ids, counts, survivors = found
        return status, ids, counts, survivors

    @staticmethod
    def verify(
        ids: Ids,
        counts: Ids,
        survivors: Ids,
        positions: Ids,
        target: NDArray[np.floating],
        draws: NDArray[np.float64],
    ) -> tuple[int, int, int, int]:
        n, vocab_size = target.shape
        length = n - 1
        totals = np.empty(n)
        sums = np.empty((n, -(-vocab_size // verification.BLOCK)))
        for i, row in enumerate(_rows(target)):
            status, totals[i] = verification.check_row(row, sums[i])
            if status != Status.OK:
                return status, i, 0, 0
        ends = np.cumsum(survivors, dtype=np.int64)
        starts = ends - survivors
        tokens = ids[starts + positions]
        accepted: int = verification.count_accepted(
            totals,
            target[np.arange(length), tokens].astype(np.float64),
            counts.astype(np.int64),
            survivors,
            positions,
            draws,
        )
        support = slice(0, 0)
        if accepted < length:
            support = slice(starts[accepted], ends[accepted])
        token: int = verification.draw_token(
            _writable(target[accepted]),
            sums[accepted],
            totals[accepted],
            ids[support].astype(np.int64),
            counts[support].astype(np.int64),
            draws[min(accepted + 1, length)],
        )
        return Status.OK, n, accepted, token

    @staticmethod
    def gumbel(
        logits: NDArray[Any], temperature: float, key: Ids, position: int, most: int
    ) -> tuple[int, int, list[tuple[list[int], list[float]]]]:
        found: list[tuple[list[int], list[float]]] = []
        for given in np.atleast_2d(logits):  # of which one is copied at a time
            (row,) = _rows(given)
            at = position + len(found)
            words = (
                *map(np.uint64, key),
                np.uint64(at & 0xFFFFFFFF),
                np.uint64(at >> 32),
            )
            scores, ids = np.empty(most), np.zeros(most, np.int64)
            status = race(row, temperature, words, scores, ids)
            if status != Status.OK:
                return status, len(found), found
            n = int(scores.searchsorted(np.inf))
            found.append((ids[:n].tolist(), scores[:n].tolist()))
        return Status.OK, len(found), found


def _check_kind(kind: int) -> None:
    if kind not in KINDS:
        raise ValueError(f"expected a kind of rule in {list(KINDS)}, got {kind}")


def _join(pairs: Sequence[tuple[Ids, Ids]]) -> tuple[Ids, Ids, Ids]:
    """Return ids, counts and sizes of rows, of the ids and counts of each."""
    sizes = np.array([ids.size for ids, _ in pairs], np.uint32)
    ids = joined([NONE, *(ids for ids, _ in pairs)])
    return ids, joined([NONE, *(counts for _, counts in pairs)]), sizes


# Numba compiles a function once more for arrays that can't be written. So all rows
# can be, and no ids and counts can.


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    return array if array.flags.writeable else array.copy()


def _rows(values: NDArray[Any]) -> Iterator[NDArray[np.floating]]:
    """Return rows of float32 or float64 that can be written."""
    values = _writable(np.atleast_2d(values))
    if values.dtype.itemsize == 2:
        is_half = values.dtype == np.float16
        return (rows.widen(row, is_half) for row in values.view(np.uint16))
    return iter(values)
