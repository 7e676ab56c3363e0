"""What is sent of a draft: bits, and the distribution that both ends hold.

Every format but one leaves both ends with a distribution q^, from which the token was
drawn and against which it is judged: so all of them are lossless, and differ in bits
and in how often a token is accepted. With shared randomness there is no q^: both ends
draw with the same numbers, and a draft is right if they draw the same token.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from benchmarks.rate.schemes import Row, dense_bits, raw_bits
from sqs_codec.system.session import Setting

DENSE, QS, RAW, DISTILLKIT = "dense fp16", "QS", "raw top-K", "DistillKit"

FP16_BITS, BFLOAT16_BITS, FLOAT32_BITS = 16, 16, 32

QS_RESOLUTIONS = (16, 100, 1000)
"""For thin links, as our middle setting has it, and where next to nothing is lost."""

RAW_KS = (1, 2, 4, 16, 64)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Held:
    """A distribution that both ends hold."""

    token_ids: NDArray[np.uint32]
    probs: Floats
    """[K] as the ids; they sum to 1."""

    def prob(self, token: int) -> float:
        """Return the probability of a token, 0 if it isn't among those held."""
        return float(self.probs[self.token_ids == token].sum())


class Wire(NamedTuple):
    """A position as it is sent."""

    bits: float
    """Of the distribution."""
    token_bits: float
    """Of the token that was drawn from it, as expected."""
    q: Held | sqs.SparseDistribution


class Format(NamedTuple):
    """A way to send a position, and its parameters in words."""

    name: str
    variant: str
    send: Callable[[Row], Wire]

    def position(self, row: Row) -> tuple[float, float]:
        """Return its bits with a token, and how probable that is accepted."""
        wire = self.send(row)
        right = np.minimum(row.p[wire.q.token_ids], wire.q.probs).sum()
        return wire.bits + wire.token_bits, float(right)


@dataclass(frozen=True)
class Compressor:
    """Parameters of DistillKit's compressed logits."""

    k: int
    """Tokens kept."""
    exact: int
    """How many of them have their log-probability in bfloat16."""
    powers: tuple[float, ...]
    """Terms of the curve through the others, with coefficients in float32."""

    def bits(self, vocab_size: int) -> int:
        """Return the bits of a position, each of its two parts in whole bytes."""
        numbers = self.exact * BFLOAT16_BITS + len(self.powers) * FLOAT32_BITS
        ids = min(self.k, vocab_size) * place_bits(vocab_size)
        return 8 * (-(-numbers // 8) + -(-ids // 8))


COMPRESSORS = {
    "recommended": Compressor(128, 16, (0, 1, 2, 3, 4, 0.5)),
    "budget": Compressor(50, 1, (0, 1, 0.5)),
}
"""Of the README of github.com/arcee-ai/DistillKit: about 300 and 114 bytes."""


def formats(vocab_size: int) -> list[Format]:
    """Return the formats of others, each with the parameters that it is tried with."""
    return [
        Format(DENSE, "", dense_fp16),
        *(Format(QS, f"l={r}", partial(qs, resolution=r)) for r in QS_RESOLUTIONS),
        *(Format(RAW, f"K={k}", partial(raw, k=min(k, vocab_size))) for k in RAW_KS),
        *(
            Format(DISTILLKIT, name, partial(distillkit, how=how))
            for name, how in COMPRESSORS.items()
        ),
    ]


def ours(setting: Setting) -> Format:
    """Return the format of rounds with a setting."""
    codec, keep = setting.codec, setting.keep
    k = keep.k if isinstance(keep, sqs.TopK) else keep

    def send(row: Row) -> Wire:
        q = row.send(keep, codec.resolution).q
        entropy = -float(q.probs @ np.log2(q.probs))
        return Wire(codec.bits(q), entropy, q)

    return Format("ours", f"K={k}, l={codec.resolution}", send)


def dense_fp16(row: Row) -> Wire:
    """Send every probability in fp16."""
    half = _half(row.q)
    every = Held(np.arange(half.size, dtype=np.uint32), half)
    return Wire(FP16_BITS * half.size, place_bits(half.size), every)


def qs(row: Row, resolution: int) -> Wire:
    """Send the lattice point nearest to the whole distribution (arXiv 2507.00605)."""
    q = row.send_all(resolution).q
    bits = dense_bits(q.vocab_size, resolution)
    return Wire(bits, place_bits(len(q.counts)), q)


def raw(row: Row, k: int) -> Wire:
    """Send the K most probable tokens: an id and a probability in fp16 each."""
    ids, probs = row.top(k)
    return Wire(raw_bits(row.q.size, k), place_bits(k), Held(ids, _half(probs)))


def distillkit(row: Row, how: Compressor) -> Wire:
    """Send the K most probable tokens as DistillKit's compressed logits.

    This reckons with the configuration that DistillKit's README publishes; none of its
    code is used. The log-probabilities of the first tokens are rounded to bfloat16. A
    curve goes through the sorted others by least squares, whose coefficients are
    rounded to float32. What comes back is renormalised over the K tokens. The places
    of the curve go from 0 to 1 and the fit is in float64, which is the best that these
    terms can do. Ids are packed at ceil(log2 V) bits.
    """
    ids, probs = row.top(min(how.k, row.q.size))
    logs = np.log(np.maximum(probs, np.finfo(np.float64).tiny))
    exact, tail = bfloat16(logs[: how.exact]), logs[how.exact :]
    places = np.linspace(0, 1, len(tail))[:, None] ** np.array(how.powers)
    terms = np.linalg.lstsq(places, tail, rcond=None)[0].astype(np.float32)
    logs = np.concatenate([exact, places @ terms.astype(np.float64)])
    back = np.exp(logs - logs.max())
    return Wire(
        how.bits(row.q.size), place_bits(len(ids)), Held(ids, back / back.sum())
    )


def bfloat16(values: NDArray[np.floating]) -> Floats:
    """Round numbers to bfloat16, ties to even.

    >>> bfloat16(np.array([1.0, -3.1415927])).tolist()
    [1.0, -3.140625]
    """
    bits = np.asarray(values, np.float32).view(np.uint32)
    even = (bits >> 16) & 1
    rounded = (bits + 0x7FFF + even) & np.uint32(0xFFFF0000)
    return rounded.astype(np.uint32).view(np.float32).astype(np.float64)


def coupled(p: Floats, q: Floats, token: int) -> float:
    """Return how probable a draft is right that shares its numbers with the cloud.

    Both ends draw by exponential clocks: E_i rings for each token, the edge takes the
    least E_i / q_i, the cloud the least E_i / p_i: Gumbel sampling, as in arXiv
    2408.07978. Given that the cloud draws y, its clock divided by p rings at a time t
    of density e^-t, and each other one later than p_i t; the edge takes the same token
    if each also rings later than q_i p_y t / q_y. So the probability is
    1 / sum_i max(p_i, q_i p_y / q_y), whose mean over y is (1 - TV) / (1 + TV) or more.
    """
    if q[token] == 0:
        return 0.0
    return float(1 / np.maximum(p, q * (p[token] / q[token])).sum())


def place_bits(count: int) -> int:
    """Return ceil(log2 n), what it takes to say which of n things it is.

    >>> [place_bits(n) for n in (1, 2, 3, 49152)]
    [0, 1, 2, 16]
    """
    return math.ceil(math.log2(count))


def _half(probs: Floats) -> Floats:
    """Return probabilities as they come back from fp16, renormalised."""
    half = probs.astype(np.float16).astype(np.float64)
    return np.asarray(half / half.sum())
