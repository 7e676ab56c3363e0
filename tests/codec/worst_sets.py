"""The dearest sets of the uniform set coding, against their rank.

What a member takes depends only on t, how many numbers there are from the first
possible one on, on m, how many members are still to come, and on s, how many numbers
there are from the member on. After it, t is s - 1 and m is m - 1. So with d(t, m) for
the most that a set of m out of t can take beyond log2 C(t, m),

    d(t, m) = max over s of: bits(t, m, s) - log2 C(t, m) / C(s - 1, m - 1)
                             + d(s - 1, m - 1).

That is exact. ``docs/theory.md``, section 7, compares it with what it proves.
"""

import math

import numba
import numpy as np
from numpy.typing import NDArray

from sqs_codec._backend.numba.fixed import ONE, log2
from sqs_codec._backend.numba.model import POWER_UNIT
from sqs_codec._backend.numba.sets import cumulative, rest, uniform_model


@numba.njit(nogil=True)
def member_bits(t, m, bits):
    """Set bits[s], for s from m to t, to what the next member takes."""
    model = uniform_model(t)
    log_a = log2(rest(model, 0, m))
    e = t - m + 1
    scale = ONE - e
    start = 0
    for s in range(t, m - 1, -1):
        x = t - s
        end = cumulative(model, log_a, m, e, scale, x + 1) if x + 1 < e else ONE
        bits[s] = POWER_UNIT - math.log2(end - start)
        start = end


@numba.njit(nogil=True)
def dearest_member(t, m, logs, ahead, place):
    """Return the s that attains d(t, m), what is added there, and d(t, m).

    `logs` has log2(i) for i from 1 on, `ahead` d(., m - 1) at some sizes, and `place`
    which of these to take for a size.
    """
    bits = np.empty(t + 1)
    member_bits(t, m, bits)
    share = logs[t] - logs[m]  # of log2 C(t, m)
    best, most, added = t, -math.inf, 0.0
    for s in range(t, m - 1, -1):
        excess = bits[s] - share
        if excess + ahead[place[s - 1]] > most:
            best, most, added = s, excess + ahead[place[s - 1]], excess
        if s > m:
            share += logs[s - 1] - logs[s - m]
    return best, added, most


@numba.njit(nogil=True)
def excesses(sizes, members):
    """Return d(t, m) and how to look it up.

    With sizes [j] ascending from 0 that is d, [m, j], at t = sizes[j] for m up to
    `members`, 0 where there are fewer than m numbers; and the place [t]: the j of t, or
    of the last size below it.
    """
    most = sizes[-1]
    place = np.searchsorted(sizes, np.arange(most + 1), side="right") - 1
    logs = np.log2(np.maximum(np.arange(most + 1), 1))
    d = np.zeros((members + 1, sizes.size))
    for m in range(1, members + 1):
        for j in range(sizes.size):
            if sizes[j] > m:  # else there is one set at most
                d[m, j] = dearest_member(sizes[j], m, logs, d[m - 1], place)[2]
    return d, place


def dearest_set(
    d: NDArray[np.float64], place: NDArray[np.int64], size: int, n: int
) -> tuple[list[int], float]:
    """Return the set of n out of `size` that `excesses` found, and its excess."""
    logs = np.log2(np.maximum(np.arange(size + 1), 1))
    members: list[int] = []
    excess, t = 0.0, size
    for m in range(n, 0, -1):
        s = m
        if t > m:
            s, added, _ = dearest_member(t, m, logs, d[m - 1], place)
            excess += added
        members.append(size - s)
        t = s - 1
    return members, excess
