"""The bits and accepted tokens of rounds, by format and length, on real rows.

A position is accepted with probability sum_x min(p(x), q^(x)). It takes the bits of its
distribution and, on average, the entropy of the token sampled from it. These values
determine the distribution of rounds exactly. If a round of L starts at position i with
probability v_i, the next one starts at i + n + 1 with v_i times the probability of n
acceptances. This gives the mean numbers of rounds and bits per completion, which a link
converts to seconds. No formula of the planner is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.schemes import Format, Row
from sqs_codec.system._base.protocol import ROUND_HEAD
from sqs_codec.system.edge import FixedPlan
from tests.world import Steps

LENGTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
"""The compared lengths of rounds, in tokens."""

SETTLED = 96
"""Positions before counting begins."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rounds:
    """The expected cost of rounds per token, for S settings."""

    acceptance: Floats
    """The mean probability of acceptance, [S]."""
    per_token: Floats
    """Rounds per token, [S, LENGTHS]."""
    bits: Floats
    """Bits per token, [S, LENGTHS]."""

    @classmethod
    def of(cls, accepted: Floats, bits: Floats) -> Rounds:
        """Compute them from each position's probability and bits, [S, N]."""
        made = [_rounds(accepted, bits, length) for length in LENGTHS]
        per_token, sums = np.moveaxis(np.array(made), (1, 2), (0, 1))
        return cls(accepted.mean(1), per_token, sums)

    def seconds(self, rate: float, trip: float, steps: Steps, overhead: int) -> Floats:
        """Return the seconds per token, [S, LENGTHS].

        `rate` is the uplink in bits per second, `trip` the round-trip time in seconds,
        `overhead` the bytes of headers per message.
        """
        length = np.array(LENGTHS)
        models = length * steps.draft + steps.target + length * steps.more
        around = models + trip + 8 * (ROUND_HEAD + overhead) / rate
        return np.asarray(self.per_token * around + self.bits / rate)

    def fastest(
        self, rate: float, trip: float, steps: Steps, overhead: int
    ) -> FixedPlan:
        """Return the fastest rounds."""
        seconds = self.seconds(rate, trip, steps, overhead)
        setting, length = np.unravel_index(seconds.argmin(), seconds.shape)
        return FixedPlan(LENGTHS[length], int(setting))


def of_formats(rows: Iterable[Row], ways: Sequence[Format]) -> Rounds:
    """Send consecutive positions in every format."""
    found = np.array([[way.position(row) for way in ways] for row in rows])
    bits, accepted = np.moveaxis(found, (2, 1), (0, 1))
    return Rounds.of(accepted, bits)


def _rounds(accepted: Floats, bits: Floats, length: int) -> tuple[Floats, Floats]:
    """Return rounds and bits per token for each setting, from its positions [S, N].

    Positions form a circle. After `SETTLED` positions the first start no longer
    matters; then one lap is counted.
    """
    n = accepted.shape[1]
    around = np.arange(-SETTLED, n + length) % n
    accepted, bits = accepted[:, around], bits[:, around]
    begins = np.zeros((len(accepted), SETTLED + n + length + 1))
    begins[:, 0] = 1
    for i in range(SETTLED + n):
        here = begins[:, i, None]
        reached = np.cumprod(accepted[:, i : i + length], axis=1)
        reached = np.hstack([np.ones_like(here), reached, np.zeros_like(here)])
        begins[:, i + 1 : i + length + 2] += here * -np.diff(reached, axis=1)
    lap = np.arange(SETTLED, SETTLED + n)
    sums = np.hstack([np.zeros((len(bits), 1)), bits.cumsum(1)])
    sent = sums[:, lap + length] - sums[:, lap]
    return begins[:, lap].sum(1) / n, (begins[:, lap] * sent).sum(1) / n
