"""The class that the rest of the package calls, as ``csrc/api.c`` does the work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqs_codec._backend.core import frozen
from sqs_codec._backend.numba import bits, fields, packet, quantize, rows, verify
from sqs_codec._backend.numba.memory import is_memory
from sqs_codec._backend.numba.sparsify import KINDS
from sqs_codec._errors import Status
from sqs_codec._format import (
    MAX_ENUMERATIVE_SUPPORT,
    MAX_ROUND,
    MEMORY_WORDS,
    ROUND_LENGTH_BITS,
    Coding,
)

Ids = NDArray[np.uint32]

OK = int(Status.OK)
TRUNCATED = int(Status.TRUNCATED)
LARGE_SUPPORT = int(Status.LARGE_SUPPORT)
BAD_MEMORY = int(Status.BAD_MEMORY)

ENUMERATIVE = int(Coding.ENUMERATIVE)
ENTROPY = int(Coding.ENTROPY)


class Core:
    """See `sqs_codec._backend.core.Core`."""

    def __init__(self, vocab_size: int, resolution: int, coding: int) -> None:
        self._codec = vocab_size, resolution, int(coding)
        self._vocab_size = vocab_size
        self._resolution = resolution
        self._entropy = coding == ENTROPY
        if coding == ENUMERATIVE:
            self._most = MAX_ENUMERATIVE_SUPPORT
        else:
            self._most = vocab_size

    def quantize_logits(
        self,
        logits: NDArray[Any],
        temperature: float,
        kind: int,
        value: float,
        mass: bool,
    ) -> tuple[int, int, list[tuple[Ids, Ids]], list[float]]:
        _check_kind(kind)
        pairs: list[tuple[Ids, Ids]] = []
        masses: list[float] = []
        for row in _rows(logits):
            status, ids, counts, dropped = quantize.quantize_logits(
                row, temperature, kind, value, mass, self._resolution
            )
            if status != OK:
                return status, len(pairs), pairs, masses
            pairs.append((frozen(ids), frozen(counts)))
            masses.append(dropped)
        return OK, len(pairs), pairs, masses if mass else []

    def encode_logits(
        self, logits: NDArray[Any], temperature: float, kind: int, value: float
    ) -> tuple[int, int, list[bytes]]:
        _check_kind(kind)
        packets: list[bytes] = []
        for row in _rows(logits):
            status, ids, counts, _ = quantize.quantize_logits(
                row, temperature, kind, value, False, self._resolution
            )
            if status == OK and ids.size > self._most:
                status = LARGE_SUPPORT
            if status != OK:
                return status, len(packets), packets
            packets.append(self.encode(frozen(ids), frozen(counts)))
        return OK, len(packets), packets

    def quantize_probs(
        self, probs: NDArray[np.floating], kind: int, value: float
    ) -> tuple[int, Ids, Ids, float]:
        _check_kind(kind)
        row = probs.astype(np.float64)
        status, ids, counts, dropped = quantize.quantize_probs(
            row, kind, value, self._resolution
        )
        return status, frozen(ids), frozen(counts), dropped

    def bits(self, ids: Ids, counts: Ids) -> int:
        if self._entropy:
            return int(packet.bits(self._vocab_size, self._resolution, ids, counts))
        return int(fields.distribution_bits(*self._codec, ids.size))

    def encode(self, ids: Ids, counts: Ids) -> bytes:
        found: NDArray[np.uint8]
        if self._entropy:
            found, _ = packet.encode(self._vocab_size, self._resolution, ids, counts)
        else:
            found = fields.encode(*self._codec, ids, counts)
        return found.tobytes()

    def decode(self, packet_: bytes, most: int) -> tuple[int, Ids, Ids]:
        data = np.frombuffer(packet_, np.uint8)
        if self._entropy:
            status, ids, counts = packet.decode(
                data, self._vocab_size, self._resolution, most
            )
            return status, frozen(ids), frozen(counts)
        room = min(self._vocab_size, self._resolution)
        ids = np.empty(room, np.uint32)
        counts = np.empty(room, np.uint32)
        status, k = fields.decode(data, *self._codec, most, ids, counts)
        return status, frozen(ids[:k]), frozen(counts[:k])

    def encode_round(
        self,
        ids: Ids,
        counts: Ids,
        survivors: Ids,
        positions: Ids,
        memory: Ids | None,
    ) -> bytes:
        found: NDArray[np.uint8]
        round_ = ids, counts, survivors, positions
        if self._entropy:
            known = _empty_memory() if memory is None else memory
            if not is_memory(known, self._vocab_size):
                raise AssertionError("this is no memory of the codec")
            found = packet.encode_round(
                self._vocab_size, self._resolution, *round_, known
            )
        else:
            found = fields.encode_round(*self._codec, *round_)
        return found.tobytes()

    def decode_round(
        self, packet_: bytes, memory: Ids | None, most: int
    ) -> tuple[int, Ids, Ids, Ids, Ids]:
        data = np.frombuffer(packet_, np.uint8)
        none = np.empty(0, np.uint32)
        if self._entropy:
            known = _empty_memory() if memory is None else memory
            if not is_memory(known, self._vocab_size):
                return BAD_MEMORY, none, none, none, none
            status, *found = packet.decode_round(
                data, self._vocab_size, self._resolution, known, most
            )
        else:
            status, *found = self._decode_fields(data, most)
        if status != OK:
            return status, none, none, none, none
        ids, counts, survivors, positions = found
        return (
            status,
            frozen(ids),
            frozen(counts),
            survivors.astype(np.uint32),
            positions.astype(np.uint32),
        )

    def _decode_fields(self, data: NDArray[np.uint8], most: int) -> tuple[Any, ...]:
        """Do what `decode_round` does, in the other codings."""
        if not data.size:
            return (TRUNCATED,)
        room = min(self._vocab_size, self._resolution)
        ids = np.empty(room, np.uint32)
        counts = np.empty(room, np.uint32)
        all_ids, all_counts, survivors, positions = [], [], [], []
        at = ROUND_LENGTH_BITS
        used = squares = 0
        for _ in range(bits.get(data, 0, ROUND_LENGTH_BITS) + 1):
            status, at, k = fields.get_distribution(
                data, at, *self._codec, squares, most - used, ids, counts
            )
            squares += k * k
            used += k
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

    def encode_tokens(self, tokens: Ids, counts: Ids) -> bytes:
        encode = packet.encode_tokens if self._entropy else fields.encode_tokens
        found: NDArray[np.uint8] = encode(
            self._vocab_size, self._resolution, tokens, counts
        )
        return found.tobytes()

    def decode_tokens(self, packet_: bytes) -> tuple[int, Ids, Ids]:
        data = np.frombuffer(packet_, np.uint8)
        tokens, counts = np.empty((2, MAX_ROUND), np.uint32)
        decode = packet.decode_tokens if self._entropy else fields.decode_tokens
        status, length = decode(
            data, self._vocab_size, self._resolution, tokens, counts
        )
        return status, tokens[:length].copy(), counts[:length].copy()

    def verify(
        self,
        ids: Ids,
        counts: Ids,
        survivors: Ids,
        positions: Ids,
        target: NDArray[np.floating],
        draws: NDArray[np.float64],
    ) -> tuple[int, int, int, int]:
        n, vocab_size = target.shape
        totals = np.empty(n)
        sums = np.empty((n, -(-vocab_size // verify.BLOCK)))
        for i, row in enumerate(_rows(target)):
            status, totals[i] = verify.check_row(row, sums[i])
            if status != OK:
                return status, i, 0, 0
        length = n - 1
        ends = np.cumsum(survivors, dtype=np.int64)
        tokens = ids[ends - survivors + positions]
        accepted = verify.count_accepted(
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
        token = verify.draw(
            _writable(target[accepted]),
            sums[accepted],
            totals[accepted],
            ids[support].astype(np.int64),
            counts[support].astype(np.int64),
            draws[min(accepted + 1, length)],
        )
        return OK, n, accepted, token


def _check_kind(kind: int) -> None:
    if kind not in KINDS:
        raise ValueError(f"the kind of a rule must be one of {list(KINDS)}, got {kind}")


# Numba compiles once more for what can't be written, so all rows can be, and all
# ids and counts can't.


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    return array if array.flags.writeable else array.copy()


def _rows(values: NDArray[Any]) -> Iterator[NDArray[np.floating]]:
    """Return rows that Numba has functions for."""
    values = _writable(np.atleast_2d(values))
    if values.dtype.itemsize == 2:
        is_half = values.dtype == np.float16
        return (rows.widen(r, is_half) for r in values.view(np.uint16))
    return iter(values)


def _empty_memory() -> Ids:
    return np.zeros(MEMORY_WORDS, np.uint32)
