"""The functions of ``csrc/api.c``, as the class that the rest of the package calls."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqs_codec._backend import core
from sqs_codec._backend.core import NONE, Arrays, Best, Ids, Rule, frozen, rows_of
from sqs_codec._backend.numba import fields, quantize, rows
from sqs_codec._backend.numba import packet as entropy
from sqs_codec._backend.numba import verify as verification
from sqs_codec._backend.numba.gumbel import race
from sqs_codec._backend.numba.prior import pack_prior
from sqs_codec._backend.numba.systematic import quantize_unbiased
from sqs_codec._base.errors import Status
from sqs_codec._base.format import Coding


class Core(core.Core):
    """See `sqs_codec._backend.core.Core`."""

    def __init__(
        self, vocab_size: int, resolution: int, coding: int, prior: bytes | None
    ) -> None:
        self._resolution = resolution
        self._is_entropy = coding == Coding.ENTROPY
        self._model = vocab_size, resolution, pack_prior(prior)
        self._codec = vocab_size, resolution, int(coding)

    def quantize_logits(
        self, logits: NDArray[Any], temperature: float, keep: Rule, mass: bool
    ) -> tuple[int, Ids, Ids, float | None]:
        (row,) = _rows(logits)
        status, ids, counts, dropped = quantize.quantize_logits(
            row, temperature, *keep, mass, self._resolution
        )
        return status, frozen(ids), frozen(counts), dropped if mass else None

    def quantize_probs(
        self, probs: NDArray[np.floating], keep: Rule, mass: bool
    ) -> tuple[int, Ids, Ids, float | None]:
        status, ids, counts, dropped = quantize.quantize_probs(
            probs.astype(np.float64), *keep, self._resolution
        )
        return status, frozen(ids), frozen(counts), dropped if mass else None

    def quantize_rows(
        self, logits: NDArray[Any], temperature: float, keep: Rule
    ) -> tuple[int, int, Ids, Ids, Ids]:
        answers = (
            self.quantize_logits(row, temperature, keep, False) for row in logits
        )
        return rows_of(answers)

    def quantize_unbiased(
        self, logits: NDArray[Any], numbers: NDArray[np.uint64], temperature: float
    ) -> tuple[int, int, Ids, Ids, Ids]:
        return rows_of(
            quantize_unbiased(row, number, temperature, self._resolution)
            for row, number in zip(_rows(logits), numbers, strict=True)
        )

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

    def encode_round(self, round_: Arrays) -> bytes:
        packet: NDArray[np.uint8]
        if self._is_entropy:
            packet = entropy.encode_round(self._model, *round_)
        else:
            packet = fields.encode_round(self._codec, *round_)
        return packet.tobytes()

    def decode_round(self, packet: bytes, most: int) -> tuple[int, Ids, Ids, Ids, Ids]:
        data = np.frombuffer(packet, np.uint8)
        if self._is_entropy:
            return _round(entropy.decode_round(data, self._model, most, 0))
        return _round(fields.decode_round(data, self._codec, most))

    def encode_sequence(self, ids: Ids, counts: Ids, survivors: Ids) -> bytes:
        return bytes(entropy.encode_round(self._model, ids, counts, survivors, NONE))

    def decode_sequence(
        self, packet: bytes, length: int, most: int
    ) -> tuple[int, Ids, Ids, Ids]:
        data = np.frombuffer(packet, np.uint8)
        return _round(entropy.decode_round(data, self._model, most, length))[:4]

    @staticmethod
    def verify(
        round_: Arrays, target: NDArray[np.floating], draws: NDArray[np.float64]
    ) -> tuple[int, int, int, int]:
        ids, counts, survivors, positions = round_
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
    ) -> tuple[int, int, Best]:
        found: Best = []
        for given in np.atleast_2d(logits):  # copies one row at a time
            (row,) = _rows(given)
            at = position + len(found)
            low, high = np.uint64(at & 0xFFFFFFFF), np.uint64(at >> 32)
            words = (*map(np.uint64, key), low, high)
            scores, ids = np.empty(most), np.zeros(most, np.int64)
            status = race(row, temperature, words, scores, ids)
            if status != Status.OK:
                return status, len(found), found
            n = int(scores.searchsorted(np.inf))
            found.append((ids[:n].tolist(), scores[:n].tolist()))
        return Status.OK, len(found), found


def _round(found: tuple[Any, ...]) -> tuple[int, Ids, Ids, Ids, Ids]:
    status, *arrays = found
    if status != Status.OK:
        return status, NONE, NONE, NONE, NONE
    ids, counts, survivors, positions = map(frozen, arrays)
    return status, ids, counts, survivors, positions


# Numba compiles a function again for read-only arrays. Therefore all rows are writable,
# and all ids and counts are read-only.


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    return array if array.flags.writeable else array.copy()


def _rows(values: NDArray[Any]) -> Iterator[NDArray[np.floating]]:
    """Return writable rows of float32 or float64."""
    values = _writable(np.atleast_2d(values))
    if values.dtype.itemsize == 2:
        is_half = values.dtype == np.float16
        return (rows.widen(row, is_half) for row in values.view(np.uint16))
    return iter(values)
