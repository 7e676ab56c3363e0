"""What a codec codes: distributions, rounds of them, and rounds that lack some."""

from __future__ import annotations

import operator
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sqs_codec._backend.core import frozen
from sqs_codec._base import checks
from sqs_codec._base.format import MAX_RESOLUTION, MAX_ROUND, MAX_VOCAB, MIN_VOCAB

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from sqs_codec._backend.core import Ids

    RoundArrays = tuple[Ids, Ids, Ids, Ids]

__all__ = ["MixedRound", "Round", "SparseDistribution"]


class SparseDistribution:
    """A distribution on the tokens of a vocabulary, as integer counts.

    The probability of token ``token_ids[i]`` is ``counts[i] / resolution``;
    every other token has probability 0. Immutable.

    Parameters
    ----------
    token_ids : array_like of int [k]
        Strictly ascending, below `vocab_size`.
    counts : array_like of int [k]
        All at least 1. Their sum is the resolution, at most 65 536.
    vocab_size : int
    dropped_mass : float, optional
        The probability of the tokens that the keep rule dropped. It is not sent,
        so it is None after decoding, and it plays no part in ``==``.

    Examples
    --------
    >>> q = SparseDistribution([2, 7], [3, 1], vocab_size=10)
    >>> q.probs
    array([0.75, 0.25])
    >>> q.prob(7), q.prob(3)
    (0.25, 0.0)
    """

    __slots__ = ("_counts", "_dropped_mass", "_resolution", "_token_ids", "_vocab_size")

    _token_ids: Ids
    _counts: Ids
    _vocab_size: int
    _resolution: int
    _dropped_mass: float | None

    def __init__(
        self,
        token_ids: ArrayLike,
        counts: ArrayLike,
        vocab_size: int,
        dropped_mass: float | None = None,
    ) -> None:
        ids = checks.uint32("token_ids", token_ids)
        occupancy = checks.uint32("counts", counts)
        vocab_size = checks.in_range("vocab_size", vocab_size, MIN_VOCAB, MAX_VOCAB)
        if ids.size != occupancy.size or ids.size == 0:
            raise ValueError(
                "expected as many token_ids as counts and at least one, "
                f"got {ids.size} and {occupancy.size}"
            )
        if np.any(ids[1:] <= ids[:-1]):
            raise ValueError("token_ids must be strictly ascending")
        if ids[-1] >= vocab_size:
            raise ValueError(
                f"token id {ids[-1]} lies outside the vocabulary of {vocab_size}"
            )
        if not occupancy.all():
            raise ValueError("counts must all be at least 1")
        resolution = int(occupancy.sum(dtype=np.uint64))
        if resolution > MAX_RESOLUTION:
            raise ValueError(
                f"counts must sum to at most {MAX_RESOLUTION}, got {resolution}"
            )
        if dropped_mass is not None:
            dropped_mass = checks.finite("dropped_mass", dropped_mass, 0, 1)
        self._token_ids = frozen(ids)
        self._counts = frozen(occupancy)
        self._vocab_size = vocab_size
        self._resolution = resolution
        self._dropped_mass = dropped_mass

    @property
    def token_ids(self) -> NDArray[np.uint32]:
        """The support, uint32 [k], ascending, read-only."""
        return self._token_ids

    @property
    def counts(self) -> NDArray[np.uint32]:
        """Counts of the tokens in the support, uint32 [k], read-only."""
        return self._counts

    @property
    def vocab_size(self) -> int:
        """How many tokens the vocabulary has."""
        return self._vocab_size

    @property
    def resolution(self) -> int:
        """The sum of the counts."""
        return self._resolution

    @property
    def dropped_mass(self) -> float | None:
        """The probability of the tokens dropped; None if it isn't known."""
        return self._dropped_mass

    @property
    def probs(self) -> NDArray[np.float64]:
        """Probabilities of the tokens in the support, float64 [k]."""
        return self._counts / np.float64(self._resolution)

    def prob(self, token: int) -> float:
        """Return the probability of a token; ValueError outside the vocabulary."""
        position = self._position(token)
        if position is None:
            return 0.0
        return int(self._counts[position]) / self._resolution

    def _position(self, token: int) -> int | None:
        """Return where the support holds a token; ValueError as `prob`."""
        token = operator.index(token)
        if not 0 <= token < self._vocab_size:
            raise ValueError(
                f"token {token} lies outside the vocabulary of {self._vocab_size}"
            )
        position = bisect_left(self._token_ids, token)  # of few, faster than numpy's
        if position < self._token_ids.size and self._token_ids[position] == token:
            return position
        return None

    def sample(self, rng: np.random.Generator) -> int:
        """Draw a token, with exactly the probabilities of the counts.

        Parameters
        ----------
        rng : numpy.random.Generator
            Asked for one integer in [0, resolution). It has to be independent
            of the one that `verify` is given: two generators of one seed aren't.
        """
        checks.generator(rng)
        return int(self._token_ids[self._draw(rng)])

    def _draw(self, rng: np.random.Generator) -> int:
        """Return where the support holds the token that is drawn."""
        at = rng.integers(self._resolution)
        return int(self._counts.cumsum().searchsorted(at, "right"))

    def to_dense(self, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Return the probabilities of the whole vocabulary, float [vocab_size]."""
        dense = np.zeros(self._vocab_size, dtype)
        if dense.dtype.kind != "f":
            raise TypeError(f"dtype must be a floating-point type, got {dense.dtype}")
        dense[self._token_ids] = self.probs
        return dense

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SparseDistribution):
            return NotImplemented
        return (
            self._vocab_size == other._vocab_size
            and np.array_equal(self._token_ids, other._token_ids)
            and np.array_equal(self._counts, other._counts)
        )

    def __hash__(self) -> int:
        return hash(
            (self._vocab_size, self._token_ids.tobytes(), self._counts.tobytes())
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return SparseDistribution, (
            self._token_ids,
            self._counts,
            self._vocab_size,
            self._dropped_mass,
        )

    def __repr__(self) -> str:
        return (
            f"<SparseDistribution of {self._token_ids.size} tokens, "
            f"resolution {self._resolution}, vocabulary {self._vocab_size}>"
        )


@dataclass(frozen=True, init=False, repr=False)
class Round:
    """Distributions in drafting order and the token drawn from each.

    Parameters
    ----------
    distributions : sequence of SparseDistribution
        1 to 256 of them, of one vocabulary.
    tokens : sequence of int
        ``tokens[i]`` is in the support of ``distributions[i]``.
    """

    distributions: tuple[SparseDistribution, ...]
    tokens: tuple[int, ...]
    _arrays: RoundArrays = field(init=False, compare=False)

    def __init__(
        self, distributions: Sequence[SparseDistribution], tokens: Sequence[int]
    ) -> None:
        distributions = tuple(distributions)
        tokens = tuple(checks.integers("tokens", tokens))
        length = len(distributions)
        if not 1 <= length <= MAX_ROUND or len(tokens) != length:
            raise ValueError(
                f"a round holds 1 to {MAX_ROUND} distributions and a token of each, "
                f"got {length} distributions and {len(tokens)} tokens"
            )
        for i, q in enumerate(distributions):
            checks.instance(
                f"distributions[{i}]", q, SparseDistribution, "a SparseDistribution"
            )
        if len({q.vocab_size for q in distributions}) > 1:
            raise ValueError("distributions must share one vocabulary")
        positions = []
        for i, (q, token) in enumerate(zip(distributions, tokens, strict=True)):
            position = q._position(token)
            if position is None:
                raise ValueError(
                    f"tokens[{i}] = {token} is not in the support of its distribution"
                )
            positions.append(position)
        _fill(self, distributions, tokens, arrays_of(distributions, positions))

    def __reduce__(self) -> tuple[Any, ...]:
        return Round, (self.distributions, self.tokens)

    def __repr__(self) -> str:
        return (
            f"<Round of {len(self)} tokens, "
            f"vocabulary {self.distributions[0].vocab_size}>"
        )

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, init=False, repr=False)
class MixedRound:
    """A round that doesn't hold all of its distributions.

    What a position lacks its distribution for is known by the drafted token and that
    token's count, which are enough to accept it.

    Parameters
    ----------
    tokens, counts : sequence of int
        1 to 256 of each. The probability with which ``tokens[i]`` was drawn is
        ``counts[i] / resolution``.
    distributions : sequence of SparseDistribution or None
        Those that there are. ``distributions[i].prob(tokens[i])`` is
        ``counts[i] / resolution``.
    resolution, vocab_size : int
        Of all distributions.

    Examples
    --------
    >>> q = SparseDistribution([2, 7], [3, 1], vocab_size=10)
    >>> mixed = MixedRound.of(Round([q, q], [2, 7]), sent=[True, False])
    >>> mixed.counts, mixed.distributions[1]
    ((3, 1), None)
    >>> mixed.with_distribution(1, q).distributions == (q, q)
    True
    """

    tokens: tuple[int, ...]
    counts: tuple[int, ...]
    distributions: tuple[SparseDistribution | None, ...]
    resolution: int
    vocab_size: int

    def __init__(
        self,
        tokens: Sequence[int],
        counts: Sequence[int],
        distributions: Sequence[SparseDistribution | None],
        *,
        resolution: int,
        vocab_size: int,
    ) -> None:
        tokens = tuple(checks.integers("tokens", tokens))
        counts = tuple(checks.integers("counts", counts))
        distributions = tuple(distributions)
        resolution = checks.in_range("resolution", resolution, 1, MAX_RESOLUTION)
        vocab_size = checks.in_range("vocab_size", vocab_size, MIN_VOCAB, MAX_VOCAB)
        lengths = len(tokens), len(counts), len(distributions)
        if not 1 <= len(tokens) <= MAX_ROUND or len(set(lengths)) > 1:
            raise ValueError(
                f"expected 1 to {MAX_ROUND} tokens, and a count and a distribution or "
                f"None for each, got {lengths[0]}, {lengths[1]} and {lengths[2]}"
            )
        for i, (token, count, q) in enumerate(
            zip(tokens, counts, distributions, strict=True)
        ):
            if not 0 <= token < vocab_size:
                raise ValueError(
                    f"tokens[{i}] = {token} lies outside the vocabulary of {vocab_size}"
                )
            if not 1 <= count <= resolution:
                raise ValueError(f"counts[{i}] = {count} is not in [1, {resolution}]")
            if q is not None:
                _check_drafted(i, token, count, q, resolution, vocab_size)
        self._fill(tokens, counts, distributions, resolution, vocab_size)

    def _fill(
        self,
        tokens: tuple[int, ...],
        counts: tuple[int, ...],
        distributions: tuple[SparseDistribution | None, ...],
        resolution: int,
        vocab_size: int,
    ) -> None:
        object.__setattr__(self, "tokens", tokens)
        object.__setattr__(self, "counts", counts)
        object.__setattr__(self, "distributions", distributions)
        object.__setattr__(self, "resolution", resolution)
        object.__setattr__(self, "vocab_size", vocab_size)

    @classmethod
    def of(cls, round_: Round, sent: Sequence[bool]) -> MixedRound:
        """Return a round with the distributions of the positions in `sent` alone."""
        checks.instance("round_", round_, Round, "a Round")
        if len(sent) != len(round_):
            raise ValueError(
                f"expected a truth value for each of {len(round_)} positions, "
                f"got {len(sent)}"
            )
        *_, positions = as_arrays(round_)
        return cls(
            round_.tokens,
            [
                int(q.counts[at])
                for q, at in zip(round_.distributions, positions, strict=True)
            ],
            [q if s else None for q, s in zip(round_.distributions, sent, strict=True)],
            resolution=round_.distributions[0].resolution,
            vocab_size=round_.distributions[0].vocab_size,
        )

    def distribution(self, position: int) -> SparseDistribution | None:
        """Return the distribution of a position, if it is there or beyond doubt.

        It is beyond doubt where the drafted token has all counts, as it always has at
        temperature 0.
        """
        position = checks.in_range("position", position, 0, len(self) - 1)
        q = self.distributions[position]
        if q is None and self.counts[position] == self.resolution:
            token = self.tokens[position]
            return SparseDistribution([token], [self.resolution], self.vocab_size)
        return q

    def with_distribution(self, position: int, q: SparseDistribution) -> MixedRound:
        """Return the round with one more distribution.

        Raises
        ------
        ValueError
            If `q` has another count for the drafted token than the round, or is of
            another vocabulary or resolution.
        """
        position = checks.in_range("position", position, 0, len(self) - 1)
        distributions = [*self.distributions]
        distributions[position] = q
        return MixedRound(
            self.tokens,
            self.counts,
            distributions,
            resolution=self.resolution,
            vocab_size=self.vocab_size,
        )

    def __repr__(self) -> str:
        held = sum(q is not None for q in self.distributions)
        return (
            f"<MixedRound of {len(self)} tokens and {held} of their distributions, "
            f"resolution {self.resolution}, vocabulary {self.vocab_size}>"
        )

    @property
    def probs(self) -> NDArray[np.float64]:
        """Probabilities with which the tokens were drawn, float64 [L]."""
        return np.array(self.counts) / np.float64(self.resolution)

    def __len__(self) -> int:
        return len(self.tokens)


def _check_drafted(
    i: int,
    token: int,
    count: int,
    q: SparseDistribution,
    resolution: int,
    vocab_size: int,
) -> None:
    """Check that a distribution is one from which a token of this count was drawn."""
    checks.instance(
        f"distributions[{i}]", q, SparseDistribution, "a SparseDistribution or None"
    )
    if q.vocab_size != vocab_size or q.resolution != resolution:
        raise ValueError(
            f"distributions[{i}] must have vocabulary {vocab_size} and resolution "
            f"{resolution}, got {q.vocab_size} and {q.resolution}"
        )
    position = q._position(token)
    found = 0 if position is None else int(q.counts[position])
    if found != count:
        raise ValueError(
            f"distributions[{i}] counts the drafted token {token} {found} times, "
            f"counts[{i}] is {count}"
        )


# For the other modules of the package: between values and the arrays of a core.


def as_distribution(
    token_ids: Ids,
    counts: Ids,
    vocab_size: int,
    resolution: int,
    dropped_mass: float | None = None,
) -> SparseDistribution:
    """Return the distribution of frozen arrays that a core vouches for."""
    q = SparseDistribution.__new__(SparseDistribution)
    q._token_ids = token_ids
    q._counts = counts
    q._vocab_size = vocab_size
    q._resolution = resolution
    q._dropped_mass = dropped_mass
    return q


def as_round(arrays: RoundArrays, vocab_size: int, resolution: int) -> Round:
    """Return the round of arrays that a core vouches for."""
    ids, counts, survivors, positions = arrays
    distributions, tokens = [], []
    start = 0
    for n, position in zip(survivors.tolist(), positions.tolist(), strict=True):
        part = slice(start, start + n)
        distributions.append(
            as_distribution(ids[part], counts[part], vocab_size, resolution)
        )
        tokens.append(int(ids[start + position]))
        start += n
    round_ = Round.__new__(Round)
    _fill(round_, tuple(distributions), tuple(tokens), arrays)
    return round_


def arrays_of(
    distributions: Sequence[SparseDistribution], positions: Sequence[int]
) -> RoundArrays:
    """Return the arrays of a round, given where supports hold the drafted tokens."""
    return (
        _joined([q._token_ids for q in distributions]),
        _joined([q._counts for q in distributions]),
        np.array([q._counts.size for q in distributions], np.uint32),
        np.array(positions, np.uint32),
    )


def as_mixed(arrays: RoundArrays, vocab_size: int, resolution: int) -> MixedRound:
    """Return the mixed round of arrays that a core vouches for."""
    ids, counts, survivors, positions = arrays
    distributions: list[SparseDistribution | None] = []
    drafted = []
    start = 0
    for n, position in zip(survivors.tolist(), positions.tolist(), strict=True):
        part = slice(start, start + n)
        distributions.append(
            as_distribution(ids[part], counts[part], vocab_size, resolution)
            if n
            else None
        )
        drafted.append(start + position)
        start += max(n, 1)
    mixed = MixedRound.__new__(MixedRound)
    mixed._fill(
        tuple(ids[drafted].tolist()),
        tuple(counts[drafted].tolist()),
        tuple(distributions),
        resolution,
        vocab_size,
    )
    return mixed


def mixed_arrays(mixed: MixedRound) -> RoundArrays:
    """Return a mixed round as cores take it: see `Core.encode_mixed`."""
    ids, counts, survivors, positions = [], [], [], []
    for token, count, q in zip(
        mixed.tokens, mixed.counts, mixed.distributions, strict=True
    ):
        position = 0 if q is None else q._position(token)
        assert position is not None
        ids.append(np.array([token], np.uint32) if q is None else q._token_ids)
        counts.append(np.array([count], np.uint32) if q is None else q._counts)
        survivors.append(0 if q is None else q._token_ids.size)
        positions.append(position)
    return (
        _joined(ids),
        _joined(counts),
        np.array(survivors, np.uint32),
        np.array(positions, np.uint32),
    )


def _fill(
    round_: Round,
    distributions: tuple[SparseDistribution, ...],
    tokens: tuple[int, ...],
    arrays: RoundArrays,
) -> None:
    object.__setattr__(round_, "distributions", distributions)
    object.__setattr__(round_, "tokens", tokens)
    object.__setattr__(round_, "_arrays", arrays)


def make_round(
    given: Round | Sequence[SparseDistribution], tokens: Sequence[int] | None
) -> Round:
    """Return a round that may be given as distributions and tokens."""
    if isinstance(given, Round) == (tokens is not None):
        raise TypeError("expected distributions and tokens, or a Round alone")
    if isinstance(given, Round):
        return given
    assert tokens is not None
    return Round(given, tokens)


def as_arrays(round_: Round) -> RoundArrays:
    """Return a round as cores take it.

    Token ids and counts of all distributions, one after the other; the size of
    each support; and the position of each drafted token in its support.
    """
    return round_._arrays


def _joined(arrays: Sequence[Ids]) -> Ids:
    """Return one array of all; np.concatenate takes three times as long."""
    return np.frombuffer(b"".join([array.data for array in arrays]), np.uint32)
