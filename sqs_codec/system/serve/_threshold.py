"""Times of forward passes, and the probability from which to verify a hinted token."""

import math
from collections import deque
from collections.abc import Mapping

from sqs_codec.system._base.protocol import HINT_THRESHOLD, more_seconds

LEAST, MOST = 0.02, 0.95  # bounds of the threshold: measured times may be noise
MEMORY_SECONDS = 2.0  # time constant of the mean of tokens per second

PASSES, QUICK = 64, 6
"""Number of recent forward passes, and how many of them may be quicker than the
estimate. The quickest passes didn't wait for other sessions."""


class PassTimes:
    """Seconds of forward passes for the edges' planners, from recent passes.

    `steps` are the seconds by number of tokens, measured when the server started.
    `told` is the present estimate; it changes in place.

    >>> passes = PassTimes({1: 0.1, 6: 0.15})
    >>> for _ in range(64):
    ...     passes.count(1, 0.2)
    >>> passes.told
    {1: 0.2, 6: 0.3}
    """

    def __init__(self, steps: Mapping[int, float] | None) -> None:
        self.told = dict(steps) if steps else None
        self._first = dict(steps or {})
        self._more = max(more_seconds(steps) or 0.0, 0.0)
        self._slower = deque([1.0] * PASSES, PASSES)  # seconds relative to `steps`

    def count(self, tokens: int, seconds: float) -> None:
        """Count a forward pass."""
        if self.told is None:
            return
        least = min(self._first)
        first = self._first[least] + (tokens - least) * self._more
        self._slower.append(seconds / max(first, 1e-9))
        now = sorted(self._slower)[QUICK]
        self.told.update({n: now * took for n, took in self._first.items()})


class HintThreshold:
    """The probability from which verifying a hinted token pays off.

    Each token to verify makes a forward pass longer. In that time the server could
    decode tokens of all its sessions. A hinted token gains one token if the target
    reaches it. So the threshold is ``seconds per further token * tokens per second``,
    which rises with the load. Tokens per second are an exponential mean, and at least
    the throughput of a single session.

    `steps` are the seconds of a forward pass by number of tokens. Without them the
    threshold is the constant `HINT_THRESHOLD`.

    >>> threshold = HintThreshold({1: 0.120, 6: 0.150})
    >>> round(threshold.at(0.0), 3)  # no load: 0.006 / 0.120
    0.05
    >>> for i in range(1000):
    ...     threshold.count(1, now=i / 50)
    >>> round(threshold.at(20.0), 2)  # 0.006 * 50
    0.3
    """

    def __init__(self, steps: Mapping[int, float] | None) -> None:
        self._more = more_seconds(steps)
        self._rate = 0.0
        self._least = 1 / max(steps[min(steps)], 1e-9) if steps else 0.0
        self._at = -math.inf

    def count(self, tokens: int, now: float) -> None:
        """Count tokens that sessions got."""
        self._rate = self._rate_at(now) + tokens / MEMORY_SECONDS
        self._at = now

    def at(self, now: float) -> float:
        """Return the present threshold."""
        if self._more is None:
            return HINT_THRESHOLD
        rate = max(self._rate_at(now), self._least)
        return min(max(self._more * rate, LEAST), MOST)

    def _rate_at(self, now: float) -> float:
        return self._rate * math.exp((self._at - now) / MEMORY_SECONDS)
