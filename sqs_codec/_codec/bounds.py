"""An upper bound on the bits of a distribution, without encoding it."""

import math

from sqs_codec._base import checks


def entropy_bits_bound(vocab_size: int, survivors: int, resolution: int) -> int:
    """Bound on the bits of a distribution of k tokens in an ``"entropy"`` packet.

    1.05 log2(C(V, k) C(l-1, k-1)) + log2 min(V, l) + 9, rounded up (``docs/theory.md``,
    section 7). It holds in single packets, rounds and sequences, with any prior. The
    drafted token, the end of the round and the last byte aren't included.

    Examples
    --------
    >>> entropy_bits_bound(49152, 11, 100)
    216
    """
    vocab_size = checks.in_range("vocab_size", vocab_size, 1)
    resolution = checks.in_range("resolution", resolution, 1)
    most = min(vocab_size, resolution)
    survivors = checks.in_range("survivors", survivors, 1, most)
    compositions = _log2_comb(resolution - 1, survivors - 1)
    number = _log2_comb(vocab_size, survivors) + compositions
    return math.ceil(1.05 * number + math.log2(most) + 9.0)


def _log2_comb(n: int, k: int) -> float:
    """Return log2 C(n, k) in floats: exact integers are slow for large sets."""
    nats = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return nats / math.log(2)
