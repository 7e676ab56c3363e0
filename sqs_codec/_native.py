"""The C core behind the backend seam."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sqs_codec._core import ffi, lib
from sqs_codec._format import MEMORY_WORDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sqs_codec._backend import Ids
    from sqs_codec._keep import Keep

DTYPES = {
    np.dtype(np.float16): lib.SQS_F16,
    np.dtype(np.float32): lib.SQS_F32,
    np.dtype(np.float64): lib.SQS_F64,
    np.dtype(np.uint16): lib.SQS_BF16,
}

ISAS = {
    "scalar": lib.SQS_SCALAR,
    "avx2": lib.SQS_AVX2,
    "avx512": lib.SQS_AVX512,
    "neon": lib.SQS_NEON,
}

USUAL_SURVIVORS = 4096
"""Of a round, to begin with: its limit is a megabyte."""


assert ffi.sizeof("sqs_memory") == MEMORY_WORDS * 4  # they share their memory


def _choose_isa() -> int:
    name = os.environ.get("SQS_ISA", "")
    here = [name for name, isa in ISAS.items() if lib.sqs_find_isa(isa)]
    if name and name not in here:
        raise ImportError(f"SQS_ISA must be one of {here} here, not {name!r}")
    return int(lib.sqs_find_isa(ISAS[name] if name else lib.SQS_ISA_BEST))


ISA = _choose_isa()


def isa_name() -> str:
    """Return what `ISAS` calls the instruction set in use."""
    return next(name for name, isa in ISAS.items() if isa == ISA)


NULL = ffi.NULL
OK = lib.SQS_OK


def _in(array: Ids) -> Any:
    return ffi.from_buffer("uint32_t[]", array)


def _memory(memory: Ids | None) -> Any:
    if memory is None:
        return NULL
    return ffi.cast("sqs_memory *", ffi.from_buffer("uint32_t[]", memory))


def _expect_ok(status: int) -> None:
    """Fail on what `Codec` should have caught."""
    if status != OK:
        text = ffi.string(lib.sqs_status_text(status)).decode()
        raise AssertionError(f"the C core refused its arguments: {text}")


def _values(rows: NDArray[Any]) -> Any:
    """Return where the rows are, to be kept as long as that is used."""
    if rows.ndim == 1 or rows.flags.c_contiguous:
        return ffi.from_buffer(rows)
    return ffi.cast("void *", rows.ctypes.data)


class _RoundBuffers:
    """Memory for a decoded round."""

    def __init__(self, most: int) -> None:
        self.capacity = most
        self.ids = ffi.new("uint32_t[]", most)
        self.counts = ffi.new("uint32_t[]", most)
        self.survivors = ffi.new("uint32_t[]", lib.SQS_MAX_ROUND)
        self.positions = ffi.new("uint32_t[]", lib.SQS_MAX_ROUND)
        self.length = ffi.new("uint32_t *")


class _Buffers:
    """Memory that one thread's calls reuse."""

    def __init__(self, codec: Any, error: float) -> None:
        most = lib.sqs_max_survivors(codec)
        self.ids = ffi.new("uint32_t[]", most)
        self.counts = ffi.new("uint32_t[]", most)
        self.survivors = ffi.new("uint32_t *")
        self.done = ffi.new("uint32_t *")
        self.accepted = ffi.new("uint32_t *")
        self.token = ffi.new("uint32_t *")
        self.rows = ffi.new("sqs_rows *")
        self.keep = ffi.new("sqs_keep *")
        self.fit = ffi.new("sqs_fit *", (error,))
        # What not every thread needs is made when it is.
        self.scratch = NULL
        self.scratch_size = 0
        self.packets = NULL
        self.capacity = 0
        self.round: _RoundBuffers | None = None
        self.hold_rows(1)

    def hold_rows(self, n: int) -> None:
        """Make room for what there is once for each of n rows."""
        self.sizes = ffi.new("size_t[]", n)
        self.masses = ffi.new("double[]", n)
        self.room = n

    def hold_scratch(self, size: int) -> Any:
        """Return scratch of at least `size` bytes."""
        if size > self.scratch_size:
            self.scratch = ffi.new("double[]", size // 8 + 1)
            self.scratch_size = size
        return self.scratch

    def hold_packets(self, size: int) -> Any:
        """Return room for `size` bytes of packets."""
        if size > self.capacity:
            self.packets = ffi.new("char[]", size)
            self.capacity = size
        return self.packets

    def hold_round(self, most: int) -> _RoundBuffers:
        """Return room for a round of at least so many survivors."""
        if self.round is None or most > self.round.capacity:
            self.round = _RoundBuffers(most)
        return self.round

    def take(self, status: int) -> tuple[Ids, Ids]:
        n = self.survivors[0] if status == OK else 0
        return _copy(self.ids, n), _copy(self.counts, n)


class _Local(threading.local):
    """A thread's buffers, one step away: everything asked of a local takes long."""

    def __init__(self, codec: Any, error: float) -> None:
        self.buffers = _Buffers(codec, error)


def _copy(array: Any, n: int) -> Ids:
    """Return the first n of an array of uint32 in C.

    It is a view of bytes, and so read-only for good.
    """
    return np.frombuffer(ffi.buffer(array, 4 * n)[:], np.uint32)


def _cut(ids: Any, counts: Any, survivors: Sequence[int]) -> list[tuple[Ids, Ids]]:
    """Return copies of the parts of two arrays in C."""
    total = sum(survivors)
    all_ids, all_counts = _copy(ids, total), _copy(counts, total)
    pairs = []
    start = 0
    for n in survivors:
        end = start + n
        pairs.append((all_ids[start:end], all_counts[start:end]))
        start = end
    return pairs


class Core:
    """See `sqs_codec._backend.Core`."""

    def __init__(
        self,
        vocab_size: int,
        resolution: int,
        coding: int,
        error: float,
        *,
        isa: int = ISA,
    ) -> None:
        self._codec = ffi.new("sqs_codec *", (vocab_size, resolution, coding, isa))
        self._local = _Local(self._codec, error)
        self._most = lib.sqs_max_survivors(self._codec)
        self._bound = lib.sqs_encode_bound(self._codec, self._most)
        self._quantize_scratch = lib.sqs_quantize_scratch(self._codec)
        self._encode_scratch = lib.sqs_encode_logits_scratch(self._codec)

    def _fill(
        self, rows: NDArray[Any], keep: Keep, bits_per_tv: float
    ) -> tuple[_Buffers, int]:
        """Set what all calls on rows take, but where they are; return how many."""
        to = self._local.buffers
        ours = to.rows
        n = 1
        if rows.ndim == 2:
            n = len(rows)
            ours.stride = rows.strides[0] // rows.itemsize
            if n > to.room:
                to.hold_rows(n)
        ours.dtype = DTYPES[rows.dtype]
        ours.n = n
        rule = to.keep
        rule.kind = keep._kind
        rule.value = keep._value
        to.fit.bits_per_tv = bits_per_tv
        return to, n

    def quantize_logits(
        self,
        logits: NDArray[Any],
        temperature: float,
        keep: Keep,
        bits_per_tv: float,
        mass: bool,
    ) -> tuple[int, int, list[tuple[Ids, Ids]], list[float]]:
        to, n = self._fill(logits, keep, bits_per_tv)
        masses = to.masses if mass else NULL
        ids, counts, survivors = to.ids, to.counts, to.survivors
        if n > 1:
            most = self._most
            if keep._kind == lib.SQS_TOP_K:
                most = min(most, int(keep._value))
            found = np.empty((2, n * most), np.uint32)  # faster than ffi's zeros
            ids, counts = map(_in, found)
            survivors = ffi.new("uint32_t[]", n)
        pointer = to.rows.values = _values(logits)  # it keeps the logits alive
        status = lib.sqs_quantize_logits(
            self._codec,
            to.rows,
            temperature,
            to.keep,
            to.fit,
            to.hold_scratch(self._quantize_scratch),
            ids,
            counts,
            survivors,
            masses,
            to.done,
        )
        del pointer
        if status != OK:
            return status, to.done[0], [], []
        if n == 1:
            pairs = [to.take(status)]
        else:
            pairs = _cut(ids, counts, ffi.unpack(survivors, n))
        return status, n, pairs, ffi.unpack(masses, n) if mass else []

    def encode_logits(
        self,
        logits: NDArray[Any],
        temperature: float,
        keep: Keep,
        bits_per_tv: float,
        mass: bool,
    ) -> tuple[int, int, list[bytes], list[float]]:
        to, n = self._fill(logits, keep, bits_per_tv)
        masses = to.masses if mass else NULL
        room = self._bound
        if n != 1:
            room = n * lib.sqs_encode_logits_bound(self._codec, to.keep)
        packets = to.hold_packets(room)
        sizes = to.sizes
        pointer = to.rows.values = _values(logits)  # it keeps the logits alive
        status = lib.sqs_encode_logits(
            self._codec,
            to.rows,
            temperature,
            to.keep,
            to.fit,
            to.hold_scratch(self._encode_scratch),
            packets,
            room,
            sizes,
            masses,
            to.done,
        )
        del pointer
        if status != OK:
            return status, to.done[0], [], []
        found = [ffi.unpack(packets, sizes[0])] if n else []
        for i in range(1, n):
            packets += sizes[i - 1]
            found.append(ffi.unpack(packets, sizes[i]))
        return status, n, found, ffi.unpack(masses, n) if mass else []

    def quantize_probs(
        self, probs: NDArray[np.floating], keep: Keep, bits_per_tv: float
    ) -> tuple[int, Ids, Ids, float]:
        to, _ = self._fill(probs, keep, bits_per_tv)
        pointer = to.rows.values = _values(probs)  # it keeps the probabilities alive
        status = lib.sqs_quantize_probs(
            self._codec,
            to.rows,
            to.keep,
            to.fit,
            to.hold_scratch(self._quantize_scratch),
            to.ids,
            to.counts,
            to.survivors,
            to.masses,
            to.done,
        )
        del pointer
        return status, *to.take(status), to.masses[0]

    def bits(self, ids: Ids, counts: Ids) -> int:
        bits = ffi.new("uint32_t *")
        _expect_ok(lib.sqs_bits(self._codec, _in(ids), _in(counts), ids.size, bits))
        return int(bits[0])

    def encode(self, ids: Ids, counts: Ids) -> bytes:
        bound = lib.sqs_encode_bound(self._codec, ids.size)
        packet = ffi.new("uint8_t[]", bound)
        size = ffi.new("size_t *")
        _expect_ok(
            lib.sqs_encode(
                self._codec, _in(ids), _in(counts), ids.size, packet, bound, size
            )
        )
        return bytes(ffi.buffer(packet, size[0]))

    def decode(self, packet: bytes) -> tuple[int, Ids, Ids]:
        to = self._local.buffers
        status = lib.sqs_decode(
            self._codec,
            ffi.from_buffer("uint8_t[]", packet),
            len(packet),
            to.ids,
            to.counts,
            to.survivors,
        )
        return status, *to.take(status)

    def encode_round(
        self,
        ids: Ids,
        counts: Ids,
        survivors: Ids,
        positions: Ids,
        memory: Ids | None = None,
    ) -> bytes:
        bound = lib.sqs_encode_round_bound(self._codec, survivors.size, ids.size)
        packet = ffi.new("uint8_t[]", bound)
        size = ffi.new("size_t *")
        _expect_ok(
            lib.sqs_encode_round(
                self._codec,
                _memory(memory),
                survivors.size,
                _in(ids),
                _in(counts),
                _in(survivors),
                _in(positions),
                packet,
                bound,
                size,
            )
        )
        return bytes(ffi.buffer(packet, size[0]))

    def decode_round(
        self, packet: bytes, memory: Ids | None = None
    ) -> tuple[int, Ids, Ids, Ids, Ids]:
        to = self._local.buffers
        most = lib.sqs_decode_round_bound(self._codec, len(packet))
        round_ = to.hold_round(min(most, USUAL_SURVIVORS))
        status = self._decode_round(packet, memory, round_)
        if status == lib.SQS_NO_SPACE:
            round_ = _RoundBuffers(most)
            status = self._decode_round(packet, memory, round_)
        length = round_.length[0] if status == OK else 0
        survivors = _copy(round_.survivors, length)
        n = int(survivors.sum())
        return (
            status,
            _copy(round_.ids, n),
            _copy(round_.counts, n),
            survivors,
            _copy(round_.positions, length),
        )

    def _decode_round(
        self, packet: bytes, memory: Ids | None, to: _RoundBuffers
    ) -> int:
        status: int = lib.sqs_decode_round(
            self._codec,
            _memory(memory),
            ffi.from_buffer("uint8_t[]", packet),
            len(packet),
            to.ids,
            to.counts,
            to.capacity,
            to.survivors,
            to.positions,
            to.length,
        )
        return status

    def encode_tokens(self, tokens: Ids, counts: Ids, resolutions: Ids) -> bytes:
        bound = lib.sqs_encode_tokens_bound(self._codec, tokens.size)
        packet = ffi.new("uint8_t[]", bound)
        size = ffi.new("size_t *")
        _expect_ok(
            lib.sqs_encode_tokens(
                self._codec,
                tokens.size,
                _in(tokens),
                _in(counts),
                _in(resolutions),
                packet,
                bound,
                size,
            )
        )
        return bytes(ffi.buffer(packet, size[0]))

    def decode_tokens(self, packet: bytes) -> tuple[int, Ids, Ids, Ids]:
        found = [np.empty(lib.SQS_MAX_ROUND, np.uint32) for _ in range(3)]
        length = ffi.new("uint32_t *")
        status = lib.sqs_decode_tokens(
            self._codec,
            ffi.from_buffer("uint8_t[]", packet),
            len(packet),
            *map(_in, found),
            length,
        )
        tokens, counts, resolutions = (a[: length[0]].copy() for a in found)
        return status, tokens, counts, resolutions

    def verify(
        self,
        ids: Ids,
        counts: Ids,
        survivors: Ids,
        positions: Ids,
        target: NDArray[np.floating],
        draws: NDArray[np.float64],
    ) -> tuple[int, int, int, int]:
        to = self._local.buffers
        to.rows.dtype = DTYPES[target.dtype]
        to.rows.n = len(target)
        to.rows.stride = target.strides[0] // target.itemsize
        pointer = to.rows.values = _values(target)  # it keeps the target alive
        length = survivors.size
        status = lib.sqs_verify(
            self._codec,
            length,
            _in(ids),
            _in(counts),
            _in(survivors),
            _in(positions),
            to.rows,
            ffi.from_buffer("double[]", draws),
            to.hold_scratch(lib.sqs_verify_scratch(self._codec, length)),
            to.accepted,
            to.token,
            to.done,
        )
        del pointer
        return status, to.done[0], to.accepted[0], to.token[0]
