"""What a round gives, and what it costs: its tokens on average, its bits.

What drafts are like comes from real ones, the rows of ``drafts.npz`` beside this file,
which are quantized by the session's own settings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqs_codec.system.session import ROUND_HEAD, Setting

Floats = NDArray[np.float64]
Logits = NDArray[np.float32]
Integers = NDArray[np.int64]

LENGTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
"""Those that are compared, with each setting."""

VERDICT, TOKEN, ASK = 4, 7, 3  # bytes of messages; the last asks for tokens
ASKED = 3  # so many at once on a short trip

UNIT = 2.0**-6  # what an int16 logit of the rows counts

COLDEST = 1e-30
"""A temperature at which the largest logit has all probability, as at 0, and by which
a float32 can be divided."""

ROWS_VOCAB = 49_152  # V of the rows; their ids are stretched to the codec's V


class Table(NamedTuple):
    """What drafts are like by each setting; float64 [S]."""

    rejected: Floats  # probability that a token is rejected
    bits: Floats  # of a position of a packet: token and distribution


def tokens(lengths: Integers, rejected: Floats) -> Floats:
    """Return the tokens of rounds on average, by how likely each is rejected."""
    return np.asarray((1 - (1 - rejected) ** (lengths + 1)) / rejected)


def rounds(lengths: Integers, bits: Floats, overhead: int) -> Floats:
    """Return the bytes of rounds up and down, by the bits of a position."""
    return lengths * bits / 8 + ROUND_HEAD + VERDICT + 2 * overhead


def alone(overhead: int) -> float:
    """Return the bytes of a token up and down, where the cloud decodes alone."""
    return TOKEN + overhead + (ASK + overhead) / ASKED


def measure(settings: Sequence[Setting], temperature: float) -> Table:
    """Quantize the real drafts by each setting and see what they are like."""
    with np.load(Path(__file__).with_name("drafts.npz")) as file:
        rows = dict(file)
    rng = np.random.default_rng(0)
    found = [
        [_quantized(setting, draft, target, temperature, rng) for setting in settings]
        for draft, target in _logits(rows, settings[0].codec.vocab_size)
    ]
    return Table(*np.array(found).mean(0).T)


def _quantized(
    setting: Setting,
    draft: Logits,
    target: Logits,
    temperature: float,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Return how often a row is rejected, and its bits with a token of it."""
    q = setting.codec.quantize(draft, setting.keep, temperature=temperature)
    p = _probs(target, temperature)
    rejected = 1 - float(np.minimum(p[q.token_ids], q.probs).sum())
    return rejected, setting.codec.bits(q) - math.log2(q.prob(q.sample(rng)))


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
    below = logits - logits.max()
    weights = np.exp(below / max(temperature, COLDEST))
    return np.asarray(weights / weights.sum())
