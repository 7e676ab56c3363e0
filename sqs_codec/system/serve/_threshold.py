"""What forward passes take, and so how sure a server has to be of a hint to read it."""

import math
from collections import deque
from collections.abc import Mapping

from sqs_codec.system._base.protocol import HINT_THRESHOLD, more_seconds

LEAST, MOST = 0.02, 0.95  # what it is in any case: measured times may be noise
MEMORY_SECONDS = 2.0  # how far back tokens count

PASSES, QUICK = 64, 6
"""How many of the last passes are looked at, and how many of them may have been quicker
than what is told. A quick pass is one that has waited for nothing."""


class PassTimes:
    """The seconds of forward passes that edges are told, from those that a server runs.

    `steps` are the seconds by number of tokens, as measured when the server started,
    and `told` what recent passes make of them. It changes in place.

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
        self._slower = deque([1.0] * PASSES, PASSES)  # than at first, so many times

    def count(self, tokens: int, seconds: float) -> None:
        """Take what a pass of so many tokens has taken."""
        if self.told is None:
            return
        least = min(self._first)
        first = self._first[least] + (tokens - least) * self._more
        self._slower.append(seconds / max(first, 1e-9))
        now = sorted(self._slower)[QUICK]
        self.told.update({n: now * took for n, took in self._first.items()})


class HintThreshold:
    """The chance from which on a hinted token is worth a row of the target.

    A further row makes a pass longer, by a time in which the server gives all of its
    sessions some tokens together: so many are lost by it. It gains one if it is
    reached. So the threshold is ``seconds of a further row * tokens per second``, and
    rises with the load by itself. Tokens per second are an exponential mean, and at
    least what passes of one session give.

    Steps are the seconds that the model takes by number of tokens. Without them the
    threshold stays as it is where nothing is known.

    >>> threshold = HintThreshold({1: 0.120, 6: 0.150})
    >>> round(threshold.at(0.0), 3)  # nobody was served: 0.006 / 0.120
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
        """Take that sessions have got tokens."""
        self._rate = self._rate_at(now) + tokens / MEMORY_SECONDS
        self._at = now

    def at(self, now: float) -> float:
        """Return the threshold."""
        if self._more is None:
            return HINT_THRESHOLD
        rate = max(self._rate_at(now), self._least)
        return min(max(self._more * rate, LEAST), MOST)

    def _rate_at(self, now: float) -> float:
        return self._rate * math.exp((self._at - now) / MEMORY_SECONDS)
