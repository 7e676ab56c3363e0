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
"""Of systematic counts."""

Array = NDArray[Any]
Sparse = list[tuple[Array, Array]]
"""Of each row some tokens and what each has; token V stands for all not named."""

Kept = tuple[dict[str, float], Sparse]
"""The bytes of all rows, by how they are coded, and what comes back."""


@dataclass(frozen=True)
class Rows:
    """Distributions of some texts, one text after the other."""

    logits: Array
    """[N, V]: divided by the temperature."""
    probs: Array
    lengths: Sequence[int]
    """Of the texts."""
    prior: sqs.Prior | None

    @property
    def vocab_size(self) -> int:
        """V."""
        return int(self.logits.shape[1])


def lists(probs: Array, k: int) -> tuple[Array, Array]:
    """Return the k most probable tokens of each row and their probabilities."""
    ids = np.argpartition(probs, -k)[:, -k:]
    order = np.argsort(-np.take_along_axis(probs, ids, 1), kind="stable")
    ids = np.take_along_axis(ids, order, 1)
    return ids, np.take_along_axis(probs, ids, 1)


def top_64(rows: Rows, rng: np.random.Generator) -> Kept:
    """Keep float16 log-probabilities and ids of 16 or 32 bits, and renormalise."""
    ids, probs = lists(rows.probs, 64)
    values = np.log(probs).astype(np.float16)
    kind = np.uint16 if rows.vocab_size <= 1 << 16 else np.uint32
    columns = [
        np.ascontiguousarray(x.T).view(np.uint8).reshape(x.size, -1).T.tobytes()
        for x in (ids.astype(kind), values)
    ]  # rank by rank, all high bytes after all low ones
    squeezed = zstandard.compress(b"".join(columns), 19)
    back = np.exp(values.astype(np.float64))
    back /= back.sum(-1, keepdims=True)
    taken = {"raw": len(b"".join(columns)), "zstd by columns": len(squeezed)}
    return taken, list(zip(ids, back, strict=True))


def distillkit(rows: Rows, rng: np.random.Generator, how: Compressor) -> Kept:
    """Keep DistillKit's compressed logits."""
    ids, probs = lists(rows.probs, how.k)
    taken = {"": float(how.size(rows.vocab_size) * len(ids))}
    return taken, list(zip(ids, how.back(probs), strict=True))


def draws(rows: Rows, rng: np.random.Generator, size: int = 50) -> Kept:
    """Keep tokens that were drawn, and how often, in 24 bits each."""
    back: Sparse = []
    for row in rows.probs:
        at = np.cumsum(row, dtype=np.float64)
        tokens = np.searchsorted(at, rng.random(size) * at[-1], "right")
        ids, counts = np.unique(tokens, return_counts=True)
        back.append((ids, counts / size))
    return {"": 3 * sum(len(ids) for ids, _ in back)}, back


def counts(
    rows: Rows, rng: np.random.Generator, resolution: int, *, tail: bool = False
) -> Kept:
    """Keep unbiased counts, or a lattice point of 64 tokens and a tail for the rest."""
    prior, vocab_size = rows.prior, rows.vocab_size
    if tail:
        prior, vocab_size = prior and prior.with_tail(), vocab_size + 1
    codec = sqs.Codec(vocab_size, resolution, prior=prior)
    if tail:
        ids, probs = lists(rows.probs, 64)
        found = codec.quantize_top_logprobs_rows(ids, np.log(probs))
    else:
        found = codec.quantize_unbiased_rows(rows.logits, rng=rng)
    ends = np.cumsum(rows.lengths)
    texts = [found[end - n : end] for n, end in zip(rows.lengths, ends, strict=True)]
    taken = {
        "": sum(map(len, codec.encode_rows(found))),
        "in sequences": sum(map(len, map(codec.encode_sequence, texts))),
    }
    return taken, [(row.token_ids, row.probs) for row in found]


Scheme = Callable[[Rows, np.random.Generator], Kept]

FIXED: dict[str, Scheme] = {
    "fp16 top-64": top_64,
    **{f"DistillKit, {n}": partial(distillkit, how=h) for n, h in COMPRESSORS.items()},
    "with tail, l = 4096": partial(counts, resolution=4096, tail=True),
}
UNBIASED: dict[str, Scheme] = {
    "50 draws": draws,
    **{
        f"systematic, l = {size}": partial(counts, resolution=size)
        for size in RESOLUTIONS
    },
}
"""The others, whose mean over roundings is the row."""
