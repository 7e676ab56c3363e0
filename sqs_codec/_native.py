"""The C core behind the backend seam."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sqs_codec._core import ffi, lib

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sqs_codec._backend import Ids
    from sqs_codec._keep import Keep

DTYPES = {
    np.dtype(np.float16): lib.SQS_F16,
    np.dtype(np.float32): lib.SQS_F32,
    np.dtype(np.float64): lib.SQS_F64,
}


def _in(array: Ids) -> Any:
    return ffi.from_buffer("uint32_t[]", array)


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

    def __init__(self, vocab_size: int, resolution: int, coding: int) -> None:
        self._codec = ffi.new("sqs_codec *", (vocab_size, resolution, coding))
        self._buffers = _Buffers(self._codec)

    def quantize_logits(
        self, logits: NDArray[np.floating], temperature: float, keep: Keep
    ) -> tuple[int, Ids, Ids, float]:
        return self._quantize(lib.sqs_quantize_logits, logits, (temperature,), keep)

    def quantize_probs(
        self, probs: NDArray[np.floating], keep: Keep
    ) -> tuple[int, Ids, Ids, float]:
        return self._quantize(lib.sqs_quantize_probs, probs, (), keep)

    def _quantize(
        self,
        function: Callable[..., int],
        row: NDArray[np.floating],
        options: tuple[float, ...],
        keep: Keep,
    ) -> tuple[int, Ids, Ids, float]:
        to = self._buffers
        status = function(
            self._codec,
            ffi.from_buffer(row),
            DTYPES[row.dtype],
            *options,
            ffi.new("sqs_keep *", (keep._kind, keep._value)),
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
        self, ids: Ids, counts: Ids, survivors: Ids, positions: Ids
    ) -> bytes:
        bound = lib.sqs_encode_round_bound(self._codec, survivors.size, ids.size)
        packet = ffi.new("uint8_t[]", bound)
        size = ffi.new("size_t *")
        _expect_ok(
            lib.sqs_encode_round(
                self._codec,
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
        self, packet: bytes
    ) -> tuple[int, Sequence[tuple[Ids, Ids]], Sequence[int]]:
        capacity = lib.sqs_decode_round_bound(self._codec, len(packet))
        ids = np.empty(capacity, np.uint32)
        counts = np.empty(capacity, np.uint32)
        survivors = np.empty(lib.SQS_MAX_ROUND, np.uint32)
        positions = np.empty(lib.SQS_MAX_ROUND, np.uint32)
        length = ffi.new("uint32_t *")
        status = lib.sqs_decode_round(
            self._codec,
            ffi.from_buffer("uint8_t[]", packet),
            len(packet),
            _in(ids),
            _in(counts),
            capacity,
            _in(survivors),
            _in(positions),
            length,
        )
        if status != lib.SQS_OK:
            return status, [], []
        ends = np.cumsum(survivors[: length[0]], dtype=np.int64).tolist()
        pairs = [
            (ids[start:end].copy(), counts[start:end].copy())
            for start, end in zip([0, *ends[:-1]], ends, strict=True)
        ]
        return status, pairs, positions[: length[0]].tolist()
