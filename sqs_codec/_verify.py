"""The cloud's side of a round: speculative sampling against sparse drafts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sqs_codec._codec import Round, SparseDistribution
from sqs_codec._format import SUM_TOLERANCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Verdict", "verify"]


@dataclass(frozen=True)
class Verdict:
    """The outcome of a round.

    Attributes
    ----------
    accepted : int
        How many of the drafted tokens stand.
    token : int
        The token that follows them: resampled at the first rejection, or drawn
        from the last target row if all were accepted.
    """

    accepted: int
    token: int


def verify(
    round_: Round, target_probs: NDArray[np.floating], rng: np.random.Generator
) -> Verdict:
    r"""Accept a prefix of the drafted tokens and draw the next token.

    Token x with count b of resolution :math:`\ell` is accepted with probability
    :math:`\min(1, p(x) \ell / b)`. At the first rejection the next token is
    drawn from :math:`\max(0, p - b / \ell)`, normalised. The text is then
    distributed as the target's, whatever the draft; the proof is in
    ``docs/theory.md``.

    Parameters
    ----------
    round_ : Round
        L drafted tokens with their distributions.
    target_probs : ndarray of float32 or float64 [L+1, vocab_size]
        Row i is the target's distribution for the position of token i; the last
        row that for the position after them all. Non-negative, summing to 1
        within 0.001; what error remains is normalised away.
    rng : numpy.random.Generator
        Asked for one float64 for each token examined, and one for the next. It
        has to be independent of the one that drew the drafted tokens: two
        generators of one seed aren't, and would bias the text.

    Returns
    -------
    Verdict

    Raises
    ------
    ValueError
        If the shape doesn't fit, or a row is no distribution; it names the row.
    TypeError
        If `target_probs` isn't a float32 or float64 array.

    References
    ----------
    .. [1] arXiv:2211.17192, arXiv:2302.01318 (speculative sampling).

    Examples
    --------
    >>> q = SparseDistribution([0, 2], [3, 1], vocab_size=3)
    >>> p = np.array([[0.75, 0.0, 0.25], [0.0, 1.0, 0.0]])
    >>> verify(Round([q], [2]), p, np.random.default_rng(0))
    Verdict(accepted=1, token=1)
    """
    if not isinstance(round_, Round):
        raise TypeError(f"round_ must be a Round, got {type(round_).__name__}")
    sums = _check_target(round_, target_probs)
    for i, (q, position) in enumerate(
        zip(round_.distributions, round_._positions, strict=True)
    ):
        p = float(target_probs[i, round_.tokens[i]])
        if _accepts(q, position, p, sums[i], rng.random()):
            continue
        weights = _residual(target_probs[i], sums[i], q)
        return Verdict(i, _draw(weights, rng.random()))
    return Verdict(
        len(round_), _draw(target_probs[-1].astype(np.float64), rng.random())
    )


def _check_target(
    round_: Round, target_probs: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the sums of the rows, or say what is wrong with one."""
    if not isinstance(target_probs, np.ndarray) or target_probs.dtype not in (
        np.float32,
        np.float64,
    ):
        got = getattr(target_probs, "dtype", type(target_probs).__name__)
        raise TypeError(f"target_probs must be a float32 or float64 ndarray, got {got}")
    expected = (len(round_) + 1, round_.distributions[0].vocab_size)
    if target_probs.shape != expected:
        raise ValueError(
            f"target_probs must have shape {expected} (a row for each drafted token "
            f"and one for the token after), got {target_probs.shape}"
        )
    sums: NDArray[np.float64] = target_probs.sum(axis=1, dtype=np.float64)
    for i, total in enumerate(sums):
        if not np.isfinite(total):
            raise ValueError(f"target_probs: row {i} holds NaN or infinity")
        if abs(total - 1) > SUM_TOLERANCE:
            raise ValueError(
                f"target_probs: row {i} must sum to 1 within {SUM_TOLERANCE}, "
                f"got {total:.6g}"
            )
    lowest = target_probs.min(axis=1)
    if lowest.min() < 0:
        i = int(np.argmin(lowest))
        raise ValueError(f"target_probs: row {i} holds {lowest[i]}, which is negative")
    return sums


def _accepts(
    q: SparseDistribution, position: int, p: float, total: float, u: float
) -> bool:
    """Say whether a drafted token stands, with probability min(1, p / q).

    `p` is its target probability in a row that sums to `total`, `u` a draw
    from [0, 1).
    """
    return u * int(q.counts[position]) * total < p * q.resolution


def _residual(
    row: NDArray[np.floating], total: float, q: SparseDistribution
) -> NDArray[np.float64]:
    """Return max(0, p - q) up to a factor; p itself where that rounds to zero.

    A rejection means that q exceeds p somewhere, and so falls short of it
    elsewhere, but by less than rounding shows if the two all but agree.
    """
    weights = row.astype(np.float64)
    rest = weights[q.token_ids] - q.probs * total
    weights[q.token_ids] = np.maximum(rest, 0)
    return weights if weights.any() else row.astype(np.float64)


def _draw(weights: NDArray[np.float64], u: float) -> int:
    """Draw an index in proportion to weights, some of which are positive."""
    cumulative = np.cumsum(weights)
    index = int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))
    if index < weights.size:
        return index
    return int(np.flatnonzero(weights)[-1])  # u * sum rounded up to the sum
