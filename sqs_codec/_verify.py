"""The cloud's side of a round: speculative sampling against sparse drafts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from sqs_codec import _checks as checks
from sqs_codec._backend import backend, core_class
from sqs_codec._distribution import Round, as_arrays
from sqs_codec._errors import row_error
from sqs_codec._format import Coding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sqs_codec._backend.core import Core

__all__ = ["Verdict", "verify"]


@dataclass(frozen=True)
class Verdict:
    """The outcome of a round.

    Attributes
    ----------
    accepted : int
        How many of the drafted tokens are accepted, from the first on.
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
        Asked once for L+1 float64. Number i decides about drafted token i, and the
        number after the last one used draws the next token. The rest go unused, so
        that a round takes the same from the generator whatever its outcome. The
        generator has to be independent of the one that drew the drafted tokens: two
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
    >>> import sqs_codec as sqs
    >>> q = sqs.SparseDistribution([0, 2], [3, 1], vocab_size=3)
    >>> p = np.array([[0.75, 0.0, 0.25], [0.0, 1.0, 0.0]])
    >>> verify(sqs.Round([q], [2]), p, np.random.default_rng(0))
    Verdict(accepted=1, token=1)
    """
    checks.instance("round_", round_, Round, "a Round")
    checks.generator(rng)
    rows = _check_target(round_, target_probs)
    core = _core(backend(), rows.shape[1])
    draws = np.asarray(rng.random(len(rows)), np.float64, order="C")
    if draws.shape != (len(rows),):  # of a subclass
        raise ValueError(
            f"rng.random({len(rows)}) must have so many numbers, got {draws.shape}"
        )
    status, done, accepted, token = core.verify(*as_arrays(round_), rows, draws)
    if status:
        raise row_error(f"target_probs[{done}]", rows[done], status)
    return Verdict(accepted, token)


@lru_cache(maxsize=16)
def _core(backend_name: str, vocab_size: int) -> Core:
    """Return a core for a vocabulary; what else a codec has does not matter here.

    The name of the backend is there for the cache to tell cores apart.
    """
    return core_class()(vocab_size, 1, Coding.BITPACK, None)


def _check_target(
    round_: Round, target_probs: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Return rows that cores take."""
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
    return checks.contiguous_rows(np.asarray(target_probs))
