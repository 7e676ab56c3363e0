"""Other ways to do it: torch, NumPy, one read of the rows, and another coder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import constriction
import numpy as np
import torch
from numpy.typing import NDArray

import sqs_codec as sqs
from benchmarks.speed.timing import Contestant, each, read

READ, TORCH, NUMPY = "one read", "softmax + topk", "argpartition"
TORCH_FIRST = "topk + softmax of K"

RANGE = constriction.stream.queue
MODELS = constriction.stream.model

ID_OFFSET, ID_POWER = 100, 0.9
"""A token's chance falls as (id + offset)^-power: low ids are frequent tokens."""


def one_read(
    rows: NDArray[np.floating], calls: int | None = None, name: str = READ
) -> Contestant:
    """Time to read every value of rows [n, V] once; `calls` is n if not given."""
    return Contestant(name, lambda: read(rows), calls or len(rows))


def argpartition(rows: Sequence[NDArray[np.floating]], k: int) -> Contestant:
    """Time logits to the places of the k largest, and nothing more."""
    return each(NUMPY, lambda row: np.argpartition(row, -k), rows)


def softmax_top_k(
    rows: Sequence[NDArray[np.floating]], k: int, temperature: float
) -> Contestant:
    """Time logits to the k largest probabilities, as a sampler finds them."""

    def select(row: torch.Tensor) -> None:
        torch.topk(torch.softmax(row / temperature, -1), k)

    return _torch(TORCH, select, rows)


def top_k_softmax(
    rows: Sequence[NDArray[np.floating]], k: int, temperature: float
) -> Contestant:
    """Time logits to the softmax of the k largest, which leaves out all others."""

    def select(row: torch.Tensor) -> None:
        torch.softmax(torch.topk(row, k)[0] / temperature, -1)

    return _torch(TORCH_FIRST, select, rows)


def _torch(
    name: str,
    select: Callable[[torch.Tensor], None],
    rows: Sequence[NDArray[np.floating]],
) -> Contestant:
    block = each(name, select, [torch.from_numpy(row) for row in rows])

    def run() -> None:
        with torch.inference_mode():
            block.run()

    return Contestant(name, run, block.calls)


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

    Attributes
    ----------
    encode, decode : Contestant
    bits : float
        Mean bits of a distribution, in its whole 32-bit words.
    """

    def __init__(self, qs: Sequence[sqs.SparseDistribution]) -> None:
        weights = (np.arange(qs[0].vocab_size) + ID_OFFSET) ** -ID_POWER
        ids_model = MODELS.Categorical(weights / weights.sum(), perfect=False)
        counts = np.concatenate([q.counts for q in qs])
        often = np.bincount(counts, minlength=qs[0].resolution + 1) + 0.01
        counts_model = MODELS.Categorical(often / often.sum(), perfect=False)

        def encode(
            symbols: tuple[NDArray[np.int32], NDArray[np.int32]],
        ) -> NDArray[np.uint32]:
            encoder = RANGE.RangeEncoder()
            encoder.encode(symbols[0], ids_model)
            encoder.encode(symbols[1], counts_model)
            packet: NDArray[np.uint32] = encoder.get_compressed()
            return packet

        def decode(
            packet: tuple[NDArray[np.uint32], int],
        ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
            decoder = RANGE.RangeDecoder(packet[0])
            ids = decoder.decode(ids_model, packet[1])
            return ids, decoder.decode(counts_model, packet[1])

        sets = [(q.token_ids.astype(np.int32), q.counts.astype(np.int32)) for q in qs]
        packets = [(encode(pair), len(pair[0])) for pair in sets]
        for pair, packet in zip(sets, packets, strict=True):
            assert all(map(np.array_equal, pair, decode(packet)))
        self.bits = float(np.mean([32 * len(words) for words, _ in packets]))
        self.encode = each("constriction, encode", encode, sets)
        self.decode = each("constriction, decode", decode, packets)
