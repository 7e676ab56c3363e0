r"""What a plan costs and gives: seconds and tokens of a round, on average.

Let :math:`r_i` be the probability that the first i drafted tokens are accepted. A
round of L gives :math:`\sum_{i=0}^{L} r_i` tokens: those accepted, and the cloud's own.
Its seconds follow its messages: segment j leaves when it is drafted and the one before
it has left, takes its bits times the seconds per bit, reaches the cloud half a round
trip later, is verified when the one before it is, and is answered another half later.
Segment j ends the round with probability :math:`r_{start} - r_{end}`, the last one
with what is left. To ask for a distribution takes a round trip, its bits and a
verification of its own.

What drafts are like comes from real ones, the rows of ``drafts.npz`` beside this file,
which are quantized by the session's own settings.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sqs_codec._base import checks
from sqs_codec._codec.distribution import SparseDistribution
from sqs_codec.session._wire import SEGMENT_HEAD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sqs_codec.session._edge import Setting

    Floats = NDArray[np.float64]
    Logits = NDArray[np.float32]
    Integers = NDArray[np.int64]

__all__ = ["Candidates", "Conditions", "Target", "answers", "measure", "reach"]

LENGTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
PARTS = (1, 2, 4)
EAGER = (0.0, 0.7, 1.0)

HEADER_BITS = 8 * SEGMENT_HEAD

COUNT_BITS = 4.0
"""Of a token without its distribution, beyond what the distribution that holds it alone
takes: its count. Over rounds of five, 2.5 to 7 by resolution and temperature."""

FADE, FADED = 0.95, 0.82
"""After i accepted tokens a rejection is 0.95^i times as likely as at the first one,
and at least 0.82 times: where the draft is right it goes on being right. Measured on
the rows of SmolLM2 in ``benchmarks``, at three temperatures."""

SHORTEST_STEP = 1e-4
"""Seconds; what a target takes for a token at least."""

UNIT = 2.0**-6
"""What an int16 logit of the rows counts."""

ROWS_VOCAB = 49_152
"""V of the rows; their ids are stretched to the codec's V."""


@dataclass(frozen=True)
class Candidates:
    """Plans side by side, int64 [P] each; `eager` is a place in `EAGER`."""

    length: Integers
    setting: Integers
    segment: Integers
    eager: Integers

    @classmethod
    def of(cls, settings: int, max_draft: int) -> Candidates:
        """Return all plans that are compared."""
        found = {
            (length, setting, -(-length // parts), eager)
            for length in LENGTHS
            for setting in range(settings)
            for parts in PARTS
            for eager in range(len(EAGER))
            if length <= max_draft
        }
        return cls(*np.array(sorted(found)).T)


@dataclass(frozen=True)
class Table:
    """What drafts are like; float64 [S] or, with a threshold of `EAGER`, [S, E].

    Attributes
    ----------
    mismatch : float
        Total variation between the two models.
    lost : ndarray [S]
        Total variation between what the draft says and what is left of it.
    bits : ndarray [S, E]
        Of a position of a packet: token and distribution, or token and count.
    wanted : ndarray [S, E]
        Share of the rejections at positions that lack their distribution.
    wanted_bits : ndarray [S, E]
        Of such a distribution.
    """

    mismatch: float
    lost: Floats
    bits: Floats
    wanted: Floats
    wanted_bits: Floats

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


@dataclass(frozen=True)
class Conditions:
    """What rounds meet: seconds, and the bits around a message."""

    trip: float
    per_bit: float
    overhead: float
    draft_step: float
    target: Target


def reach(plans: Candidates, table: Table) -> Floats:
    """Return the probability that the first i tokens are accepted, [P, i]."""
    rejected = table.rejected[plans.setting][:, None]
    reached = np.cumprod(1 - rejected * fade(int(plans.length.max())), axis=1)
    return np.hstack([np.ones_like(rejected), reached])


def fade(length: int) -> Floats:
    """Return how likely a rejection is at each position, beside the first one."""
    return np.asarray(np.maximum(FADED, FADE ** np.arange(length)))


def tokens(plans: Candidates, reached: Floats) -> Floats:
    """Return the tokens of a round on average, [P]."""
    sums = reached.cumsum(axis=1)
    return np.asarray(sums[np.arange(len(sums)), plans.length])


def seconds(
    plans: Candidates, table: Table, reached: Floats, given: Conditions
) -> Floats:
    """Return the seconds of a round on average, [P]."""
    at = plans.setting, plans.eager
    plan = np.arange(plans.length.size)
    message = HEADER_BITS + given.overhead
    ends = [np.minimum(n * plans.segment, plans.length) for n in range(1 + max(PARTS))]
    segments = [
        (
            end * given.draft_step,
            (end - start) * table.bits[at] + message,
            end - start + 1,
        )
        for start, end in itertools.pairwise(ends)
    ]
    goes_on = [np.where(n < plans.length, reached[plan, n], 0.0) for n in ends]
    answered = answers(segments, given.trip, given.per_bit, given.target)
    total = sum(
        (here - after) * when
        for here, after, when in zip(goes_on, goes_on[1:], answered, strict=False)
    )
    again = given.trip + given.target(2)
    again = again + (table.wanted_bits[at] + message) * given.per_bit
    asked = (1 - reached[plan, plans.length]) * table.wanted[at]
    return np.asarray(total + asked * again)


def answers(
    segments: Iterable[tuple[Floats | float, Floats | float, Integers | int]],
    trip: Floats | float,
    per_bit: Floats | float,
    target: Target,
) -> Iterator[Floats]:
    """Yield when the answer to each segment comes if it ends the round.

    Parameters
    ----------
    segments : iterable of (ready, bits, tokens)
        When it is drafted, how long it is, and how many tokens the target reads.
    """
    sent = verified = np.zeros(())
    for ready, bits, read in segments:
        sent = np.maximum(sent, ready) + bits * per_bit
        verified = np.maximum(verified, sent + trip / 2) + target(read)
        yield np.asarray(verified + trip / 2)


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
    columns = np.moveaxis(np.array(found), 0, -1)  # [S, 5, rows]
    tables = [_columns(column, np.array(rejected)) for column in columns]
    lost, *others = map(np.array, zip(*tables, strict=True))
    return Table(float(np.mean(rejected)), lost, *others)


def _quantized(
    setting: Setting,
    draft: Logits,
    probs: Logits,
    temperature: float,
    rng: np.random.Generator,
) -> tuple[float, ...]:
    """Return what a row loses, its largest probability, and three numbers of bits.

    They are those of the distribution, of the token drawn from it, and of that token
    and its count alone.
    """
    q = setting.codec.quantize(draft, setting.keep, temperature=temperature)
    token = q.sample(rng)
    alone = SparseDistribution([token], [q.resolution], q.vocab_size)
    return (
        1 - float(np.minimum(probs[q.token_ids], q.probs).sum()),
        int(q.counts.max()) / q.resolution,
        setting.codec.bits(q),
        -math.log2(q.prob(token)),
        setting.codec.bits(alone) + COUNT_BITS,
    )


def _columns(found: Floats, rejected: Floats) -> tuple[float, Floats, Floats, Floats]:
    """Return what `Table` has for a setting, from `_quantized` of all rows, [5, N]."""
    lost, peak, bits, of_token, alone = found
    sent = peak <= np.array(EAGER)[:, None]
    missed = np.where(sent, 0, rejected)
    share = np.maximum(missed.sum(1), 1e-9)
    return (
        float(lost.mean()),
        np.where(sent, bits + of_token, alone).mean(1),
        missed.sum(1) / max(float(rejected.sum()), 1e-9),
        (missed * bits).sum(1) / share,
    )


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
    """Return the probabilities of logits whose largest is 0, [V]."""
    if temperature == 0:
        weights = (logits == logits.max()).astype(np.float32)
    else:
        weights = np.exp(logits / temperature)
    return np.asarray(weights / weights.sum())
