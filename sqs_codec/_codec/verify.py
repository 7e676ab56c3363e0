"""The cloud's side of a round: speculative sampling against sparse drafts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, overload

import numpy as np

from sqs_codec._backend import backend, core_class
from sqs_codec._backend.core import frozen
from sqs_codec._base import checks
from sqs_codec._base.errors import row_error
from sqs_codec._base.format import MAX_ROUND, MAX_VOCAB, MIN_VOCAB, Coding
from sqs_codec._codec.distribution import (
    MixedRound,
    Round,
    SparseDistribution,
    as_arrays,
    as_distribution,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from sqs_codec._backend.core import Core
    from sqs_codec._codec.distribution import RoundArrays

__all__ = ["Verdict", "Wanted", "verify", "verify_batch"]

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
        """Return ``accepted * vocab_size + token``, big-endian.

        In 3 bytes, or in 4 if it takes them: 3 are enough for rounds of
        ``2**24 // vocab_size - 1`` tokens.

        Raises
        ------
        ValueError
            If there is no such verdict on a round of this vocabulary.
        """
        vocab_size = _check_vocabulary(vocab_size)
        accepted = checks.in_range("accepted", self.accepted, 0, MAX_ROUND)
        token = checks.in_range("token", self.token, 0, vocab_size - 1)
        value = accepted * vocab_size + token
        return value.to_bytes(3 if value < 1 << 24 else 4, "big")

    @classmethod
    def from_bytes(cls, data: bytes, vocab_size: int) -> Verdict:
        """Return the verdict of `to_bytes`.

        Raises
        ------
        ValueError
            If `to_bytes` makes no such bytes. Whether the round had so many tokens
            is for the caller to check.
        """
        vocab_size = _check_vocabulary(vocab_size)
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


def _check_vocabulary(vocab_size: int) -> int:
    return checks.in_range("vocab_size", vocab_size, MIN_VOCAB, MAX_VOCAB)


@dataclass(frozen=True)
class Wanted:
    """What is answered where a round can't be verified without a distribution.

    Attributes
    ----------
    position : int
        Of the drafted token that is rejected; those before it are accepted. With
        its distribution (`MixedRound.with_distribution`) the round has to be
        verified again **by the same numbers**, or the text would be biased.
    """

    position: int


@overload
def verify(
    round_: Round, target_probs: NDArray[np.floating], rng: np.random.Generator
) -> Verdict: ...


@overload
def verify(
    round_: MixedRound, target_probs: NDArray[np.floating], rng: np.random.Generator
) -> Verdict | Wanted: ...


def verify(
    round_: Round | MixedRound,
    target_probs: NDArray[np.floating],
    rng: np.random.Generator,
) -> Verdict | Wanted:
    r"""Accept a prefix of the drafted tokens and draw the next token.

    Token x with count b of resolution :math:`\ell` is accepted with probability
    :math:`\min(1, p(x) \ell / b)`. At the first rejection the next token is
    drawn from :math:`\max(0, p - b / \ell)`, normalised. The text is then
    distributed as the target's, whatever the draft; the proof is in
    ``docs/theory.md``.

    Parameters
    ----------
    round_ : Round or MixedRound
        L drafted tokens with their distributions, or with their counts alone.
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
    Verdict or Wanted
        Wanted only for a MixedRound, if the first token that is rejected lacks its
        distribution. `verify_batch` takes the numbers themselves, so that it can be
        asked again with the same.

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
    checks.instance("round_", round_, (Round, MixedRound), "a Round or MixedRound")
    checks.generator(rng)
    rows = _check_target(target_probs, len(round_) + 1, vocabulary(round_))
    draws = np.asarray(rng.random(len(rows)), np.float64, order="C")
    if draws.shape != (len(rows),):  # of a subclass
        raise ValueError(
            f"rng.random({len(rows)}) must have so many numbers, got {draws.shape}"
        )
    (answer,) = judge([round_], rows, draws, lambda row: f"target_probs[{row}]")
    return answer


def verify_batch(
    rounds: Sequence[Round | MixedRound | None],
    target_probs: NDArray[np.floating],
    draws: ArrayLike,
) -> list[Verdict | Wanted]:
    """Verify many rounds, of any lengths, by numbers that the caller draws.

    For each round the answer is the one of `verify` for its rows and numbers.

    Parameters
    ----------
    rounds : sequence of Round, MixedRound or None
        Of one vocabulary. None is a round without drafted tokens: its one number
        draws the next token from its one row.
    target_probs : ndarray of float32 or float64 [N, vocab_size]
        The rows of the rounds one after the other, L+1 for a round of L tokens, as
        `verify` takes them.
    draws : array_like of float64 [N]
        A number in [0, 1) for each row, independent of those that drew the drafted
        tokens. In a round, number i decides about token i, and the number after the
        last one used draws the next token.

    Returns
    -------
    list of Verdict or Wanted
        One for each round; Wanted as in `verify`.

    Raises
    ------
    ValueError
        If a shape or a vocabulary doesn't fit, a number is not in [0, 1), or a row
        is no distribution; it names the round and the row.
    TypeError
        If `rounds` holds something else, `target_probs` isn't a float32 or float64
        array or `draws` isn't float64.

    Examples
    --------
    A token without its distribution is accepted, or the distribution is asked for:

    >>> import sqs_codec as sqs
    >>> q = sqs.SparseDistribution([0, 2], [3, 1], vocab_size=3)
    >>> lazy = sqs.MixedRound.of(sqs.Round([q], [0]), sent=[False])
    >>> p = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> verify_batch([lazy, None], p, [0.1, 0.5, 0.5])
    [Verdict(accepted=1, token=1), Verdict(accepted=0, token=2)]
    >>> verify_batch([lazy, None], p, [0.9, 0.5, 0.5])
    [Wanted(position=0), Verdict(accepted=0, token=2)]
    >>> verify_batch([lazy.with_distribution(0, q)], p[:2], [0.9, 0.5])
    [Verdict(accepted=0, token=1)]
    """
    vocab_size, n = check_rounds(rounds)
    rows = _check_target(target_probs, n, vocab_size)
    draws = check_draws(draws, n)
    return judge(rounds, rows, draws, row_namer("target_probs", rounds))


def _judge(
    core: Core,
    round_: Round | MixedRound | None,
    rows: NDArray[np.floating],
    draws: NDArray[np.float64],
) -> tuple[int, int, Verdict | Wanted]:
    """Return status, rows checked and the answer."""
    status, done, accepted, token = core.verify(*_arrays(round_), rows, draws)
    if (
        isinstance(round_, MixedRound)
        and accepted < len(round_)
        and round_.distribution(accepted) is None
    ):
        return status, done, Wanted(accepted)
    return status, done, Verdict(accepted, token)


def _arrays(round_: Round | MixedRound | None) -> RoundArrays:
    """Return a round as cores take it.

    Whether a token is accepted depends on its count and the resolution alone, so any
    distribution with these does for one that isn't there.
    """
    if round_ is None:
        return NO_ROUND
    if isinstance(round_, Round):
        return as_arrays(round_)
    distributions = [
        round_.distribution(i) or _stand_in(round_, token, count)
        for i, (token, count) in enumerate(
            zip(round_.tokens, round_.counts, strict=True)
        )
    ]
    return as_arrays(Round(distributions, round_.tokens))


def _stand_in(round_: MixedRound, token: int, count: int) -> SparseDistribution:
    """Return a distribution with a token's count, and the rest on another token."""
    rest = round_.resolution - count
    ids, counts = ([0, token], [rest, count]) if token else ([0, 1], [count, rest])
    return as_distribution(
        frozen(np.array(ids, np.uint32)),
        frozen(np.array(counts, np.uint32)),
        round_.vocab_size,
        round_.resolution,
    )


@lru_cache(maxsize=16)
def _core(backend_name: str, vocab_size: int) -> Core:
    """Return a core for a vocabulary; what else a codec has does not matter here.

    The name of the backend is there for the cache to tell cores apart.
    """
    return core_class()(vocab_size, 1, Coding.BITPACK, None)


def _check_target(
    target_probs: NDArray[np.floating], n: int, vocab_size: int | None
) -> NDArray[np.floating]:
    """Return rows that cores take: n, of any vocabulary if `vocab_size` is None."""
    if not isinstance(target_probs, np.ndarray) or target_probs.dtype not in (
        np.float32,
        np.float64,
    ):
        got = type(target_probs).__name__
        if isinstance(target_probs, np.ndarray):
            got = str(target_probs.dtype)
        elif got == "Tensor":
            got += "; sqs_codec.torch.verify takes logits as tensors"
        raise TypeError(f"target_probs must be a float32 or float64 ndarray, got {got}")
    check_shape("target_probs", target_probs.shape, n, vocab_size)
    return checks.contiguous_rows(np.asarray(target_probs))


# For the torch adapter too.


def judge(
    rounds: Sequence[Round | MixedRound | None],
    rows: NDArray[np.floating],
    draws: NDArray[np.float64],
    name_row: Callable[[int], str],
) -> list[Verdict | Wanted]:
    """Return what `verify_batch` does, of arguments that fit each other.

    Rows are as cores take them. `name_row` says what errors call a row.
    """
    core = _core(backend(), rows.shape[1])
    answers = []
    for round_, span in zip(rounds, spans(rounds), strict=True):
        status, done, answer = _judge(core, round_, rows[span], draws[span])
        if status:
            row = span.start + done
            raise row_error(name_row(row), rows[row], status)
        answers.append(answer)
    return answers


def row_namer(
    name: str, rounds: Sequence[Round | MixedRound | None]
) -> Callable[[int], str]:
    """Return what says what errors call a row of the target."""

    def name_row(row: int) -> str:
        ends = np.cumsum([*map(count_rows, rounds)])
        number = int(ends.searchsorted(row, "right"))
        return f"rounds[{number}]: {name}[{row}]"

    return name_row


def spans(rounds: Sequence[Round | MixedRound | None]) -> Iterator[slice]:
    """Yield the place of each round's rows."""
    start = 0
    for round_ in rounds:
        end = start + count_rows(round_)
        yield slice(start, end)
        start = end


def counts_of(
    round_: Round | MixedRound | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return counts of the drafted tokens and resolutions, float64 [L] each."""
    counts: Sequence[int] = ()
    resolutions: Sequence[int] = ()
    if isinstance(round_, MixedRound):
        counts, resolutions = round_.counts, [round_.resolution] * len(round_)
    elif round_ is not None:
        *_, positions = as_arrays(round_)
        pairs = zip(round_.distributions, positions, strict=True)
        counts = [q.counts[at] for q, at in pairs]
        resolutions = [q.resolution for q in round_.distributions]
    return np.array(counts, np.float64), np.array(resolutions, np.float64)


def check_shape(
    name: str, shape: Sequence[int], n: int, vocab_size: int | None
) -> None:
    """Check the shape of a target's rows."""
    if len(shape) == 2 and vocab_size is None:
        vocab_size = shape[1] if MIN_VOCAB <= shape[1] <= MAX_VOCAB else None
    if tuple(shape) != (n, vocab_size):
        raise ValueError(
            f"{name} must have shape ({n}, {vocab_size or 'vocabulary'}) (a row for "
            "each drafted token and one for the token after), got "
            f"{tuple(shape)}"
        )


def vocabulary(round_: Round | MixedRound) -> int:
    """Return the vocabulary size of a round."""
    if isinstance(round_, MixedRound):
        return round_.vocab_size
    return round_.distributions[0].vocab_size


def count_rows(round_: Round | MixedRound | None) -> int:
    """Return how many target rows a round takes, which is how many numbers, too."""
    return 1 if round_ is None else len(round_) + 1


def check_rounds(
    rounds: Sequence[Round | MixedRound | None],
) -> tuple[int | None, int]:
    """Return the vocabulary size of rounds, None if none has one, and their rows."""
    checks.instance("rounds", rounds, Sequence, "a sequence of rounds")
    vocab_size = None
    for i, round_ in enumerate(rounds):
        if round_ is None:
            continue
        checks.instance(
            f"rounds[{i}]", round_, (Round, MixedRound), "a Round, MixedRound or None"
        )
        vocab_size = vocab_size or vocabulary(round_)
        if vocabulary(round_) != vocab_size:
            raise ValueError(
                f"rounds[{i}] must be of vocabulary {vocab_size} as those before it, "
                f"got {vocabulary(round_)}"
            )
    return vocab_size, sum(map(count_rows, rounds))


def check_draws(draws: ArrayLike, n: int) -> NDArray[np.float64]:
    """Return n numbers from [0, 1)."""
    numbers = np.asarray(draws)
    if numbers.dtype != np.float64:
        raise TypeError(f"draws must be float64, got {numbers.dtype}")
    if numbers.shape != (n,):
        raise ValueError(
            f"draws must have shape ({n},) (a number for each row), got {numbers.shape}"
        )
    bad = np.flatnonzero(~((numbers >= 0) & (numbers < 1)))  # NaN too
    if bad.size:
        raise ValueError(f"draws[{bad[0]}] must be in [0, 1), got {numbers[bad[0]]}")
    return np.ascontiguousarray(numbers)
