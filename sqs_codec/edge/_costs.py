r"""What a plan gives, and what it costs: the tokens of a round on average, its bits.

Let :math:`r_i` be the probability that the first i drafted tokens are accepted. A
round of L gives :math:`\sum_{i=0}^{L} r_i` tokens: those accepted, and the cloud's own.

What drafts are like comes from real ones, the rows of ``drafts.npz`` beside this file,
which are quantized by the session's own settings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sqs_codec._base import checks
from sqs_codec.session._wire import ROUND_HEAD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sqs_codec.session._setting import Setting

    Floats = NDArray[np.float64]
    Logits = NDArray[np.float32]
    Integers = NDArray[np.int64]

__all__ = ["LENGTHS", "Table", "Target", "fade", "measure", "tokens"]

LENGTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
"""Those that are compared, with each setting."""

HEADER_BITS = 8 * ROUND_HEAD

FADE, FADED = 0.95, 0.82
"""After i accepted tokens a rejection is 0.95^i times as likely as at the first one,
and at least 0.82 times: where the draft is right it goes on being right. Measured on
the rows of SmolLM2 in ``benchmarks``, at three temperatures."""

SHORTEST_STEP = 1e-4
"""Seconds; what a target takes for a token at least."""

UNIT = 2.0**-6
"""What an int16 logit of the rows counts."""

COLDEST = 1e-30
"""A temperature at which the largest logit has all probability, as at 0, and by which
a float32 can be divided."""

ROWS_VOCAB = 49_152
"""V of the rows; their ids are stretched to the codec's V."""


@dataclass(frozen=True)
class Table:
    """What drafts are like; float64 [S].

    Attributes
    ----------
    mismatch : float
        Total variation between the two models.
    lost : ndarray [S]
        Total variation between what the draft says and what is left of it.
    bits : ndarray [S]
        Of a position of a packet: token and distribution.
    """

    mismatch: float
    lost: Floats
    bits: Floats

    @property
    def rejected(self) -> Floats:
        """Probability that the first token of a round is rejected, [S].

        The two variations add up as errors that know nothing of each other do: within
        a hundredth on SmolLM2's rows, from 4 to 64 tokens and at three temperatures.
        """
        return np.clip(np.hypot(self.mismatch, self.lost), 0.001, 0.999)


@dataclass(frozen=True)
class Target:
    """Seconds of the target: for one token, and for each more at once."""

    first: float
    more: float

    @classmethod
    def of(cls, steps: Mapping[int, float]) -> Target:
        """Return the line through the fewest and the most tokens measured."""
        for tokens, taken in steps.items():
            checks.in_range("target_steps: tokens", tokens, 1)
            checks.finite("target_steps: seconds", taken, 0, math.inf)
        least, most = min(steps), max(steps)
        more = (steps[most] - steps[least]) / max(1, most - least)
        return cls(max(steps[least], SHORTEST_STEP), max(0.0, more))

    def __call__(self, tokens: Integers | int) -> Floats:
        """Seconds for so many tokens at once."""
        return np.asarray(self.first + self.more * (np.asarray(tokens) - 1.0))


def fade(length: int) -> Floats:
    """Return how likely a rejection is at each position, beside the first one."""
    return np.asarray(np.maximum(FADED, FADE ** np.arange(length)))


def tokens(lengths: Integers, rejected: Floats) -> Floats:
    """Return the tokens of rounds on average, by how likely their first is rejected."""
    # The probability that the first i tokens are accepted, [P, i].
    reached = np.cumprod(1 - rejected[:, None] * fade(int(lengths.max())), axis=1)
    sums = np.insert(reached, 0, 1.0, axis=1).cumsum(axis=1)
    return np.asarray(sums[np.arange(len(sums)), lengths])


def measure(settings: Sequence[Setting], temperature: float) -> Table:
    """Quantize the real drafts by each setting and see what they are like."""
    with np.load(Path(__file__).with_name("drafts.npz")) as file:
        rows = dict(file)
    rng = np.random.default_rng(0)
    found, rejected = [], []
    for draft, target in _logits(rows, settings[0].codec.vocab_size):
        p, q = _probs(target, temperature), _probs(draft, temperature)
        rejected.append(1 - np.minimum(p, q).sum())
        found.append([_quantized(s, draft, q, temperature, rng) for s in settings])
    lost, bits = np.array(found).mean(0).T  # [S] each
    return Table(float(np.mean(rejected)), lost, bits)


def _quantized(
    setting: Setting,
    draft: Logits,
    probs: Logits,
    temperature: float,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Return what a row loses, and the bits of its distribution and a token of it."""
    q = setting.codec.quantize(draft, setting.keep, temperature=temperature)
    lost = 1 - float(np.minimum(probs[q.token_ids], q.probs).sum())
    return lost, setting.codec.bits(q) - math.log2(q.prob(q.sample(rng)))


def _logits(
    rows: Mapping[str, NDArray[np.generic]], vocab_size: int
) -> Iterator[tuple[Logits, Logits]]:
    """Yield the logits of both models, [V] each, the same two arrays every time."""
    width = rows["ids"].shape[1]
    pair = np.empty((2, vocab_size), np.float32)
    for ids, draft, target, tails in zip(
        rows["ids"], rows["draft"], rows["target"], rows["tails"], strict=True
    ):
        places = ids.astype(np.int64) * vocab_size // ROWS_VOCAB
        pair[:] = (tails - np.log(max(1, vocab_size - width)))[:, None]
        # Where ids of a small vocabulary fall together, the likeliest one stays.
        pair[0, places[::-1]] = draft[::-1] * UNIT
        pair[1, places[::-1]] = target[::-1] * UNIT
        yield pair[0], pair[1]


def _probs(logits: Logits, temperature: float) -> Logits:
    """Return the probabilities of logits, [V]."""
    below = logits - logits.max()
    weights = np.exp(below / max(temperature, COLDEST))
    return np.asarray(weights / weights.sum())
