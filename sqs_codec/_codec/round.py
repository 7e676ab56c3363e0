"""A round: distributions, and the token that was drafted from each."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from sqs_codec._backend.core import Arrays, frozen, joined
from sqs_codec._base import checks
from sqs_codec._base.format import MAX_ROUND
from sqs_codec._codec.distribution import (
    SparseDistribution,
    as_distribution,
    position_of,
    shape_of,
)


class Round:
    """Distributions in drafting order and the token sampled from each. Immutable.

    Parameters
    ----------
    distributions : sequence of SparseDistribution
        1 to 256, with the same vocabulary and resolution.
    tokens : sequence of int
        ``tokens[i]`` is in the support of ``distributions[i]``.

    Examples
    --------
    >>> q = SparseDistribution([2, 7], [3, 1], vocab_size=10)
    >>> round_ = Round([q, q], [2, 7])
    >>> len(round_), round_.counts, round_.resolution
    (2, (3, 1), 4)
    """

    # Packets and verification use the arrays; the rest is made of them on demand.
    __slots__ = ("_arrays", "_distributions", "_resolution", "_tokens", "_vocab_size")

    _arrays: Arrays
    _vocab_size: int
    _resolution: int
    _distributions: tuple[SparseDistribution, ...] | None
    _tokens: tuple[int, ...] | None

    def __init__(
        self, distributions: Sequence[SparseDistribution], tokens: Sequence[int]
    ) -> None:
        distributions = tuple(distributions)
        tokens = tuple(checks.integers("tokens", tokens))
        length = len(distributions)
        if not 1 <= length <= MAX_ROUND or len(tokens) != length:
            raise ValueError(
                f"a round holds 1 to {MAX_ROUND} distributions with one token each, "
                f"got {length} distributions and {len(tokens)} tokens"
            )
        shape = shape_of("distributions", distributions, SparseDistribution)
        self._vocab_size, self._resolution = shape
        positions = []
        for i, (q, token) in enumerate(zip(distributions, tokens, strict=True)):
            position = position_of(q, token)
            if position is None:
                raise ValueError(
                    f"tokens[{i}] = {token} is not in the support of its distribution"
                )
            positions.append(position)
        self._arrays = arrays_of(distributions, positions)
        self._distributions = distributions
        self._tokens = tokens

    @property
    def distributions(self) -> tuple[SparseDistribution, ...]:
        """The distributions, in drafting order."""
        if self._distributions is None:
            ids, counts, sizes, _ = self._arrays
            ends = accumulate(sizes.tolist(), initial=0)
            shape = self._vocab_size, self._resolution
            self._distributions = tuple(
                as_distribution(ids[a:b], counts[a:b], *shape)
                for a, b in pairwise(ends)
            )
        return self._distributions

    @property
    def tokens(self) -> tuple[int, ...]:
        """The token sampled from each distribution."""
        if self._tokens is None:
            self._tokens = tuple(self._arrays[0][self._drafted()].tolist())
        return self._tokens

    @property
    def counts(self) -> tuple[int, ...]:
        """The drafted tokens' counts: `resolution` times their probabilities."""
        return tuple(self._arrays[1][self._drafted()].tolist())

    @property
    def vocab_size(self) -> int:
        """The size of the vocabulary."""
        return self._vocab_size

    @property
    def resolution(self) -> int:
        """The sum of the counts of each distribution."""
        return self._resolution

    @property
    def arrays(self) -> Arrays:
        """The round as four read-only uint32 arrays.

        Token ids and counts of all distributions, concatenated; the size of each
        support [L]; and the position of each drafted token in its support [L].
        """
        return self._arrays

    def _drafted(self) -> list[int]:
        """Return the drafted tokens' indices in the array of token ids."""
        _, _, sizes, positions = (array.tolist() for array in self._arrays)
        starts = accumulate(sizes, initial=0)
        return [a + b for a, b in zip(starts, positions, strict=False)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Round):
            return NotImplemented
        return self._vocab_size == other._vocab_size and all(
            map(np.array_equal, self._arrays, other._arrays)
        )

    def __hash__(self) -> int:
        return hash((self._vocab_size, *(array.tobytes() for array in self._arrays)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Round, (self.distributions, self.tokens)

    def __repr__(self) -> str:
        return f"<Round of {len(self)} tokens, vocabulary {self._vocab_size}>"

    def __len__(self) -> int:
        return self._arrays[3].size


def as_round(arrays: Arrays, vocab_size: int, resolution: int) -> Round:
    """Return the round of frozen arrays that a core has checked."""
    round_ = Round.__new__(Round)
    round_._arrays = arrays
    round_._vocab_size = vocab_size
    round_._resolution = resolution
    round_._distributions = round_._tokens = None
    return round_


def make_round(
    given: Round | Sequence[SparseDistribution], tokens: Sequence[int] | None
) -> Round:
    """Return the given round, or make one of distributions and tokens."""
    if isinstance(given, Round) == (tokens is not None):
        raise TypeError("expected distributions and tokens, or only a Round")
    if isinstance(given, Round):
        return given
    assert tokens is not None
    return Round(given, tokens)


def arrays_of(
    distributions: Sequence[SparseDistribution], positions: Sequence[int]
) -> Arrays:
    """Return a round's arrays; `positions` index the supports."""
    return (
        joined([q._token_ids for q in distributions]),
        joined([q._counts for q in distributions]),
        frozen(np.array([q._counts.size for q in distributions], np.uint32)),
        frozen(np.array(positions, np.uint32)),
    )
