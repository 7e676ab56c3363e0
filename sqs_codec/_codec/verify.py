"""The cloud's side of a round: speculative sampling against sparse drafts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sqs_codec._backend import core_class
from sqs_codec._base import checks
from sqs_codec._base.errors import row_error
from sqs_codec._base.format import MAX_ROUND
from sqs_codec._codec import target
from sqs_codec._codec.round import Round

NO_ROUND = (np.empty(0, np.uint32),) * 4
"""The arrays of a round of length 0, as cores take them."""


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

    Examples
    --------
    >>> data = Verdict(accepted=3, token=17).to_bytes(vocab_size=49152)
    >>> data.hex()
    '024011'
    >>> Verdict.from_bytes(data, vocab_size=49152)
    Verdict(accepted=3, token=17)
    """

    accepted: int
    token: int

    def to_bytes(self, vocab_size: int) -> bytes:
        """Return ``accepted * vocab_size + token``, big-endian, in 3 or 4 bytes.

        3 are enough for rounds of ``2**24 // vocab_size - 1`` tokens. A ValueError says
        that no round of this vocabulary has such a verdict.
        """
        vocab_size = checks.vocabulary(vocab_size)
        accepted = checks.in_range("accepted", self.accepted, 0, MAX_ROUND)
        token = checks.in_range("token", self.token, 0, vocab_size - 1)
        value = accepted * vocab_size + token
        return value.to_bytes(3 if value < 1 << 24 else 4, "big")

    @classmethod
    def from_bytes(cls, data: bytes, vocab_size: int) -> Verdict:
        """Return the verdict of `to_bytes`; a ValueError if it makes no such bytes.

        The caller has to check that the round had so many tokens.
        """
        vocab_size = checks.vocabulary(vocab_size)
        data = checks.packet(data)
        if len(data) not in (3, 4):
            raise ValueError(f"a verdict must have 3 or 4 bytes, got {len(data)}")
        if len(data) == 4 and data[0] == 0:
            raise ValueError("a verdict must have 4 bytes only if it takes them")
        value = int.from_bytes(data, "big")
        accepted, token = divmod(value, vocab_size)
        if accepted > MAX_ROUND:
            raise ValueError(
                f"a verdict must accept at most {MAX_ROUND} tokens, got {accepted}"
            )
        return cls(accepted, token)


def verify(
    round_: Round, target_probs: NDArray[np.floating], rng: np.random.Generator
) -> Verdict:
    """Accept a prefix of the drafted tokens and draw the next token.

    Token x with count b of resolution l is accepted with probability
    ``min(1, p(x) l / b)``. At the first rejection the next token is
    drawn from ``max(0, p - b / l)``, normalised. The text is then
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

    Raises
    ------
    ValueError
        If the shape doesn't fit, or a row is no distribution; it names the row.
    TypeError
        If `target_probs` isn't a float32 or float64 array.

    References
    ----------
    arXiv:2211.17192, arXiv:2302.01318 (speculative sampling).

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
    rows = _check_target(target_probs, len(round_) + 1, round_.vocab_size)
    n = len(rows)
    given = np.asarray(rng.random(n), np.float64)
    draws = target.check_draws(f"rng.random({n})", given, n)
    (verdict,) = _verify([round_], rows, draws, lambda row: f"target_probs[{row}]")
    return verdict


def verify_rounds(
    rounds: Sequence[Round | None], target_probs: NDArray[np.floating], draws: ArrayLike
) -> list[Verdict]:
    """Verify many rounds, of any lengths, by numbers that the caller draws.

    For each round the answer is the one of `verify` for its rows and numbers, and so
    are the errors, which also name the round.

    Parameters
    ----------
    rounds : sequence of Round or None
        Of one vocabulary. None is a round without drafted tokens: its one number
        draws the next token from its one row.
    target_probs : ndarray of float32 or float64 [N, vocab_size]
        The rows of the rounds one after the other, L+1 for a round of L tokens.
    draws : array_like of float64 [N]
        A number in [0, 1) for each row, independent of those that drew the drafted
        tokens. In a round, number i decides about token i, and the number after the
        last one used draws the next token.

    Examples
    --------
    >>> import sqs_codec as sqs
    >>> q = sqs.SparseDistribution([0, 2], [3, 1], vocab_size=3)
    >>> p = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> verify_rounds([sqs.Round([q], [0]), None], p, [0.1, 0.5, 0.5])
    [Verdict(accepted=1, token=1), Verdict(accepted=0, token=2)]
    """
    vocab_size, n = target.check_rounds(rounds)
    rows = _check_target(target_probs, n, vocab_size)
    draws = target.check_draws("draws", draws, n)
    return _verify(rounds, rows, draws, target.row_namer("target_probs", rounds))


def _check_target(
    target_probs: NDArray[np.floating], n: int, vocab_size: int | None
) -> NDArray[np.floating]:
    """Return rows that cores take: n, of any vocabulary if `vocab_size` is None."""
    checks.unmasked("target_probs", target_probs)
    is_array = isinstance(target_probs, np.ndarray)
    if not is_array or target_probs.dtype not in (np.float32, np.float64):
        got = str(target_probs.dtype) if is_array else type(target_probs).__name__
        if got == "Tensor":
            got += "; sqs_codec.torch.verify takes logits as tensors"
        raise TypeError(f"target_probs must be a float32 or float64 ndarray, got {got}")
    target.check_shape("target_probs", target_probs.shape, n, vocab_size)
    return checks.contiguous_rows(np.asarray(target_probs))


def _verify(
    rounds: Sequence[Round | None],
    rows: NDArray[np.floating],
    draws: NDArray[np.float64],
    name_row: Callable[[int], str],
) -> list[Verdict]:
    """Verify as `verify_rounds`, with arguments that were checked."""
    core, verdicts = core_class(), []
    for round_, span in zip(rounds, target.spans(rounds), strict=True):
        arrays = NO_ROUND if round_ is None else round_.arrays
        status, done, *verdict = core.verify(arrays, rows[span], draws[span])
        if status:
            row = span.start + done
            raise row_error(name_row(row), rows[row], status)
        verdicts.append(Verdict(*verdict))
    return verdicts
