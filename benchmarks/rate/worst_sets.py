"""What the uniform sets of the entropy coding take at worst, against their rank.

    python -m benchmarks.rate.worst_sets 5000 2500
    python -m benchmarks.rate.worst_sets 65536 32
    python -m benchmarks.rate.worst_sets 1048576 40 --points 1500

The second takes some 20 minutes, the others a few.

Each line is the dearest of all sets of n out of N, in bits beyond log2 C(N, n): for
every n up to the second number, at the N up to the first where that is the most in per
cent. ``docs/theory.md``, section 7, compares this with what it proves.

What a member takes depends only on t, how many numbers there are from the first
possible one on, on m, how many members are still to come, and on s, how many numbers
there are from the member on. After it, t is s - 1 and m is m - 1. So with d(t, m) for
the most that a set of m out of t can take beyond log2 C(t, m),

    d(t, m) = max over s of: bits(t, m, s) - log2 C(t, m) / C(s - 1, m - 1)
                             + d(s - 1, m - 1).

That is exact. With ``--points``, it is worked out at so many sizes only, others take
that of the next smaller one, and N is always the first number. What is found so is what
a set takes, if not always the dearest.
"""

import math
import sys

import numba
import numpy as np
from numpy.typing import NDArray

from benchmarks.tables import command
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


def log2_binomial(n: int, k: int) -> float:
    """Return log2 C(n, k)."""
    logs = [math.lgamma(x + 1) for x in (n, k, n - k)]
    return (logs[0] - logs[1] - logs[2]) / math.log(2)


def main() -> None:
    """Print a line for each n, and the worst of them."""
    parser = command("rate.worst_sets", __doc__, points=20)
    parser.add_argument("size", type=int, help="the largest N")
    parser.add_argument("members", type=int, help="the largest n")
    parser.add_argument("--points", type=int, help="search at so many sizes only")
    arguments = parser.parse_args()
    size, points = arguments.size, arguments.points
    sizes = np.arange(size + 1)
    if points is not None:
        steps = np.geomspace(1, size, points).round().astype(np.int64)
        sizes = np.unique(np.concatenate([[0], steps]))
    d, place = excesses(sizes, arguments.members)
    worst = (0.0, "")
    for n in range(1, min(arguments.members, size // 2) + 1):
        if points is None:
            found = [(d[n, t] / log2_binomial(t, n), t) for t in range(2 * n, size + 1)]
            ratio, at = max(found)
        else:
            at = size
            ratio = dearest_set(d, place, size, n)[1] / log2_binomial(size, n)
        rank = log2_binomial(at, n)
        line = f"n = {n}, N = {at}: {ratio * rank:.3f} of {rank:.2f} bits, {ratio:.2%}"
        print(line)
        worst = max(worst, (ratio, line))
    print(f"The worst: {worst[1]}")


if __name__ == "__main__":
    sys.exit(main())
