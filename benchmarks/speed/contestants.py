"""What ``sqs bench speed`` times: the package's calls, and what they compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import constriction
import numpy as np
import torch
from numpy.typing import NDArray

import sqs_codec as sqs
from sqs_codec.bench.timing import Contestant, read

READ, TORCH, NUMPY = "one read", "softmax + topk", "argpartition"
TORCH_FIRST = "topk + softmax of K"

RANGE = constriction.stream.queue
MODELS = constriction.stream.model

ID_OFFSET, ID_POWER = 100, 0.9
"""A token's chance falls as (id + offset)^-power: low ids are frequent tokens."""


def _each(
    call: Callable[[Any], object], inputs: Sequence[Any], name: str
) -> Contestant:
    """Time a call of each input."""

    def run() -> None:
        for one in inputs:
            call(one)

    return Contestant(name, run, len(inputs))


def _each_row(
    call: Callable[[Any, sqs.Keep, float], object],
    rows: Sequence[NDArray[np.floating]],
    keep: sqs.Keep,
    temperature: float,
    name: str,
) -> Contestant:
    """Time a call of each row of logits."""

    def run() -> None:
        for row in rows:
            call(row, keep, temperature)

    return Contestant(name, run, len(rows))


def encode_logits(
    codec: sqs.Codec,
    rows: Sequence[NDArray[np.floating]],
    keep: sqs.Keep,
    temperature: float,
    name: str,
) -> Contestant:
    """Time logits to bytes."""
    return _each_row(codec.encode_logits, rows, keep, temperature, name)


def encode_bfloat16(
    codec: sqs.Codec,
    rows: NDArray[np.uint16],
    keep: sqs.Keep,
    temperature: float,
    name: str,
) -> Contestant:
    """Time logits to bytes, of a type that NumPy lacks and only cores take."""

    def run() -> None:
        for row in rows:
            codec._encode_rows(row[None], (), keep, temperature, None)

    return Contestant(name, run, len(rows))


def quantize(
    codec: sqs.Codec,
    rows: Sequence[NDArray[np.floating]],
    keep: sqs.Keep,
    temperature: float,
    name: str,
) -> Contestant:
    """Time logits to distributions."""
    return _each_row(codec.quantize, rows, keep, temperature, name)


def conformal(
    codec: sqs.Codec,
    rows: Sequence[NDArray[np.floating]],
    keep: sqs.Conformal,
    temperature: float,
    name: str,
) -> Contestant:
    """Time logits to distributions, and the rule's update after each.

    To drop exactly the target leaves the threshold where it is, so that every round
    keeps the same tokens.
    """
    call, update, mass = codec.quantize, keep.update, keep.alpha

    def run() -> None:
        for row in rows:
            call(row, keep, temperature)
            update(mass)

    return Contestant(name, run, len(rows))


def encode(
    codec: sqs.Codec, qs: Sequence[sqs.SparseDistribution], name: str
) -> Contestant:
    """Time distributions to bytes."""
    return _each(codec.encode, qs, name)


def decode(
    codec: sqs.Codec, qs: Sequence[sqs.SparseDistribution], name: str
) -> Contestant:
    """Time bytes to distributions."""
    return _each(codec.decode, [codec.encode(q) for q in qs], name)


def bits(
    codec: sqs.Codec, qs: Sequence[sqs.SparseDistribution], name: str
) -> Contestant:
    """Time distributions to their sizes."""
    return _each(codec.bits, qs, name)


def encode_round(
    codec: sqs.Codec, rounds: Sequence[sqs.Round], name: str
) -> Contestant:
    """Time rounds to bytes."""
    call = codec.encode_round

    def run() -> None:
        for round_ in rounds:
            call(round_.distributions, round_.tokens)

    return Contestant(name, run, len(rounds))


def decode_round(
    codec: sqs.Codec, rounds: Sequence[sqs.Round], name: str
) -> Contestant:
    """Time bytes to rounds."""
    packets = [codec.encode_round(r.distributions, r.tokens) for r in rounds]
    return _each(codec.decode_round, packets, name)


def verify(
    rounds: Sequence[sqs.Round],
    targets: Sequence[NDArray[np.floating]],
    rng: np.random.Generator,
    name: str,
) -> Contestant:
    """Time rounds and target rows to verdicts."""
    pairs = list(zip(rounds, targets, strict=True))

    def run() -> None:
        for round_, target in pairs:
            sqs.verify(round_, target, rng)

    return Contestant(name, run, len(rounds))


def push(
    drafter: sqs.Drafter,
    rows: Sequence[NDArray[np.floating]],
    temperature: float,
    name: str,
) -> Contestant:
    """Time logits to drafted tokens, all of one round, which ends off the clock."""
    assert len(rows) <= drafter.max_tokens
    call = drafter.push

    def run() -> None:
        for row in rows:
            if call(row, temperature) is None:
                raise AssertionError("the drafter is full before all rows are drafted")

    def reset() -> None:
        if drafter._tokens:
            drafter.finish()
            drafter.feedback(len(drafter._tokens))

    return Contestant(name, run, len(rows), reset)


def encode_batch(
    codec: sqs.Codec,
    rows: NDArray[np.floating],
    keep: sqs.Keep,
    temperature: float,
    threads: int,
    name: str,
) -> Contestant:
    """Time logits to bytes, all rows in one call."""

    def run() -> None:
        codec.encode_batch(rows, keep, temperature, threads=threads)

    return Contestant(name, run, len(rows))


def torch_top_k(
    rows: Sequence[NDArray[np.floating]], k: int, temperature: float
) -> Contestant:
    """Time logits to the k largest probabilities, as a sampler finds them."""
    tensors = [torch.from_numpy(row) for row in rows]

    def run() -> None:
        with torch.inference_mode():
            for tensor in tensors:
                torch.topk(torch.softmax(tensor / temperature, -1), k)

    return Contestant(TORCH, run, len(rows))


def torch_top_k_first(
    rows: Sequence[NDArray[np.floating]], k: int, temperature: float
) -> Contestant:
    """Time logits to the softmax of the k largest, which leaves out all others."""
    tensors = [torch.from_numpy(row) for row in rows]

    def run() -> None:
        with torch.inference_mode():
            for tensor in tensors:
                values, _ = torch.topk(tensor, k)
                torch.softmax(values / temperature, -1)

    return Contestant(TORCH_FIRST, run, len(rows))


def argpartition(rows: Sequence[NDArray[np.floating]], k: int) -> Contestant:
    """Time logits to the places of the k largest, and nothing more."""

    def run() -> None:
        for row in rows:
            np.argpartition(row, -k)

    return Contestant(NUMPY, run, len(rows))


def one_read(
    rows: NDArray[np.floating], calls: int | None = None, name: str = READ
) -> Contestant:
    """Time to read every value of rows [n, V] once; `calls` is n if not given."""

    def run() -> None:
        read(rows)

    return Contestant(name, run, calls or len(rows))


class Constriction:
    """The same supports and counts through constriction's range coder.

    Each id is a symbol of a fixed categorical model over the vocabulary, each count one
    of a categorical model fitted to all counts here. The models are made beforehand.
    Nothing here takes out the order of a set, uses what the counts before leave,
    or sends the size of the support, which the decoder is told.

    Parameters
    ----------
    qs : sequence of SparseDistribution
        Of one vocabulary and resolution.
    """

    def __init__(self, qs: Sequence[sqs.SparseDistribution]) -> None:
        weights = (np.arange(qs[0].vocab_size) + ID_OFFSET) ** -ID_POWER
        self._id_model = MODELS.Categorical(weights / weights.sum(), perfect=False)
        counts = np.concatenate([q.counts for q in qs])
        often = np.bincount(counts, minlength=qs[0].resolution + 1) + 0.01
        self._count_model = MODELS.Categorical(often / often.sum(), perfect=False)
        self._symbols = [
            (q.token_ids.astype(np.int32), q.counts.astype(np.int32)) for q in qs
        ]
        self._packets = [self._encode(*pair) for pair in self._symbols]
        for (ids, counts_), packet in zip(self._symbols, self._packets, strict=True):
            read_ids, read_counts = self._decode(packet, len(ids))
            assert np.array_equal(ids, read_ids)
            assert np.array_equal(counts_, read_counts)

    @property
    def bits(self) -> float:
        """Mean bits of a distribution, in its whole 32-bit words."""
        return float(np.mean([32 * len(packet) for packet in self._packets]))

    def _encode(
        self, ids: NDArray[np.int32], counts: NDArray[np.int32]
    ) -> NDArray[np.uint32]:
        encoder = RANGE.RangeEncoder()
        encoder.encode(ids, self._id_model)
        encoder.encode(counts, self._count_model)
        packet: NDArray[np.uint32] = encoder.get_compressed()
        return packet

    def _decode(
        self, packet: NDArray[np.uint32], k: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        decoder = RANGE.RangeDecoder(packet)
        return decoder.decode(self._id_model, k), decoder.decode(self._count_model, k)

    def encode(self, name: str) -> Contestant:
        """Time distributions to words."""

        def run() -> None:
            for ids, counts in self._symbols:
                self._encode(ids, counts)

        return Contestant(name, run, len(self._symbols))

    def decode(self, name: str) -> Contestant:
        """Time words to distributions."""
        sizes = [len(ids) for ids, _ in self._symbols]
        pairs = list(zip(self._packets, sizes, strict=True))

        def run() -> None:
            for packet, k in pairs:
                self._decode(packet, k)

        return Contestant(name, run, len(self._symbols))
