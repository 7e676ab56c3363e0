"""The C core as a backend."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sqs_codec._backend._sqs import ffi, lib
from sqs_codec._backend.core import Arrays, Best, Ids, IsaName, Rule
from sqs_codec._base.format import FORMAT_VERSION

DTYPES = {
    np.dtype(np.float16): lib.SQS_F16,
    np.dtype(np.float32): lib.SQS_F32,
    np.dtype(np.float64): lib.SQS_F64,
    np.dtype(np.uint16): lib.SQS_BF16,
}

ISAS: dict[IsaName, int] = {
    "scalar": lib.SQS_SCALAR,
    "avx2": lib.SQS_AVX2,
    "avx512": lib.SQS_AVX512,
    "neon": lib.SQS_NEON,
}

USUAL_SURVIVORS = 4096
"""Initial room for a round or a sequence: 2**20 survivors would take 8 MB."""

new = ffi.new_allocator(should_clear_after_alloc=False)
"""``ffi.new`` without clearing: untouched memory costs nothing."""

NULL = ffi.NULL
OK = lib.SQS_OK
UINT32 = np.dtype(np.uint32)

assert lib.SQS_FORMAT_VERSION == FORMAT_VERSION


def _choose_isa() -> IsaName:
    name = os.environ.get("SQS_ISA", "")
    here = {isa: name for name, isa in ISAS.items() if lib.sqs_find_isa(isa)}
    if name not in ("", *here.values()):
        known = [*here.values()]
        raise ImportError(f"SQS_ISA must be one of {known} here, not {name!r}")
    return cast("IsaName", name) or here[lib.sqs_find_isa(lib.SQS_ISA_BEST)]


ISA_NAME = _choose_isa()
ISA = ISAS[ISA_NAME]


def _in(array: Ids) -> Any:
    return ffi.from_buffer("uint32_t[]", array)


def _bytes(data: bytes | NDArray[np.uint8]) -> Any:
    return ffi.from_buffer("uint8_t[]", data)


def _expect_ok(status: int) -> None:
    """Fail on errors that `Codec` should have caught."""
    if status != OK:
        text = ffi.string(lib.sqs_status_text(status)).decode()
        raise AssertionError(f"the C core rejected its arguments: {text}")


@lru_cache(maxsize=4)
def _load_prior(file: bytes) -> tuple[Any, Any]:
    """Load a prior once for all codecs: loading takes milliseconds and megabytes."""
    given = _bytes(file), len(file)
    memory = ffi.new("uint64_t[]", lib.sqs_prior_memory(*given) // 8 + 1)
    prior = ffi.new("const sqs_prior **")
    _expect_ok(lib.sqs_load_prior(*given, memory, prior))
    return prior[0], memory


class _Room:
    """Memory for a decoded round or sequence of at most `most` survivors."""

    def __init__(self, most: int) -> None:
        self.capacity = most
        longest = max(lib.SQS_MAX_ROUND, min(most, lib.SQS_MAX_SEQUENCE))
        sizes = most, most, longest
        self.arrays = [new("uint32_t[]", size) for size in sizes]
        self.out = ffi.new("sqs_sparse_room *", self.arrays)


class _Buffers:
    """Memory that is reused between calls."""

    def __init__(self, codec: Any, isa: int) -> None:
        most = lib.sqs_max_survivors(codec)
        self.ids, self.counts = new("uint32_t[]", most), new("uint32_t[]", most)
        self.ids_bytes, self.counts_bytes = map(ffi.buffer, (self.ids, self.counts))
        self.survivors = ffi.new("uint32_t *")
        self.mass = ffi.new("double *")
        self.room = lib.sqs_encode_bound(codec, most)
        self.packet = new("uint8_t[]", self.room)
        self.packet_bytes = ffi.buffer(self.packet)
        self.size = ffi.new("size_t *")
        row = self.ids, self.counts, self.survivors
        self.quantized = ffi.new("sqs_sparse_room *", row)
        self.rows = ffi.new("sqs_rows *", {"isa": isa})
        self.keep = ffi.new("sqs_keep *")
        self.scratch = new("double[]", lib.sqs_quantize_scratch(codec) // 8 + 1)
        self.round = _Room(0)
        self.positions = new("uint32_t[]", lib.SQS_MAX_ROUND)

    def take(self, status: int) -> tuple[Ids, Ids]:
        """Return copies of a distribution's ids and counts, empty if not OK."""
        size = 4 * self.survivors[0] if status == OK else 0
        ids = np.frombuffer(self.ids_bytes[:size], UINT32)
        return ids, np.frombuffer(self.counts_bytes[:size], UINT32)


def _point(ours: Any, rows: NDArray[Any]) -> int:
    """Point a ``sqs_rows`` at rows that the caller keeps alive; return their number."""
    n = 1
    if rows.ndim == 2:
        n = len(rows)
        # The stride of a single row may be anything, even negative, and is ignored.
        ours.stride = rows.strides[0] // rows.itemsize if n > 1 else 0
    ours.n, ours.width = n, rows.shape[-1]
    ours.dtype = DTYPES[rows.dtype]
    if rows.flags.c_contiguous:
        ours.values = ffi.from_buffer(rows)  # ten times as fast as the cast
    else:
        ours.values = ffi.cast("void *", rows.ctypes.data)
    return n


def _rows(rows: NDArray[Any], isa: int) -> Any:
    """Return a ``sqs_rows`` of rows that the caller keeps alive."""
    ours = ffi.new("sqs_rows *", {"isa": isa})
    _point(ours, rows)
    return ours


def _copy(array: Any, n: int) -> Ids:
    """Copy the first n of an array of uint32 in C into a read-only array."""
    return np.frombuffer(ffi.buffer(array, 4 * n)[:], UINT32)


def _copies(arrays: Sequence[Any], n: int) -> tuple[Ids, Ids, Ids]:
    """Return ids, counts and sizes of the first n distributions."""
    ids, counts, sizes, *_ = arrays
    k = sum(ffi.unpack(sizes, n))
    return _copy(ids, k), _copy(counts, k), _copy(sizes, n)


def _split(packets: Any, sizes: Any, n: int) -> list[bytes]:
    """Split concatenated packets, and return the first n."""
    found = []
    for size in ffi.unpack(sizes, n):
        found.append(ffi.buffer(packets, size)[:])
        packets += size
    return found


def _sparse(ids: Ids, counts: Ids, sizes: Ids) -> Any:
    """Return rows, a round or a sequence of arrays that the caller keeps alive."""
    arrays = map(_in, (ids, counts, sizes))
    return ffi.new("sqs_sparse_rows *", (sizes.size, *arrays))


def _decode(
    decode: Any, given: tuple[Any, ...], most: int, room: _Room, *positions: Any
) -> tuple[int, int, tuple[Ids, Ids, Ids]]:
    """Decode distributions; try again with more room if this is too small."""
    status = decode(*given, min(most, room.capacity), room.out, *positions)
    if status == lib.SQS_OVER_LIMIT and most > room.capacity:
        room = _Room(most)
        status = decode(*given, most, room.out, *positions)
    n = room.out.done if status == OK else 0
    return status, n, _copies(room.arrays, n)


def _verify(
    function: Any, round_: Arrays, target: NDArray[Any], isa: int, *given: Any
) -> tuple[int, int, int, int]:
    verdict, rows = ffi.new("sqs_verdict *"), _rows(target, isa)
    scratch = new("double[]", lib.sqs_verify_scratch(rows) // 8 + 1)
    *arrays, positions = round_
    drafted = _sparse(*arrays), _in(positions)
    status = function(*drafted, rows, *given, scratch, verdict)
    return status, verdict.done, verdict.accepted, verdict.token


class Core:
    """See `sqs_codec._backend.core.Core`."""

    def __init__(
        self,
        vocab_size: int,
        resolution: int,
        coding: int,
        prior: bytes | None,
        *,
        isa: int = ISA,
    ) -> None:
        self._prior = (NULL, NULL) if prior is None else _load_prior(prior)
        self._codec = ffi.new(
            "sqs_codec *", (vocab_size, resolution, coding, self._prior[0])
        )
        _expect_ok(lib.sqs_check_codec(self._codec))
        self._isa = isa
        self._is_ranked = coding == lib.SQS_ENUMERATIVE
        self._free: list[_Buffers] = []
        self._most = lib.sqs_max_survivors(self._codec)

    def _take(self) -> _Buffers:
        """Take buffers for one call; no other thread or signal handler has them."""
        try:
            return self._free.pop()
        except IndexError:
            return _Buffers(self._codec, self._isa)

    def _quantize(
        self, call: Any, row: NDArray[Any], keep: Rule, mass: bool, *t: float
    ) -> tuple[int, Ids, Ids, float | None]:
        to = self._take()
        _point(to.rows, row)
        to.keep.most, to.keep.least = keep
        given = *t, to.keep, to.scratch, to.quantized, to.mass if mass else NULL
        status = call(self._codec, to.rows, *given)
        ids, counts = to.take(status)
        dropped = to.mass[0] if mass else None
        self._free.append(to)
        return status, ids, counts, dropped

    def quantize_logits(
        self, logits: NDArray[Any], temperature: float, keep: Rule, mass: bool
    ) -> tuple[int, Ids, Ids, float | None]:
        call = lib.sqs_quantize_logits
        return self._quantize(call, logits, keep, mass, temperature)

    def quantize_probs(
        self, probs: NDArray[np.floating], keep: Rule, mass: bool
    ) -> tuple[int, Ids, Ids, float | None]:
        return self._quantize(lib.sqs_quantize_probs, probs, keep, mass)

    def quantize_rows(
        self, logits: NDArray[Any], temperature: float, keep: Rule
    ) -> tuple[int, int, Ids, Ids, Ids]:
        to = self._take()
        n = _point(to.rows, logits)
        to.keep.most, to.keep.least = keep
        most = min(self._most, keep[0])
        arrays = [new("uint32_t[]", size) for size in (n * most, n * most, n)]
        out = ffi.new("sqs_sparse_room *", arrays)
        status = lib.sqs_quantize_logits(
            self._codec, to.rows, temperature, to.keep, to.scratch, out, NULL
        )
        self._free.append(to)
        return status, out.done, *_copies(arrays, n if status == OK else 0)

    def quantize_unbiased(
        self, logits: NDArray[Any], numbers: NDArray[np.uint64], temperature: float
    ) -> tuple[int, int, Ids, Ids, Ids]:
        to = self._take()
        n = _point(to.rows, logits)
        most = n * self._most
        arrays = [new("uint32_t[]", size) for size in (most, most, n)]
        out = ffi.new("sqs_sparse_room *", arrays)
        given = ffi.from_buffer("uint64_t[]", numbers)
        status = lib.sqs_quantize_unbiased(
            self._codec, to.rows, temperature, given, to.scratch, out
        )
        self._free.append(to)
        return status, out.done, *_copies(arrays, n if status == OK else 0)

    def bits(self, ids: Ids, counts: Ids) -> int:
        bits = ffi.new("uint32_t *")
        _expect_ok(lib.sqs_bits(self._codec, _in(ids), _in(counts), ids.size, bits))
        return int(bits[0])

    def _write(self, encode: Callable[..., int], bound: int, *given: Any) -> bytes:
        packet, size = new("uint8_t[]", bound), ffi.new("size_t *")
        _expect_ok(encode(self._codec, *given, packet, bound, size))
        return bytes(ffi.buffer(packet, size[0]))

    def encode(self, ids: Ids, counts: Ids) -> bytes:
        to = self._take()
        given = _in(ids), _in(counts), ids.size, to.packet, to.room, to.size
        _expect_ok(lib.sqs_encode(self._codec, *given))
        packet: bytes = to.packet_bytes[: to.size[0]]
        self._free.append(to)
        return packet

    def decode(self, packet: bytes, most: int) -> tuple[int, Ids, Ids]:
        to = self._take()
        data, most = _bytes(packet), min(most, self._most)
        status = lib.sqs_decode(
            self._codec, data, len(packet), most, to.ids, to.counts, to.survivors
        )
        found = to.take(status)
        self._free.append(to)
        return status, *found

    def encode_rows(self, ids: Ids, counts: Ids, survivors: Ids) -> list[bytes]:
        n, most = survivors.size, int(survivors.max(initial=0))
        room = n * lib.sqs_encode_bound(self._codec, most)
        packets, sizes = new("uint8_t[]", room), new("size_t[]", n)
        rows, done = _sparse(ids, counts, survivors), ffi.new("uint32_t *")
        given = rows, packets, room, sizes, done
        _expect_ok(lib.sqs_encode_rows(self._codec, *given))
        return _split(packets, sizes, n)

    def decode_rows(
        self, packets: Sequence[bytes], most: int
    ) -> tuple[int, int, Ids, Ids, Ids]:
        n = len(packets)
        room = n * min(most, self._most)
        arrays = [new("uint32_t[]", size) for size in (room, room, n)]
        out = ffi.new("sqs_sparse_room *", arrays)
        sizes = ffi.new("size_t[]", [*map(len, packets)])
        data = _bytes(b"".join(packets))
        status = lib.sqs_decode_rows(self._codec, data, sizes, n, most, out)
        return status, out.done, *_copies(arrays, n if status == OK else 0)

    def encode_round(self, round_: Arrays) -> bytes:
        *arrays, positions = round_
        bound = lib.sqs_encode_round_bound(self._codec, positions.size, arrays[0].size)
        given = _sparse(*arrays), _in(positions)
        return self._write(lib.sqs_encode_round, bound, *given)

    def decode_round(self, packet: bytes, most: int) -> tuple[int, Ids, Ids, Ids, Ids]:
        to = self._take()
        most = min(most, lib.sqs_max_round_survivors(self._codec, len(packet)))
        # Enumerative packets are slow to read, so there is no second attempt.
        usual = most if self._is_ranked else min(most, USUAL_SURVIVORS)
        if usual > to.round.capacity:
            to.round = _Room(usual)
        given = self._codec, _bytes(packet), len(packet)
        call = lib.sqs_decode_round
        status, n, found = _decode(call, given, most, to.round, to.positions)
        positions = _copy(to.positions, n)
        self._free.append(to)
        return status, *found, positions

    def encode_sequence(self, ids: Ids, counts: Ids, survivors: Ids) -> bytes:
        bound = lib.sqs_encode_sequence_bound(survivors.size, ids.size)
        sequence = _sparse(ids, counts, survivors)
        return self._write(lib.sqs_encode_sequence, bound, sequence)

    def decode_sequence(
        self, packet: bytes, length: int, most: int
    ) -> tuple[int, Ids, Ids, Ids]:
        most = min(most, lib.SQS_MAX_ENTROPY_SURVIVORS)
        # Survivors rarely take less than half a byte. Large rooms are slow.
        room = _Room(min(most, max(USUAL_SURVIVORS, 2 * len(packet))))
        given = self._codec, _bytes(packet), len(packet), length
        status, _, found = _decode(lib.sqs_decode_sequence, given, most, room)
        return status, *found

    @staticmethod
    def verify(
        round_: Arrays,
        target: NDArray[np.floating],
        draws: NDArray[np.float64],
        isa: int = ISA,
    ) -> tuple[int, int, int, int]:
        numbers = ffi.from_buffer("double[]", draws)
        return _verify(lib.sqs_verify, round_, target, isa, numbers)

    @staticmethod
    def verify_logits(
        round_: Arrays, target: NDArray[Any], temperature: float, draws: NDArray[Any]
    ) -> tuple[int, int, int, int]:
        """Verify with rows of logits, in the types of `quantize_logits`."""
        given = temperature, ffi.from_buffer("double[]", draws)
        return _verify(lib.sqs_verify_logits, round_, target, ISA, *given)

    @staticmethod
    def gumbel(
        logits: NDArray[Any],
        temperature: float,
        key: Ids,
        position: int,
        most: int,
        isa: int = ISA,
    ) -> tuple[int, int, Best]:
        rows = _rows(logits, isa)
        n = rows.n
        ids, scores = new("uint32_t[]", n * most), new("double[]", n * most)
        sizes = new("uint32_t[]", n)
        out = ffi.new("sqs_guesses *", (ids, scores, sizes))
        scratch = new("double[]", lib.sqs_gumbel_scratch(rows) // 8 + 1)
        given = _in(key), position, most, scratch, out
        status = lib.sqs_gumbel(rows, temperature, *given)
        found = [
            (ffi.unpack(ids + i * most, size), ffi.unpack(scores + i * most, size))
            for i, size in enumerate(ffi.unpack(sizes, n) if status == OK else ())
        ]
        return status, out.done, found
