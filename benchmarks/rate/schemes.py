"""The ways to send a distribution, and the parameters that each is swept over.

A `Setting` is one choice of parameters; `Row` carries them out on one position at one
temperature. What is dropped and rounded depends on the setting alone, so that all
schemes of one setting share one distribution and differ in its bits only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from sqs_codec import theory

PAPER_KS = (*range(1, 17), *range(18, 33, 2), 40, 48, 64, 80, 96, 128, 192, 256)
PAPER_STEPS_PER_K = (1, 2, 4, 8, 16, 32)
PAPER_BETAS = tuple(2 ** (-i / 8) for i in range(4, 101))
PAPER_STEPS = (0.42, 0.5, 0.6, 0.7, 1.0, 1.4)
"""Resolution times beta: the counts of the least probable token kept."""

RESOLUTIONS = tuple(
    dict.fromkeys(round(2 ** (i / 8)) for i in (*range(80), *range(80, 105, 2)))
)
OUR_KS = (64, 256)
OUR_STEPS = 0.6  # as PAPER_STEPS

RULE_BETAS = tuple(2 ** (-i / 4) for i in range(4, 49))
RULE_ERROR_PER_BETA = 2
"""Above about 1 the rule hardly ever depends on its error: what was dropped is more."""

RDO_K = 256
RDO_RESOLUTIONS = (*(x for x in RESOLUTIONS if 4 <= x <= 512), *range(640, 4096, 384))
RDO_BITS_PER_STEP = (20, 64)
"""What a count more or less is worth at a fixed resolution: mu over resolution."""

RDO_MULTIPLIERS = tuple(2 ** (i / 2) for i in range(8, 33))
"""Where mu chooses the resolution too."""

RAW_KS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
RAW_BITS = 32
"""An fp16 probability and a 16-bit id; 48 where ids need more than 16 bits."""

DENSE_RESOLUTIONS = (16, 64, 256, 1024, 4096, 16384)

CANDIDATES = 512
"""How many of the most probable tokens are looked at where no more are kept."""


@dataclass(frozen=True)
class Setting:
    """Parameters of a scheme.

    Attributes
    ----------
    keep : Keep or None
        None keeps the whole vocabulary.
    resolution : int or None
        None where probabilities are sent as they are.
    error : float or None
        Of `Resolution`, in place of a fixed one.
    bits_per_tv : float or None
        The multiplier of the rate-distortion choice.
    """

    keep: sqs.TopK | sqs.Threshold | None
    resolution: int | None = None
    error: float | None = None
    bits_per_tv: float | None = None

    @property
    def chooser(self) -> str:
        """What chooses the counts: "fixed", "rule" or "rdo"."""
        if self.bits_per_tv is not None:
            return "rdo"
        return "fixed" if self.error is None else "rule"

    def codec(self, vocab_size: int) -> sqs.Codec:
        """Return the entropy codec that the setting needs."""
        return _entropy_codec(vocab_size, self.resolution, self.error)

    def __str__(self) -> str:
        parts = []
        if isinstance(self.keep, sqs.TopK):
            parts.append(f"K={self.keep.k}")
        elif self.keep:
            parts.append(f"beta={self.keep.beta:.2g}")
        if self.resolution is not None:
            parts.append(f"l={self.resolution}")
        if self.error is not None and self.bits_per_tv is None:
            parts.append(f"error={self.error:g}")
        if self.bits_per_tv is not None:
            parts.append(f"mu={self.bits_per_tv:g}")
        return ", ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """Return the parameters that the setting has."""
        named = {
            "k": getattr(self.keep, "k", None),
            "beta": getattr(self.keep, "beta", None),
            "resolution": self.resolution,
            "error": self.error,
            "bits_per_tv": self.bits_per_tv,
        }
        return {name: value for name, value in named.items() if value is not None}


SAME = Setting(sqs.TopK(64), 100)
"""Where all codings are compared on one distribution."""


RDO_ALONE = Setting(sqs.TopK(RDO_K), error=sqs.Resolution().error, bits_per_tv=2048.0)
"""Where the multiplier chooses everything; the rule's error then has no effect."""

TAKEN_APART = (SAME, RDO_ALONE)
"""Settings whose rounds are broken down into what they say."""


def paper_settings() -> Iterator[Setting]:
    """Yield what K-SQS and C-SQS are swept over."""
    yield SAME
    for k in PAPER_KS:
        for ratio in PAPER_STEPS_PER_K:
            yield Setting(sqs.TopK(k), k * ratio)
    for beta in PAPER_BETAS:
        for steps in PAPER_STEPS:
            yield from _threshold(beta, steps / beta)


def our_settings() -> Iterator[Setting]:
    """Yield what our codings are swept over."""
    yield SAME
    for resolution in RESOLUTIONS:
        for k in OUR_KS:
            yield Setting(sqs.TopK(k), resolution)
        yield Setting(sqs.Threshold(OUR_STEPS / resolution), resolution)
    for beta in RULE_BETAS:
        error = min(1.0, RULE_ERROR_PER_BETA * beta)
        yield Setting(sqs.Threshold(beta), error=error)
    for resolution in RDO_RESOLUTIONS:
        for bits in RDO_BITS_PER_STEP:
            mu = float(bits * resolution)
            yield Setting(sqs.TopK(RDO_K), resolution, bits_per_tv=mu)
    for mu in RDO_MULTIPLIERS:
        yield replace(RDO_ALONE, bits_per_tv=mu)


def _threshold(beta: float, resolution: float) -> Iterator[Setting]:
    if 1 <= round(resolution) <= 65536:
        yield Setting(sqs.Threshold(beta), round(resolution))


@dataclass(frozen=True)
class Loss:
    """What sending less than the whole distribution costs the speculation.

    Attributes
    ----------
    tv : float
        TV(q, q^) over the whole vocabulary, of the draft's distribution and the sent.
    acceptance : float
        sum_x min(p(x), q^(x)), p being the target's; NaN if it is not known.
    """

    tv: float
    acceptance: float


@dataclass(frozen=True)
class Sent:
    """What one position would send.

    Attributes
    ----------
    q : SparseDistribution
    kept : int
        K, of which `q` holds those that have a count.
    loss : Loss
    """

    q: sqs.SparseDistribution
    kept: int
    loss: Loss


def softmax(logits: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Return the probabilities of one row at a temperature above 0, [V]."""
    x = np.asarray(logits, np.float64) / temperature
    x = np.exp(x - x.max())
    return np.asarray(x / x.sum())


class Row:
    """One position at one temperature.

    Parameters
    ----------
    draft : array_like, [V]
        Logits.
    target : array_like, [V], or None
    temperature : float
        Of both.
    """

    def __init__(
        self,
        draft: NDArray[np.floating],
        target: NDArray[np.floating] | None,
        temperature: float,
    ) -> None:
        self.q = softmax(draft, temperature)
        self.p = None if target is None else softmax(target, temperature)
        few = np.argpartition(-self.q, min(CANDIDATES, self.q.size) - 1)[:CANDIDATES]
        few.sort()
        self._top = few[np.argsort(-self.q[few], kind="stable")].astype(np.uint32)
        self._ascending = self.q[self._top[::-1]]
        self._kept: dict[int, tuple[NDArray[np.uint32], NDArray[np.float64]]] = {}
        self._points: dict[tuple[int, int], Sent] = {}

    def kept(self, keep: sqs.TopK | sqs.Threshold) -> int:
        """Return K, the tokens that a rule keeps."""
        if isinstance(keep, sqs.TopK):
            return min(keep.k, self.q.size)
        if keep.beta <= self._ascending[0]:
            return int(np.count_nonzero(self.q >= keep.beta))
        least = int(np.searchsorted(self._ascending, keep.beta))
        return max(1, self._ascending.size - least)

    def lattice(self, keep: sqs.TopK | sqs.Threshold, resolution: int) -> Sent:
        """Return the lattice point nearest to the tokens kept."""
        kept = self.kept(keep)
        known = self._points.get((kept, resolution))
        if known is None:
            known = self._lattice(kept, resolution)
            self._points[kept, resolution] = known
        return known

    def _lattice(self, kept: int, resolution: int) -> Sent:
        # A rule keeps the most probable tokens, whatever else there is: quantizing
        # these alone spares a pass over the vocabulary for each setting.
        ids, probs = self._most_probable(kept)
        few = _codec(len(ids), resolution, "bitpack").quantize_probs(
            probs, sqs.TopK(kept)
        )
        q = sqs.SparseDistribution(ids[few.token_ids], few.counts, self.q.size)
        return self._sent(q, kept)

    def _most_probable(
        self, kept: int
    ) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
        """Return at least `kept` tokens by ascending id, renormalised."""
        if kept > len(self._top):
            return np.arange(self.q.size, dtype=np.uint32), self.q
        if kept not in self._kept:
            ids = np.sort(self._top[: max(2, kept)])  # no vocabulary is smaller
            self._kept[kept] = ids, self.q[ids] / self.q[ids].sum()
        return self._kept[kept]

    def dense(self, resolution: int) -> Sent:
        """Return the lattice point nearest to the whole distribution."""
        return self._lattice(self.q.size, resolution)

    def raw(self, k: int) -> Loss:
        """Judge the K most probable tokens in fp16, renormalised."""
        top = self._top[:k]
        half = self.q[top].astype(np.float16).astype(np.float64)
        return self._judge(top, half / half.sum())

    def send(self, setting: Setting) -> Sent:
        """Return what our codec sends."""
        assert setting.keep is not None
        if setting.chooser == "fixed":
            assert setting.resolution is not None
            return self.lattice(setting.keep, setting.resolution)
        codec = setting.codec(self.q.size)
        q = codec.quantize_probs(self.q, setting.keep, bits_per_tv=setting.bits_per_tv)
        return self._sent(q, self.kept(setting.keep))

    def _sent(self, q: sqs.SparseDistribution, kept: int) -> Sent:
        return Sent(q, kept, self._judge(q.token_ids, q.probs))

    def _judge(self, ids: NDArray[np.uint32], probs: NDArray[np.float64]) -> Loss:
        acceptance = math.nan
        if self.p is not None:
            acceptance = float(np.minimum(probs, self.p[ids]).sum())
        return Loss(float(np.maximum(0.0, probs - self.q[ids]).sum()), acceptance)


@cache
def _entropy_codec(
    vocab_size: int, resolution: int | None, error: float | None
) -> sqs.Codec:
    if error is not None:
        return sqs.Codec(vocab_size, sqs.Resolution(error), "entropy")
    assert resolution is not None
    return sqs.Codec(vocab_size, resolution, "entropy")


@cache
def _codec(vocab_size: int, resolution: int, coding: str) -> sqs.Codec:
    return sqs.Codec(vocab_size, resolution, coding)


def enumerative_bits(q: sqs.SparseDistribution) -> float:
    """Return `Codec.bits` of the enumerative coding; infinite beyond its limit."""
    codec = _codec(q.vocab_size, q.resolution, "enumerative")
    if len(q.counts) > codec.max_support:
        return math.inf
    return codec.bits(q)


@cache
def paper_bits(vocab_size: int, kept: int, resolution: int, conformal: bool) -> int:
    """Return `theory.paper_bits`, remembered: its binomials are long numbers."""
    return theory.paper_bits(vocab_size, kept, resolution, conformal=conformal)


@cache
def dense_bits(vocab_size: int, resolution: int) -> int:
    """Return the bits of QS: a lattice point of the whole vocabulary.

    Notes
    -----
    Source: arXiv 2507.00605; ceil(log2 C(l+V-1, V-1)).
    """
    return theory.paper_count_bits(vocab_size, resolution)


def raw_bits(vocab_size: int, k: int) -> int:
    """Return the bits of k fp16 probabilities and ids of 16 bits, or of 32."""
    return k * (RAW_BITS if vocab_size <= 1 << 16 else RAW_BITS + 16)
