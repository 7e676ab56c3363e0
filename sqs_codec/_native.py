"""The C core behind the backend seam."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
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
}

USUAL_SURVIVORS = 4096
"""Of a round, to begin with: its limit is a megabyte."""


assert ffi.sizeof("sqs_memory") == MEMORY_WORDS * 4  # they share their memory


def _in(array: Ids) -> Any:
    return ffi.from_buffer("uint32_t[]", array)


def _memory(memory: Ids | None) -> Any:
    if memory is None:
        return ffi.NULL
    return ffi.cast("sqs_memory *", ffi.from_buffer("uint32_t[]", memory))


def _expect_ok(status: int) -> None:
    """Fail on what `Codec` should have caught."""
    if status != lib.SQS_OK:
        text = ffi.string(lib.sqs_status_text(status)).decode()
        raise AssertionError(f"the C core refused its arguments: {text}")


class _Buffers(threading.local):
    """Memory that one thread's calls reuse: scratch and one distribution."""

    def __init__(self, codec: Any) -> None:
        most = lib.sqs_max_survivors(codec)
        self._codec = codec
        self.ids = np.empty(most, np.uint32)
        self.counts = np.empty(most, np.uint32)
        self.ids_pointer = _in(self.ids)
        self.counts_pointer = _in(self.counts)
        self.survivors = ffi.new("uint32_t *")
        self.dropped = ffi.new("double *")

    @cached_property
    def scratch(self) -> Any:
        """Not made for a thread that only decodes."""
        size = lib.sqs_quantize_scratch(self._codec)
        return ffi.new("double[]", size // 8 + 1)

    def take(self, status: int) -> tuple[Ids, Ids]:
        n = self.survivors[0] if status == lib.SQS_OK else 0
        return self.ids[:n].copy(), self.counts[:n].copy()


class Core:
    """See `sqs_codec._backend.Core`."""

    def __init__(
        self, vocab_size: int, resolution: int, coding: int, error: float
    ) -> None:
        self._codec = ffi.new("sqs_codec *", (vocab_size, resolution, coding))
        self._error = error
        self._buffers = _Buffers(self._codec)

    def quantize_logits(
        self,
        logits: NDArray[np.floating],
        temperature: float,
        keep: Keep,
        bits_per_tv: float,
    ) -> tuple[int, Ids, Ids, float]:
        function = lib.sqs_quantize_logits
        return self._quantize(function, logits, (temperature,), keep, bits_per_tv)

    def quantize_probs(
        self, probs: NDArray[np.floating], keep: Keep, bits_per_tv: float
    ) -> tuple[int, Ids, Ids, float]:
        return self._quantize(lib.sqs_quantize_probs, probs, (), keep, bits_per_tv)

    def _quantize(
        self,
        function: Callable[..., int],
        row: NDArray[np.floating],
        options: tuple[float, ...],
        keep: Keep,
        bits_per_tv: float,
    ) -> tuple[int, Ids, Ids, float]:
        to = self._buffers
        status = function(
            self._codec,
            ffi.from_buffer(row),
            DTYPES[row.dtype],
            *options,
            ffi.new("sqs_keep *", (keep._kind, keep._value)),
            ffi.new("sqs_fit *", (self._error, bits_per_tv)),
            to.scratch,
            to.ids_pointer,
            to.counts_pointer,
            to.survivors,
            to.dropped,
        )
        return status, *to.take(status), to.dropped[0]

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
        to = self._buffers
        status = lib.sqs_decode(
            self._codec,
            ffi.from_buffer("uint8_t[]", packet),
            len(packet),
            to.ids_pointer,
            to.counts_pointer,
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
    ) -> tuple[int, Sequence[tuple[Ids, Ids]], Sequence[int]]:
        most = lib.sqs_decode_round_bound(self._codec, len(packet))
        capacity = min(most, USUAL_SURVIVORS)
        status, *found = self._decode_round(packet, memory, capacity)
        if status == lib.SQS_NO_SPACE:
            status, *found = self._decode_round(packet, memory, most)
        if status != lib.SQS_OK:
            return status, [], []
        ids, counts, survivors, positions = found
        ends = np.cumsum(survivors, dtype=np.int64).tolist()
        pairs = [
            (ids[start:end].copy(), counts[start:end].copy())
            for start, end in zip([0, *ends[:-1]], ends, strict=True)
        ]
        return status, pairs, positions.tolist()

    def _decode_round(
        self, packet: bytes, memory: Ids | None, capacity: int
    ) -> tuple[Any, ...]:
        ids = np.empty(capacity, np.uint32)
        counts = np.empty(capacity, np.uint32)
        survivors = np.empty(lib.SQS_MAX_ROUND, np.uint32)
        positions = np.empty(lib.SQS_MAX_ROUND, np.uint32)
        length = ffi.new("uint32_t *")
        status = lib.sqs_decode_round(
            self._codec,
            _memory(memory),
            ffi.from_buffer("uint8_t[]", packet),
            len(packet),
            _in(ids),
            _in(counts),
            capacity,
            _in(survivors),
            _in(positions),
            length,
        )
        return status, ids, counts, survivors[: length[0]], positions[: length[0]]

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
