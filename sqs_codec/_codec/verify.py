"""Verification: speculative sampling with sparse draft distributions."""

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
"""The arrays of a round without drafted tokens."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of a round.

    Attributes
    ----------
    accepted : int
        The number of accepted drafted tokens.
    token : int
        The next token: resampled at the first rejection, or sampled from the last
        target row if all drafted tokens were accepted.

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

        3 bytes suffice for rounds of ``2**24 // vocab_size - 1`` tokens. A verdict that
        is impossible with this vocabulary is a ValueError.
        """
        vocab_size = checks.vocabulary(vocab_size)
        accepted = checks.in_range("accepted", self.accepted, 0, MAX_ROUND)
        token = checks.in_range("token", self.token, 0, vocab_size - 1)
        value = accepted * vocab_size + token
        return value.to_bytes(3 if value < 1 << 24 else 4, "big")

    @classmethod
    def from_bytes(cls, data: bytes, vocab_size: int) -> Verdict:
        """Return the verdict of `to_bytes`; ValueError for any other bytes.

        The caller must check that `accepted` is at most the round's length.
        """
        vocab_size = checks.vocabulary(vocab_size)
        data = checks.packet(data)
        if len(data) not in (3, 4):
            raise ValueError(f"a verdict must have 3 or 4 bytes, got {len(data)}")
        if len(data) == 4 and data[0] == 0:
            raise ValueError("a 4-byte verdict must not start with a zero byte")
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
    """Accept a prefix of the drafted tokens and sample the next token.

    Token x with count b at resolution l is accepted with probability
    ``min(1, p(x) l / b)``. At the first rejection, the next token is sampled from
    ``max(0, p - b / l)``, normalized. The output distribution is the target's, for any
    draft; ``docs/theory.md`` has the proof.

    Parameters
    ----------
    round_ : Round
        L drafted tokens with their distributions.
    target_probs : ndarray of float32 or float64 [L+1, vocab_size]
        Row i is the target's distribution at the position of token i; the last row
        belongs to the position after all drafted tokens. Rows are non-negative and sum
        to 1 within 0.001; they are normalized.
    rng : numpy.random.Generator
        Called once, for L+1 float64. Number i decides about drafted token i; the next
        unused number samples the next token. The rest is discarded, so that every
        outcome advances the generator equally. The generator must be independent of
        the one that sampled the drafted tokens: two generators with the same seed bias
        the output.

    Raises
    ------
    ValueError
        If the shape is wrong or a row isn't a distribution; the error names the row.
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
    """Verify many rounds, of any lengths, with random numbers of the caller.

    The verdicts and errors are those of `verify` for each round; errors also name the
    round.

    Parameters
    ----------
    rounds : sequence of Round or None
        With the same vocabulary. None is a round without drafted tokens: one number
        samples the next token from one row.
    target_probs : ndarray of float32 or float64 [N, vocab_size]
        The rows of all rounds, concatenated: L+1 for a round of L tokens.
    draws : array_like of float64 [N]
        A random number in [0, 1) for each row, independent of the numbers that sampled
        the drafted tokens. In a round, number i decides about token i, and the next
        unused number samples the next token.

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
    """Return n checked rows; any vocabulary is allowed if `vocab_size` is None."""
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
    """Verify checked arguments, as `verify_rounds` does."""
    core, verdicts = core_class(), []
    for round_, span in zip(rounds, target.spans(rounds), strict=True):
        arrays = NO_ROUND if round_ is None else round_.arrays
        status, done, *verdict = core.verify(arrays, rows[span], draws[span])
        if status:
            row = span.start + done
            raise row_error(name_row(row), rows[row], status)
        verdicts.append(Verdict(*verdict))
    return verdicts
