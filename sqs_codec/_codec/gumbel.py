"""Drawing by numbers that both ends share: exponential races, or Gumbel-max.

A token's number E(x) is exponential and comes from a key and the token's place alone.
``argmin E(x) / p(x)`` has the law p, and who knows another distribution q guesses it
by the least of ``E(x) / q(x)``. ``docs/theory.md`` has the law, the numbers to the bit
and how far the law is from the softmax of the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sqs_codec._base import checks
from sqs_codec._base.errors import Status, row_error
from sqs_codec._base.format import MAX_ROUND, MAX_VOCAB, MIN_VOCAB
from sqs_codec._codec.truncation import truncate
from sqs_codec._codec.verify import Verdict

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Guesses", "gumbel_draw", "gumbel_guess", "gumbel_verify"]

MOST_GUESSES = 8
LEAST_TEMPERATURE = 2.0**-100
"""Below it the largest logits win."""


@dataclass(frozen=True)
class Guesses:
    """What a draw may give, the likeliest first.

    Attributes
    ----------
    tokens : tuple of int
        Different token ids.
    chances : tuple of float
        How sure each is: its share of what the guesses that could be asked for have.
    """

    tokens: tuple[int, ...]
    chances: tuple[float, ...]


def gumbel_draw(
    logits: ArrayLike,
    key: bytes,
    position: int,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> int:
    """Draw a token by the numbers of a key and a position.

    Over keys that nobody can foresee, the token has the law that the sampling makes
    of the logits. The same arguments give the same token.

    Parameters
    ----------
    logits : array_like of float16, float32 or float64 [V]
        ``-inf`` masks a token.
    key : bytes [16]
        Names the numbers.
    position : int
        Of the token in its text, in [0, 2**64). A key's position is used once.
    temperature, top_k, top_p, min_p
        As in `sqs_codec.session.Sampling`. At temperature 0 the largest logit wins.
        Ties go to the lower id, also at a truncation's cut.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If an argument is out of range, a logit is NaN or ``+inf`` or all are masked.
    TypeError
        If an argument is of another type.

    Examples
    --------
    >>> gumbel_draw(np.float32([0, 2, 1]), bytes(16), 0)
    0
    """
    row, where = _row(logits), _key(key)
    place = _position(position, 1)
    sampling = _sampling(temperature, top_k, top_p, min_p)
    return _race("logits", row, sampling, where, place, 1)[0][0]


def gumbel_guess(
    logits: ArrayLike,
    key: bytes,
    position: int,
    count: int,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Guesses:
    """Guess what `gumbel_draw` gives for logits that are nearly these.

    Parameters
    ----------
    logits, key, position, temperature, top_k, top_p, min_p
        As `gumbel_draw` takes them.
    count : int
        How many guesses, 1 to 8.

    Returns
    -------
    Guesses
        The first is what `gumbel_draw` gives for these very logits. They are fewer
        than `count` if fewer tokens can be drawn.

    Examples
    --------
    >>> gumbel_guess(np.float32([0, 2, 1]), bytes(16), 0, 2).tokens
    (0, 2)
    """
    row, where = _row(logits), _key(key)
    place = _position(position, 1)
    count = checks.in_range("count", count, 1, MOST_GUESSES)
    sampling = _sampling(temperature, top_k, top_p, min_p)
    tokens, scores = _race("logits", row, sampling, where, place, MOST_GUESSES)
    weights = np.float64(1) / scores
    if sampling[0] < LEAST_TEMPERATURE:  # where scores are negated logits
        weights = np.exp(scores[0] - scores)
    chances = weights / weights.sum()
    return Guesses(tuple(tokens[:count]), tuple(chances[:count].tolist()))


def gumbel_verify(
    drafted: Sequence[int],
    logits: ArrayLike,
    key: bytes,
    position: int,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Verdict:
    """Accept the drafted tokens that a target draws itself, and give its next one.

    Parameters
    ----------
    drafted : sequence of int
        L token ids, at most 256.
    logits : array_like of float16, float32 or float64 [L+1, V]
        Row i is the target's for the position of drafted token i; the last one is for
        the position after them all.
    key : bytes [16]
    position : int
        Of the first drafted token in the text.
    temperature, top_k, top_p, min_p
        As `gumbel_draw` takes them.

    Returns
    -------
    Verdict
        How many drafted tokens are what `gumbel_draw` gives, from the first on, and
        what it gives after them.

    Examples
    --------
    >>> rows = np.float32([[0, 2, 1], [3, 0, 0]])
    >>> gumbel_verify([0], rows, bytes(16), 0)
    Verdict(accepted=1, token=0)
    """
    tokens = checks.integers("drafted", drafted)
    shape = np.shape(logits)
    if len(tokens) > MAX_ROUND:
        raise ValueError(
            f"drafted must be at most {MAX_ROUND} tokens, got {len(tokens)}"
        )
    if len(shape) != 2 or shape[0] != len(tokens) + 1:
        raise ValueError(
            f"logits must have shape ({len(tokens) + 1}, vocabulary) (a row for each "
            f"drafted token and one for the token after), got {shape}"
        )
    vocab_size = _vocabulary(shape[1])
    for i, token in enumerate(tokens):
        checks.in_range(f"drafted[{i}]", token, 0, vocab_size - 1)
    rows = checks.rows("logits", logits, vocab_size)
    where, place = _key(key), _position(position, len(rows))
    sampling = _sampling(temperature, top_k, top_p, min_p)
    drawn = [
        _race(f"logits[{i}]", row, sampling, where, place + i, 1)[0][0]
        for i, row in enumerate(rows)
    ]
    accepted = 0
    while accepted < len(tokens) and tokens[accepted] == drawn[accepted]:
        accepted += 1
    return Verdict(accepted, drawn[accepted])


def _vocabulary(size: int) -> int:
    return checks.in_range("the vocabulary of logits", size, MIN_VOCAB, MAX_VOCAB)


def _row(logits: ArrayLike) -> NDArray[np.floating]:
    shape = np.shape(logits)
    if len(shape) != 1:
        raise ValueError(f"logits must have shape (vocabulary,), got {shape}")
    return checks.row("logits", logits, _vocabulary(shape[0]))


def _key(key: bytes) -> NDArray[np.uint32]:
    data = checks.packet(key)
    if len(data) != 16:
        raise ValueError(f"key must have 16 bytes, got {len(data)}")
    return np.frombuffer(data, "<u4").astype(np.uint32)


def _position(position: int, rows: int) -> int:
    return checks.in_range("position", position, 0, 2**64 - rows)


def _sampling(
    temperature: float, top_k: int, top_p: float, min_p: float
) -> tuple[float, int, float, float]:
    return (
        checks.temperature(temperature),
        checks.in_range("top_k", top_k, 0),
        checks.finite("top_p", top_p, 0, 1),
        checks.finite("min_p", min_p, 0, 1),
    )


def _race(
    name: str,
    row: NDArray[np.floating],
    sampling: tuple[float, int, float, float],
    key: NDArray[np.uint32],
    position: int,
    count: int,
) -> tuple[list[int], NDArray[np.float64]]:
    """Return the tokens of the least scores, and these."""
    temperature, *cuts = sampling
    if temperature >= LEAST_TEMPERATURE and cuts != [0, 1, 0]:
        row = truncate(row, *sampling)
    status, ids, scores = _reference(row, temperature, key, position, count)
    if status:
        raise row_error(name, row, status)
    return ids.tolist(), scores


# To be replaced by the cores' own.

EXP2 = (
    1.3691488853904128e-12, 2.5678435993488206e-11, 4.4455382718708116e-10,
    7.054911620801123e-09, 1.01780860092397e-07, 1.321548679014431e-06,
    1.5252733804059841e-05, 0.0001540353039338161, 0.0013333558146428443,
    0.009618129107628477, 0.05550410866482158, 0.24022650695910072,
    0.6931471805599453, 1.0,
)  # fmt: skip


def _philox(counter: Any, k0: int, k1: int) -> Any:
    c0, c1, c2, c3 = (np.asarray(c, np.uint64) for c in counter)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        p, q = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            q >> half ^ c1 ^ np.uint64(k0), q & low,
            p >> half ^ c3 ^ np.uint64(k1), p & low,
        )  # fmt: skip
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def _words(rng: Any, stream: int, k: Any) -> Any:
    k0, k1, r2, r3 = rng
    calls = _philox((k // 64 * 16 + k % 16, stream, r2, r3), k0, k1)
    return np.choose((k // 16 % 4).astype(int), np.broadcast_arrays(*calls)).astype(
        float
    )


def _minus_log(v: Any, u: Any) -> Any:
    m, e = np.frexp(u)
    small = m < 0.7071
    z, n = np.where(small, 2 * m, m), np.where(small, e - 1, e)
    s = np.where(v < 0.25, v / (2 - v), (1 - z) / (1 + z))
    q = s * s
    p = np.full_like(q, 1 / 21)
    for k in range(19, 1, -2):
        p = p * q + 1 / k
    return 2 * (s + s * q * p) - np.where(v < 0.25, 0, n) * 0.6931471805599453


def _exponential(hi: Any, lo: Any, bits: int) -> Any:
    unit = 2.0 ** (-32 - bits)
    return _minus_log(
        hi * 2.0**-32 + (lo + 0.5) * unit,
        (2.0**32 - 1 - hi) * 2.0**-32 + ((2.0**bits - 1 - lo) + 0.5) * unit,
    )


def _exp2(t: Any) -> Any:
    n = np.rint(t)
    f, p = t - n, np.full_like(t, EXP2[0])
    for c in EXP2[1:]:
        p = p * f + c
    return np.ldexp(p, n.astype(np.int64))


def _reference(
    row: Any, temperature: float, key: Any, position: int, count: int
) -> tuple[int, Any, Any]:
    if np.isnan(row).any() or np.isposinf(row).any():
        return Status.NOT_FINITE, None, None
    values = row.astype(np.float64)
    if np.isneginf(values.max()):
        return Status.ALL_MASKED, None, None
    if temperature < LEAST_TEMPERATURE:
        scores = -values
    else:
        place = position % 2**32, position >> 32, int(key[2]), int(key[3])
        rng = [int(w) for w in _philox(place, int(key[0]), int(key[1]))]
        x = np.arange(values.size, dtype=np.uint64)
        block = x // np.uint64(64)
        low = _words(rng, 2, block)
        e = _exponential(_words(rng, 0, block), low // 64, 26) / 64
        least = x % 64 == low % 64
        own = _exponential(_words(rng, 1, x), _words(rng, 3, x), 32)
        e = np.where(least, e, e + own)
        with np.errstate(over="ignore", under="ignore"):
            t = (values - values.max()) * (1.4426950408889634 / temperature)
        scores = np.where(t >= -100, e * _exp2(-np.maximum(t, -101)), np.inf)
    best = np.argsort(scores, kind="stable")[:count]
    best = best[scores[best] < np.inf]
    return Status.OK, best, scores[best]
