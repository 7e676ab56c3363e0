"""The Numba backend: the core for where there is no C compiler and no wheel.

The functions that Numba compiles are in the modules beside this one, which follow
the stages of ``csrc``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from sqs_codec import _numba_entropy as entropy
from sqs_codec import _numba_packet as fields
from sqs_codec import _numba_quantize as quantization
from sqs_codec import _numba_sparsify as sparsification
from sqs_codec import _numba_verify as verification
from sqs_codec._backend import frozen
from sqs_codec._errors import Status
from sqs_codec._format import (
    MAX_ENUMERATIVE_SUPPORT,
    MAX_ROUND,
    MEMORY_WORDS,
    ROUND_LENGTH_BITS,
    Coding,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sqs_codec._backend import Ids
    from sqs_codec._keep import Keep

OK = int(Status.OK)
TRUNCATED = int(Status.TRUNCATED)
LARGE_SUPPORT = int(Status.LARGE_SUPPORT)

ENUMERATIVE = int(Coding.ENUMERATIVE)
ENTROPY = int(Coding.ENTROPY)


class Core:
    """See `sqs_codec._backend.Core`."""

    def __init__(
        self, vocab_size: int, resolution: int, coding: int, error: float
    ) -> None:
        self._codec = vocab_size, resolution, int(coding)
        self._error = error
        if coding == ENUMERATIVE:
            self._most = MAX_ENUMERATIVE_SUPPORT
        else:
            self._most = vocab_size

    def quantize_logits(
        self,
        logits: NDArray[Any],
        temperature: float,
        keep: Keep,
        bits_per_tv: float,
        mass: bool,
    ) -> tuple[int, int, list[tuple[Ids, Ids]], list[float]]:
        pairs: list[tuple[Ids, Ids]] = []
        masses: list[float] = []
        for row in _rows(logits):
            status, ids, counts, dropped = self._quantize(
                row, temperature, keep, bits_per_tv, mass
            )
            if status != OK:
                return status, len(pairs), pairs, masses
            pairs.append((frozen(ids), frozen(counts)))
            masses.append(dropped)
        return OK, len(pairs), pairs, masses if mass else []

    def encode_logits(
        self,
        logits: NDArray[Any],
        temperature: float,
        keep: Keep,
        bits_per_tv: float,
        mass: bool,
    ) -> tuple[int, int, list[bytes], list[float]]:
        packets: list[bytes] = []
        masses: list[float] = []
        for row in _rows(logits):
            status, ids, counts, dropped = self._quantize(
                row, temperature, keep, bits_per_tv, mass
            )
            if status == OK and ids.size > self._most:
                status = LARGE_SUPPORT
            if status != OK:
                return status, len(packets), packets, masses
            packets.append(self.encode(frozen(ids), frozen(counts)))
            masses.append(dropped)
        return OK, len(packets), packets, masses if mass else []

    def _quantize(
        self,
        row: NDArray[np.floating],
        temperature: float,
        keep: Keep,
        bits_per_tv: float,
        mass: bool,
    ) -> tuple[int, Ids, Ids, float]:
        rule = temperature, int(keep._kind), keep._value
        _, resolution, _ = self._codec
        found: tuple[int, Ids, Ids, float]
        if bits_per_tv > 0:
            found = quantization.quantize_logits_by_price(
                row, *rule, resolution, bits_per_tv
            )
        else:
            found = quantization.quantize_logits(
                row, *rule, mass, resolution, self._error
            )
        return found

    def quantize_probs(
        self, probs: NDArray[np.floating], keep: Keep, bits_per_tv: float
    ) -> tuple[int, Ids, Ids, float]:
        row = probs.astype(np.float64)
        weighed = quantization.weigh_probs(row, int(keep._kind), keep._value)
        status, *tokens, dropped = weighed
        if status != OK:
            none = np.empty(0, np.uint32)
            return status, none, none, 0.0
        vocab_size, resolution, _ = self._codec
        if bits_per_tv > 0:
            found = quantization.fit_by_price(
                *tokens, dropped, vocab_size, resolution, bits_per_tv
            )
        else:
            found = quantization.fit_plainly(*tokens, dropped, resolution, self._error)
        return status, *map(frozen, found), dropped

    def bits(self, ids: Ids, counts: Ids) -> int:
        if self._codec[2] == ENTROPY:
            return int(entropy.bits(*self._codec[:2], ids, counts))
        return int(fields.distribution_bits(*self._codec, ids.size))

    def encode(self, ids: Ids, counts: Ids) -> bytes:
        packet: NDArray[np.uint8]
        if self._codec[2] == ENTROPY:
            packet, _ = entropy.encode(*self._codec[:2], ids, counts)
        else:
            packet = fields.encode(*self._codec, ids, counts)
        return packet.tobytes()

    def decode(self, packet: bytes) -> tuple[int, Ids, Ids]:
        data = np.frombuffer(packet, np.uint8)
        if self._codec[2] == ENTROPY:
            status, ids, counts = entropy.decode(data, *self._codec[:2])
            return status, frozen(ids), frozen(counts)
        most = min(self._codec[:2])
        ids = np.empty(most, np.uint32)
        counts = np.empty(most, np.uint32)
        status, k = fields.decode(data, *self._codec, ids, counts)
        return status, frozen(ids[:k]), frozen(counts[:k])

    def encode_round(
        self,
        ids: Ids,
        counts: Ids,
        survivors: Ids,
        positions: Ids,
        memory: Ids | None = None,
    ) -> bytes:
        packet: NDArray[np.uint8]
        round_ = ids, counts, survivors, positions
        if self._codec[2] == ENTROPY:
            known = _empty_memory() if memory is None else memory
            packet = entropy.encode_round(*self._codec[:2], *round_, known)
        else:
            packet = fields.encode_round(*self._codec, *round_)
        return packet.tobytes()

    def decode_round(
        self, packet: bytes, memory: Ids | None = None
    ) -> tuple[int, Ids, Ids, Ids, Ids]:
        data = np.frombuffer(packet, np.uint8)
        none = np.empty(0, np.uint32)
        if self._codec[2] == ENTROPY:
            known = _empty_memory() if memory is None else memory
            status, *found = entropy.decode_round(data, *self._codec[:2], known)
        else:
            status, *found = self._decode_fields(data)
        if status != OK:
            return status, none, none, none, none
        ids, counts, survivors, positions = found
        return status, frozen(ids), frozen(counts), survivors, positions

    def _decode_fields(self, data: NDArray[np.uint8]) -> tuple[Any, ...]:
        """Do what `decode_round` does, in the other codings."""
        if not data.size:
            return (TRUNCATED,)
        most = min(self._codec[:2])
        ids = np.empty(most, np.uint32)
        counts = np.empty(most, np.uint32)
        all_ids, all_counts, survivors, positions = [], [], [], []
        at = ROUND_LENGTH_BITS
        squares = 0
        for _ in range(fields.get(data, 0, ROUND_LENGTH_BITS) + 1):
            status, at, k = fields.get_distribution(
                data, at, *self._codec, squares, ids, counts
            )
            squares += k * k
            if status == OK:
                status, at, position = fields.get_position(data, at, k)
            if status != OK:
                return (status,)
            all_ids.append(ids[:k].copy())
            all_counts.append(counts[:k].copy())
            survivors.append(k)
            positions.append(position)
        return (
            fields.check_padding(data, at),
            np.concatenate(all_ids),
            np.concatenate(all_counts),
            np.array(survivors, np.uint32),
            np.array(positions, np.uint32),
        )

    def encode_tokens(self, tokens: Ids, counts: Ids, resolutions: Ids) -> bytes:
        packet: NDArray[np.uint8]
        if self._codec[2] == ENTROPY:
            packet = entropy.encode_tokens(
                *self._codec[:2], tokens, counts, resolutions
            )
        else:
            packet = fields.encode_tokens(*self._codec[:2], tokens, counts)
        return packet.tobytes()

    def decode_tokens(self, packet: bytes) -> tuple[int, Ids, Ids, Ids]:
        data = np.frombuffer(packet, np.uint8)
        tokens, counts, resolutions = np.empty((3, MAX_ROUND), np.uint32)
        if self._codec[2] == ENTROPY:
            status, length = entropy.decode_tokens(
                data, *self._codec[:2], tokens, counts, resolutions
            )
        else:
            status, length = fields.decode_tokens(
                data, *self._codec[:2], tokens, counts
            )
            resolutions[:] = self._codec[1]
        return status, *(a[:length].copy() for a in (tokens, counts, resolutions))

    def verify(
        self,
        ids: Ids,
        counts: Ids,
        survivors: Ids,
        positions: Ids,
        target: NDArray[np.floating],
        draws: NDArray[np.float64],
    ) -> tuple[int, int, int, int]:
        rows, vocab_size = target.shape
        totals = np.empty(rows)
        sums = np.empty((rows, -(-vocab_size // verification.BLOCK)))
        for i, row in enumerate(_rows(target)):
            status, totals[i] = verification.check_row(row, sums[i])
            if status != OK:
                return status, i, 0, 0
        length = rows - 1
        ends = np.cumsum(survivors, dtype=np.int64)
        tokens = ids[ends - survivors + positions]
        accepted = verification.count_accepted(
            totals,
            target[np.arange(length), tokens].astype(np.float64),
            counts.astype(np.int64),
            survivors,
            positions,
            draws,
        )
        support = slice(0, 0)
        if accepted < length:
            support = slice(ends[accepted] - survivors[accepted], ends[accepted])
        token = verification.draw(
            _writable(target[accepted]),
            sums[accepted],
            totals[accepted],
            ids[support].astype(np.int64),
            counts[support].astype(np.int64),
            draws[min(accepted + 1, length)],
        )
        return OK, rows, accepted, token


# Numba compiles once more for what can't be written, so all rows can be, and all
# ids and counts can't.


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    return array if array.flags.writeable else array.copy()


def _rows(values: NDArray[Any]) -> Iterator[NDArray[np.floating]]:
    """Return rows that Numba has functions for."""
    values = _writable(np.atleast_2d(values))
    if values.dtype.itemsize == 2:
        is_half = values.dtype == np.float16
        return (sparsification.widen(r, is_half) for r in values.view(np.uint16))
    return iter(values)


def _empty_memory() -> Ids:
    return np.zeros(MEMORY_WORDS, np.uint32)
