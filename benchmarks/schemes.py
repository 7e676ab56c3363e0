"""Schemes to send a distribution, and the parameters of each.

`Row` applies them to one position at one temperature. Dropping and rounding depend only
on a rule and a resolution. So all codings of both share one distribution and differ
only in bits. A `Format` is a scheme with its parameters. Both ends get the same
distribution q^ from it, to sample and to verify the token. So all formats are lossless;
they differ in bits and acceptance.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, partial
from operator import neg
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from sqs_codec import theory
from sqs_codec._codec.keep import limits_of

if TYPE_CHECKING:
    from sqs_codec.system import session

K_SQS, C_SQS = "K-SQS, formula", "C-SQS, formula"
NONZERO = "C-SQS, nonzero"
"""The C-SQS formula, counting only tokens with nonzero counts in our distributions."""
C_ONLINE = "C-SQS, online"
"""The C-SQS formula with the tokens that the paper's online threshold keeps."""
QS, RAW = "QS, formula", "raw top-K, fp16"
ENUMERATIVE, ENTROPY = "enumerative", "entropy"
ROUNDS, NO_PRIOR = "entropy, rounds", "entropy, no prior"
"""The entropy coding has the source's prior and single packets, except where named."""
ONLINE = "entropy, online"
"""The entropy coding of the distributions of `C_ONLINE`."""

PAPER = (K_SQS, C_SQS)
SCHEMES = (*PAPER, NONZERO, QS, RAW, ENUMERATIVE, NO_PRIOR, ENTROPY, ROUNDS)
STEERED = (C_ONLINE, ONLINE, ENTROPY)
"""Schemes with online thresholds; the first one is the rival."""

PAPER_KS = (*range(1, 17), *range(18, 33, 2), 40, 48, 64, 80, 96, 128, 192, 256)
PAPER_STEPS_PER_K = (1, 2, 4, 8, 16, 32)
PAPER_BETAS = tuple(2 ** (-i / 8) for i in range(4, 101))
PAPER_STEPS = (0.42, 0.5, 0.6, 0.7, 1.0, 1.4)
"""Resolution times beta: the count of the least probable kept token."""

ALPHAS = (0.005, 0.01, 0.014, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.14, 0.18, 0.22)
"""Targets of the online rule."""
ETAS, BETAS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), (1e-3, 4e-3)
"""Steps and initial thresholds of the online rule."""
ONLINE_RESOLUTIONS = (20, 28, 40, 56, 80, 112, 160, 224, 320)

RESOLUTIONS = tuple(
    dict.fromkeys(round(2 ** (i / 8)) for i in (*range(80), *range(80, 105, 2)))
)
OUR_KS = (64, 256)
OUR_STEPS = 0.6  # resolution times beta

RAW_KS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
RAW_BITS = 32
"""Bits of an fp16 probability and a 16-bit id; 48 if ids need more than 16 bits."""

DENSE_RESOLUTIONS = (16, 64, 256, 1024, 4096, 16384)

Rule = sqs.TopK | sqs.Threshold | sqs.Conformal


@dataclass(frozen=True)
class Setting:
    """Parameters of a scheme."""

    keep: Rule | None
    """None keeps the whole vocabulary."""
    resolution: int | None = None
    """None if probabilities are sent without quantization."""


SAME = Setting(sqs.TopK(64), 100)
"""The setting for comparing codings on the same distribution."""


def paper_settings() -> Iterator[tuple[sqs.TopK | sqs.Threshold, int]]:
    """Yield the settings of K-SQS and C-SQS."""
    yield sqs.TopK(64), 100
    for k in PAPER_KS:
        for ratio in PAPER_STEPS_PER_K:
            yield sqs.TopK(k), k * ratio
    for beta in PAPER_BETAS:
        for steps in PAPER_STEPS:
            if 1 <= round(steps / beta) <= 65536:
                yield sqs.Threshold(beta), round(steps / beta)


def our_settings() -> Iterator[tuple[sqs.TopK | sqs.Threshold, int]]:
    """Yield the settings of our codings."""
    yield sqs.TopK(64), 100
    for resolution in RESOLUTIONS:
        for k in OUR_KS:
            yield sqs.TopK(k), resolution
        yield sqs.Threshold(OUR_STEPS / resolution), resolution


def online_rules() -> Iterator[sqs.Conformal]:
    """Yield the rules of the online threshold."""
    return itertools.starmap(sqs.Conformal, itertools.product(ALPHAS, ETAS, BETAS))


@dataclass(frozen=True)
class Loss:
    """The loss of sending q^ instead of q."""

    tv: float
    """TV(q, q^) over the whole vocabulary."""
    acceptance: float
    """sum_x min(p(x), q^(x)) with the target's p."""


@dataclass(frozen=True)
class Sent:
    """The distribution that a position sends."""

    q: sqs.SparseDistribution
    kept: int
    """The number of kept tokens, including those with count 0."""
    loss: Loss


def softmax(logits: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Return the probabilities of rows at a temperature above 0, [..., V]."""
    x = np.array(logits, np.float64)  # reused: allocation takes longer than the sums
    x /= temperature
    x -= x.max(-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(-1, keepdims=True)
    return x


def descending(logits: NDArray[np.floating]) -> NDArray[np.uint32]:
    """Return the tokens from the largest logit to the smallest, ties by id, [V]."""
    x = np.asarray(logits)
    if x.dtype.itemsize > 4:
        return np.argsort(-x, kind="stable").astype(np.uint32)
    # Sorting integers of a logit's bits and the id is five times as fast as argsort.
    # The bits of positive floats ascend, and of negative floats descend.
    bits = (x.astype(np.float32) + 0.0).view(np.uint32)  # -0 + 0 is 0
    rank = np.where(bits >> 31, bits, ~bits & 0x7FFFFFFF).astype(np.uint64)
    rank <<= 32
    rank |= np.arange(len(x), dtype=np.uint64)
    rank.sort()
    return rank.astype(np.uint32)  # the lower half


class Row:
    """One position at one temperature, by the logits [V] of draft and target."""

    def __init__(
        self,
        draft: NDArray[np.floating],
        target: NDArray[np.floating],
        temperature: float,
    ) -> None:
        self.q = softmax(draft, temperature)
        self.p = softmax(target, temperature)
        self._order = descending(draft)
        self._descending = self.q[self._order]
        self._total = float(self._descending.sum())
        self._unmasked = np.isfinite(draft).sum()
        self._dropped: dict[int, float] = {}
        self._points: dict[tuple[int, int], Sent] = {}

    @cached_property
    def mismatch(self) -> float:
        """TV(p, q) of the models."""
        return max(0.0, 1.0 - float(np.minimum(self.p, self.q).sum()))

    def kept(self, keep: Rule, state: float | None = None) -> int:
        """Return the number of tokens that a rule keeps, at a state or its start."""
        most, least = limits_of(keep, state)
        kept = min(most, int(self._unmasked))
        if least > 0:
            level = least * self._total
            kept = min(kept, bisect_right(self._descending, -level, key=neg))
        return max(1, kept)

    def dropped_mass(self, kept: int) -> float:
        """Return the mass of all except the `kept` most probable tokens."""
        if kept not in self._dropped:
            mass = float(self._descending[:kept].sum())
            self._dropped[kept] = max(0.0, 1.0 - mass)
        return self._dropped[kept]

    def top(self, kept: int) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
        """Return the `kept` most probable tokens and their q, descending."""
        return self._order[:kept], self._descending[:kept]

    def send(self, keep: Rule, resolution: int, state: float | None = None) -> Sent:
        """Return the lattice point nearest to the tokens that a rule keeps."""
        point = self.kept(keep, state), resolution
        if point not in self._points:
            self._points[point] = self._lattice(*point)
        return self._points[point]

    def send_all(self, resolution: int) -> Sent:
        """Return the lattice point nearest to the whole distribution."""
        return self._lattice(self.q.size, resolution)

    def send_raw(self, k: int) -> Loss:
        """Return the loss of the K most probable tokens in fp16, renormalized."""
        half = self._descending[:k].astype(np.float16).astype(np.float64)
        return self.judge(self._order[:k], half / half.sum())

    def _lattice(self, kept: int, resolution: int) -> Sent:
        # Quantizing only the kept tokens saves a pass over the vocabulary per setting.
        ids = np.sort(self._order[: max(2, kept)])  # no vocabulary is smaller
        probs = self.q[ids] / self.q[ids].sum()
        small = codec(len(ids), resolution, "bitpack")
        few = small.quantize_probs(probs, sqs.TopK(kept))
        q = sqs.SparseDistribution(ids[few.token_ids], few.counts, self.q.size)
        return Sent(q, kept, self.judge(q.token_ids, q.probs))

    def judge(self, ids: NDArray[np.uint32], probs: NDArray[np.float64]) -> Loss:
        """Return the loss of sending these tokens and probabilities, [k] each."""
        lost = np.maximum(0.0, probs - self.q[ids]).sum()
        return Loss(float(lost), float(np.minimum(probs, self.p[ids]).sum()))


@cache
def codec(
    vocab_size: int, resolution: int, coding: str, prior: sqs.Prior | None = None
) -> sqs.Codec:
    """Return a codec, the same one for the same parameters."""
    return sqs.Codec(vocab_size, resolution, coding, prior)


def enumerative_bits(q: sqs.SparseDistribution) -> float:
    """Return `Codec.bits` of the enumerative coding; infinite beyond its limit."""
    ranks = codec(q.vocab_size, q.resolution, "enumerative")
    return ranks.bits(q) if len(q.counts) <= ranks.max_survivors else math.inf


@cache
def paper_bits(vocab_size: int, kept: int, resolution: int, conformal: bool) -> int:
    """Return `theory.paper_bits`, cached because its binomials are large."""
    return theory.paper_bits(vocab_size, kept, resolution, conformal=conformal)


@cache
def dense_bits(vocab_size: int, resolution: int) -> int:
    """Return the bits of QS, a lattice point of the whole vocabulary.

    That is ceil(log2 C(l+V-1, V-1)) (arXiv 2507.00605).
    """
    return theory.paper_count_bits(vocab_size, resolution)


def raw_bits(vocab_size: int, k: int) -> int:
    """Return the bits of k fp16 probabilities and ids of 16 bits, or of 32."""
    return k * (RAW_BITS if vocab_size <= 1 << 16 else RAW_BITS + 16)


# Formats


class Wire(NamedTuple):
    """A position in some format."""

    bits: float
    """Bits of the distribution, and the expected bits of the sampled token."""
    token_ids: NDArray[np.uint32]
    probs: NDArray[np.float64]
    """Probabilities of the ids, [K], with sum 1."""


class Format(NamedTuple):
    """A scheme with parameters, and its name."""

    name: str
    send: Callable[[Row], Wire]

    def position(self, row: Row) -> tuple[float, float]:
        """Return its bits with a token, and the probability of acceptance."""
        wire = self.send(row)
        right = np.minimum(row.p[wire.token_ids], wire.probs).sum()
        return wire.bits, float(right)


class Compressor(NamedTuple):
    """DistillKit's compressed logits, reimplemented.

    With ``residual_bins: []`` and ``delta_encoding: false``, the first
    log-probabilities are bfloat16. The others are fitted with least squares over powers
    of the rank, in float32. Ids have the minimum number of bits.
    """

    k: int
    """The number of kept tokens."""
    exact: int
    """The number of bfloat16 log-probabilities."""
    powers: tuple[float, ...]
    """Terms of the curve."""

    def size(self, vocab_size: int) -> int:
        """Return the bytes of a position; its two parts have whole bytes."""
        ids = min(self.k, vocab_size) * place_bits(vocab_size)
        return 2 * self.exact + 4 * len(self.powers) + -(-ids // 8)

    def back(self, probs: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return decoded rows [n, k], descending and not renormalized."""
        logs = np.log(np.maximum(probs, np.finfo(np.float32).tiny)).astype(np.float32)
        ranks = np.arange(logs.shape[1] - self.exact, dtype=np.float32)
        curves = np.stack([ranks**power for power in self.powers], -1)
        u, s, v = np.linalg.svd(curves, full_matrices=False)
        inverse = np.where(s > 1e-5, 1 / s, 0).astype(np.float32)
        weights = (logs[:, self.exact :] @ u * inverse) @ v
        first = bfloat16(logs[:, : self.exact])
        return np.exp(np.hstack([first, weights @ curves.T]).astype(np.float64))


COMPRESSORS = {
    "recommended": Compressor(128, 16, (0, 1, 2, 3, 4, 0.5)),
    "budget": Compressor(50, 1, (0, 1, 0.5)),
}
"""The README of github.com/arcee-ai/DistillKit states about 300 and 114 bytes."""


def formats(vocab_size: int) -> list[Format]:
    """Return the other formats with their parameters."""
    ks = (min(k, vocab_size) for k in (1, 2, 4, 16, 64))
    return [
        Format("dense fp16", partial(raw, k=vocab_size)),
        *(Format(f"QS l={r}", partial(qs, resolution=r)) for r in (16, 100, 1000)),
        *(Format(f"raw top-K K={k}", partial(raw, k=k)) for k in ks),
        *(
            Format(f"DistillKit {name}", partial(distillkit, how=how))
            for name, how in COMPRESSORS.items()
        ),
    ]


def ours(setting: session.Setting) -> Format:
    """Return the format of rounds with a setting."""
    codec, keep = setting.codec, setting.keep
    k = keep.k if isinstance(keep, sqs.TopK) else keep

    def send(row: Row) -> Wire:
        q = row.send(keep, codec.resolution).q
        entropy = -float(q.probs @ np.log2(q.probs))
        return Wire(codec.bits(q) + entropy, q.token_ids, q.probs)

    return Format(f"ours K={k}, l={codec.resolution}", send)


def qs(row: Row, resolution: int) -> Wire:
    """Send the lattice point nearest to the whole distribution (arXiv 2507.00605)."""
    q = row.send_all(resolution).q
    bits = dense_bits(q.vocab_size, resolution) + place_bits(len(q.counts))
    return Wire(bits, q.token_ids, q.probs)


def raw(row: Row, k: int) -> Wire:
    """Send ids and fp16 probabilities of the K most probable tokens, or of all."""
    ids, probs = row.top(k)
    half = probs.astype(np.float16).astype(np.float64)
    bits = 16 * k if k == row.q.size else raw_bits(row.q.size, k)
    return Wire(bits + place_bits(k), ids, half / half.sum())


def distillkit(row: Row, how: Compressor) -> Wire:
    """Send the K most probable tokens as DistillKit's compressed logits."""
    ids, probs = row.top(min(how.k, row.q.size))
    back = how.back(probs[None])[0]
    bits = 8 * how.size(row.q.size) + place_bits(len(ids))
    return Wire(bits, ids, back / back.sum())


def bfloat16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round numbers to bfloat16, ties to even.

    >>> bfloat16(np.array([1.0, -3.1415927], np.float32)).tolist()
    [1.0, -3.140625]
    """
    bits = values.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.astype(np.uint32).view(np.float32)


def place_bits(count: int) -> int:
    """Return ceil(log2 n), the bits of an index below n.

    >>> [place_bits(n) for n in (1, 2, 3, 49152)]
    [0, 1, 2, 16]
    """
    return (count - 1).bit_length()
