"""The C core behind the backend seam."""

from __future__ import annotations

import os
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


NULL = ffi.NULL
OK = lib.SQS_OK

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
    """Memory that calls use one after the other."""

    def __init__(self, codec: Any, error: float) -> None:
        most = lib.sqs_max_survivors(codec)
        self.ids = ffi.new("uint32_t[]", most)
        self.counts = ffi.new("uint32_t[]", most)
        self.survivors = ffi.new("uint32_t *")
        self.size = ffi.new("size_t *")
        self.mass = ffi.new("double *")
        self.done = ffi.new("uint32_t *")
        self.accepted = ffi.new("uint32_t *")
        self.token = ffi.new("uint32_t *")
        self.rows = ffi.new("sqs_rows *")
        self.keep = ffi.new("sqs_keep *")
        self.fit = ffi.new("sqs_fit *", (error,))
        # What not every call needs is made when one does.
        self.scratch = NULL
        self.scratch_size = 0
        self.packet = NULL
        self.round: _RoundBuffers | None = None

    def hold_scratch(self, size: int) -> Any:
        """Return scratch of at least `size` bytes."""
        if size > self.scratch_size:
            self.scratch = ffi.new("double[]", size // 8 + 1)
            self.scratch_size = size
        return self.scratch

    def hold_packet(self, size: int) -> Any:
        """Return room for a packet of up to `size` bytes, the same for every call."""
        if not self.packet:
            self.packet = ffi.new("char[]", size)
        return self.packet

    def hold_round(self, most: int) -> _RoundBuffers:
        """Return room for a round of at least so many survivors."""
        if self.round is None or most > self.round.capacity:
            self.round = _RoundBuffers(most)
        return self.round


def _point(to: _Buffers, rows: NDArray[Any]) -> int:
    """Say what the rows are, which the caller keeps; return how many."""
    ours = to.rows
    n = 1
    if rows.ndim == 2:
        n = len(rows)
        ours.stride = rows.strides[0] // rows.itemsize
    ours.n = n
    ours.dtype = DTYPES[rows.dtype]
    if rows.flags.c_contiguous:
        ours.values = ffi.from_buffer(rows)  # ten times as fast as the other way
    else:
        ours.values = ffi.cast("void *", rows.ctypes.data)
    return n


def _copy(array: Any, n: int) -> Ids:
    """Return the first n of an array of uint32 in C.

    It is a view of bytes, and so read-only for good.
    """
    return np.frombuffer(ffi.buffer(array, 4 * n)[:], np.uint32)


def _cut(ids: Any, counts: Any, survivors: Sequence[int]) -> list[tuple[Ids, Ids]]:
    """Return copies of the parts of two arrays in C."""
    pairs = []
    for n in survivors:
        pairs.append((_copy(ids, n), _copy(counts, n)))
        ids, counts = ids + n, counts + n
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
        self._error = error
        self._free: list[_Buffers] = []
        self._most = lib.sqs_max_survivors(self._codec)
        self._bound = lib.sqs_encode_bound(self._codec, self._most)
        self._quantize_scratch = lib.sqs_quantize_scratch(self._codec)
        self._encode_scratch = lib.sqs_encode_logits_scratch(self._codec)

    def _take(self) -> _Buffers:
        """Return buffers for one call, which goes back to `_free` at its end.

        Meanwhile they are nobody else's: neither another thread's nor those of a
        signal handler that calls the same codec.
        """
        try:
            return self._free.pop()
        except IndexError:
            return _Buffers(self._codec, self._error)

    def _fill(
        self, to: _Buffers, rows: NDArray[Any], keep: Keep, bits_per_tv: float
    ) -> int:
        """Set what all calls on rows take; return how many rows there are."""
        n = _point(to, rows)
        rule = to.keep
        rule.kind = keep._kind
        rule.value = keep._value
        to.fit.bits_per_tv = bits_per_tv
        return n

    def quantize_logits(
        self,
        logits: NDArray[Any],
        temperature: float,
        keep: Keep,
        bits_per_tv: float,
        mass: bool,
    ) -> tuple[int, int, list[tuple[Ids, Ids]], list[float]]:
        to = self._take()
        n = self._fill(to, logits, keep, bits_per_tv)
        ids, counts, survivors, masses = to.ids, to.counts, to.survivors, to.mass
        if n != 1:
            most = self._most
            if keep._kind == lib.SQS_TOP_K:
                most = min(most, int(keep._value))
            # Of NumPy, as ffi would write zeros.
            ids, counts = map(_in, np.empty((2, n * most), np.uint32))
            survivors = ffi.new("uint32_t[]", n)
            masses = ffi.new("double[]", n)
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
            masses if mass else NULL,
            to.done,
        )
        if status != OK:
            found = []
        elif n == 1:
            k = survivors[0]
            found = [(_copy(ids, k), _copy(counts, k))]
        else:
            found = _cut(ids, counts, ffi.unpack(survivors, n))
        dropped = ffi.unpack(masses, n) if mass else []
        done = to.done[0]
        self._free.append(to)
        return status, done, found, dropped

    def encode_logits(
        self,
        logits: NDArray[Any],
        temperature: float,
        keep: Keep,
        bits_per_tv: float,
        mass: bool,
    ) -> tuple[int, int, list[bytes], list[float]]:
        to = self._take()
        n = self._fill(to, logits, keep, bits_per_tv)
        room = self._bound
        sizes, masses = to.size, to.mass
        if n == 1:
            packets = to.hold_packet(room)
        else:
            room = n * lib.sqs_encode_logits_bound(self._codec, to.keep)
            packets = ffi.from_buffer("char[]", np.empty(room, np.uint8))
            sizes = ffi.new("size_t[]", n)
            masses = ffi.new("double[]", n)
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
            masses if mass else NULL,
            to.done,
        )
        found = []
        at = packets
        for size in ffi.unpack(sizes, n) if status == OK else []:
            found.append(ffi.unpack(at, size))
            at += size
        dropped = ffi.unpack(masses, n) if mass else []
        done = to.done[0]
        self._free.append(to)
        return status, done, found, dropped

    def quantize_probs(
        self, probs: NDArray[np.floating], keep: Keep, bits_per_tv: float
    ) -> tuple[int, Ids, Ids, float]:
        to = self._take()
        self._fill(to, probs, keep, bits_per_tv)
        status = lib.sqs_quantize_probs(
            self._codec,
            to.rows,
            to.keep,
            to.fit,
            to.hold_scratch(self._quantize_scratch),
            to.ids,
            to.counts,
            to.survivors,
            to.mass,
            to.done,
        )
        n = to.survivors[0] if status == OK else 0
        found = _copy(to.ids, n), _copy(to.counts, n), to.mass[0]
        self._free.append(to)
        return status, *found

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
        to = self._take()
        status = lib.sqs_decode(
            self._codec,
            ffi.from_buffer("uint8_t[]", packet),
            len(packet),
            to.ids,
            to.counts,
            to.survivors,
        )
        n = to.survivors[0] if status == OK else 0
        found = _copy(to.ids, n), _copy(to.counts, n)
        self._free.append(to)
        return status, *found

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
        to = self._take()
        most = lib.sqs_decode_round_bound(self._codec, len(packet))
        round_ = to.hold_round(min(most, USUAL_SURVIVORS))
        status = self._decode_round(packet, memory, round_)
        if status == lib.SQS_NO_SPACE:
            round_ = _RoundBuffers(most)
            status = self._decode_round(packet, memory, round_)
        length = round_.length[0] if status == OK else 0
        n = sum(ffi.unpack(round_.survivors, length))
        found = (
            _copy(round_.ids, n),
            _copy(round_.counts, n),
            _copy(round_.survivors, length),
            _copy(round_.positions, length),
        )
        self._free.append(to)
        return status, *found

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
        to = self._take()
        _point(to, target)
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
        found = to.done[0], to.accepted[0], to.token[0]
        self._free.append(to)
        return status, *found
