"""Schemes to store distributions: their bytes, and the decoded distributions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

import sqs_codec as sqs
from benchmarks.schemes import COMPRESSORS, Compressor

RESOLUTIONS = (16, 32, 50, 128)
"""Resolutions of unbiased counts."""

Array = NDArray[Any]
Sparse = list[tuple[Array, Array]]
"""Each position's listed tokens and weights; token V stands for all others."""

Kept = tuple[dict[str, Array], Sparse]
"""The bytes of each text, by coding, and the decoded distributions."""


@dataclass(frozen=True)
class Rows:
    """The concatenated distributions of some texts."""

    logits: Array
    """[N, V]."""
    probs: Array
    lengths: Sequence[int]
    """The number of distributions per text."""
    prior: sqs.Prior | None

    @property
    def vocab_size(self) -> int:
        """V."""
        return int(self.logits.shape[1])

    def texts(self, values: Any) -> list[Any]:
        """Split a sequence with an item per position into texts."""
        ends = np.cumsum(self.lengths)
        return [values[e - n : e] for e, n in zip(ends, self.lengths, strict=True)]

    @property
    def id_type(self) -> type[np.unsignedinteger]:
        """The dtype of an id."""
        return np.uint16 if self.vocab_size <= 1 << 16 else np.uint32


def squeezed(texts: Sequence[Sequence[Array]]) -> Array:
    """Return each text's share of zstd's bytes for all texts together.

    Shares are proportional to the bytes of each text compressed separately. A text is
    some columns, compressed rank by rank, high bytes first.
    """

    def size(columns: Sequence[Array]) -> int:
        planes = (
            np.ascontiguousarray(x.T).view(np.uint8).reshape(x.size, -1).T.tobytes()
            for x in columns
        )
        return len(zstandard.compress(b"".join(planes), 19))

    each = np.array([size(columns) for columns in texts])
    together = size([np.concatenate(parts) for parts in zip(*texts, strict=True)])
    return each * (together / each.sum())


def lists(probs: Array, k: int) -> tuple[Array, Array]:
    """Return the k most probable tokens at each position and their probabilities."""
    ids = np.argpartition(probs, -k)[:, -k:]
    order = np.argsort(-np.take_along_axis(probs, ids, 1), kind="stable")
    ids = np.take_along_axis(ids, order, 1)
    return ids, np.take_along_axis(probs, ids, 1)


def top_k(rows: Rows, rng: np.random.Generator, k: int = 64, *, tail: bool) -> Kept:
    """Keep float16 log-probabilities; renormalize them, or give the tail the rest."""
    ids, probs = lists(rows.probs, k)
    values = np.log(probs).astype(np.float16)
    short = ids.astype(rows.id_type)
    taken = k * (short.itemsize + values.itemsize) * np.array(rows.lengths)
    columns = [*zip(rows.texts(short), rows.texts(values), strict=True)]
    back = np.exp(values.astype(np.float64))
    if tail:
        rest = np.maximum(0, 1 - back.sum(-1, keepdims=True))
        ids = np.pad(ids, ((0, 0), (0, 1)), constant_values=rows.vocab_size)
        back = np.hstack([back, rest])
    else:
        back /= back.sum(-1, keepdims=True)
    ways = {"": taken, "zstd by columns": squeezed(columns)}
    return ways, list(zip(ids, back, strict=True))


def distillkit(rows: Rows, rng: np.random.Generator, how: Compressor) -> Kept:
    """Keep DistillKit's compressed logits."""
    ids, probs = lists(rows.probs, how.k)
    taken = {"": how.size(rows.vocab_size) * np.array(rows.lengths)}
    return taken, list(zip(ids, how.back(probs), strict=True))


def draws(rows: Rows, rng: np.random.Generator, size: int = 50) -> Kept:
    """Keep sampled tokens, and how often each was sampled, in 24 bits."""
    found = []
    for row in rows.probs:
        at = np.cumsum(row, dtype=np.float64)
        tokens = np.searchsorted(at, rng.random(size) * at[-1], "right")
        ids, times = np.unique(tokens, return_counts=True)
        found.append(sqs.SparseDistribution(ids, times, rows.vocab_size))
    texts = [
        (
            np.concatenate([q.token_ids for q in text]).astype(rows.id_type),
            np.concatenate([q.counts for q in text]).astype(np.uint8),
            np.array([len(q.counts) for q in text], np.uint8),
        )
        for text in rows.texts(found)
    ]
    ours, back = coded(rows, sqs.SparseRows.stack(found), rows.prior)
    raw = np.array([3 * len(ids) for ids, _, _ in texts])
    return {"": raw, "zstd by columns": squeezed(texts), "in our file": ours}, back


def counts(rows: Rows, rng: np.random.Generator, resolution: int) -> Kept:
    """Keep unbiased counts."""
    codec = sqs.Codec(rows.vocab_size, resolution)
    found = codec.quantize_unbiased_rows(rows.logits, rng=rng)
    taken, back = coded(rows, found, rows.prior)
    return {"": taken}, back


def lattice(rows: Rows, rng: np.random.Generator, resolution: int) -> Kept:
    """Keep a lattice point of the 64 most probable tokens and a tail for the rest."""
    ids, probs = lists(rows.probs, 64)
    codec = sqs.Codec(rows.vocab_size + 1, resolution)
    found = codec.quantize_top_logprobs_rows(ids, np.log(probs))
    taken, back = coded(rows, found, rows.prior and rows.prior.with_tail())
    return {"": taken}, back


def coded(
    rows: Rows, found: sqs.SparseRows, prior: sqs.Prior | None
) -> tuple[Array, Sparse]:
    """Return the bytes of each text in our file, and the decoded distributions."""
    codec = sqs.Codec(found.vocab_size, found.resolution, prior=prior)
    taken = [len(codec.encode_sequence(text)) for text in rows.texts(found)]
    return np.array(taken), [(row.token_ids, row.probs) for row in found]


Scheme = Callable[[Rows, np.random.Generator], Kept]

TOP, TAIL, FEW, DRAWS = "top-64", "top-64 with tail", "top-8 with tail", "50 draws"

FIXED: dict[str, Scheme] = {
    TOP: partial(top_k, tail=False),
    TAIL: partial(top_k, tail=True),
    FEW: partial(top_k, k=8, tail=True),
    **{f"DistillKit, {n}": partial(distillkit, how=h) for n, h in COMPRESSORS.items()},
    "our lists, l = 4096": partial(lattice, resolution=4096),
}
UNBIASED: dict[str, Scheme] = {
    DRAWS: draws,
    **{f"counts, l = {size}": partial(counts, resolution=size) for size in RESOLUTIONS},
}
"""Schemes that round at random, with the distribution as their mean."""
