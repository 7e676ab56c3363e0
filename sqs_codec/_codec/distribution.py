"""A sparse distribution as integer counts."""

from __future__ import annotations

import operator
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from sqs_codec._backend.core import Ids, frozen
from sqs_codec._base import checks
from sqs_codec._base.format import MAX_RESOLUTION


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
    dropped_mass : float, optional
        The probability of the tokens that the keep rule dropped. It isn't encoded: it
        is None after decoding, and ``==`` ignores it.

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
        vocab_size = checks.vocabulary(vocab_size)
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
        """The size of the vocabulary."""
        return self._vocab_size

    @property
    def resolution(self) -> int:
        """The sum of the counts."""
        return self._resolution

    @property
    def dropped_mass(self) -> float | None:
        """The probability of the dropped tokens; None if unknown."""
        return self._dropped_mass

    @property
    def probs(self) -> NDArray[np.float64]:
        """Probabilities of the tokens in the support, float64 [k]."""
        return self._counts / np.float64(self._resolution)

    def prob(self, token: int) -> float:
        """Return the probability of a token; ValueError outside the vocabulary."""
        position = position_of(self, token)
        if position is None:
            return 0.0
        return int(self._counts[position]) / self._resolution

    def sample(self, rng: np.random.Generator) -> int:
        """Sample a token with exactly the probabilities of the counts.

        Takes one integer in [0, resolution) from `rng`, which must be independent of
        the generator for `verify`: two generators with the same seed aren't.
        """
        checks.generator(rng)
        return int(self._token_ids[self._draw(rng)])

    def _draw(self, rng: np.random.Generator) -> int:
        """Sample, and return the token's position in the support."""
        at: Any = rng.integers(self._resolution)
        if not 0 <= at < self._resolution:  # inline, because a call is slower
            checks.in_range("rng.integers", at, 0, self._resolution - 1)
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
        arrays = self._token_ids, self._counts
        return hash((self._vocab_size, *(array.tobytes() for array in arrays)))

    def __reduce__(self) -> tuple[Any, ...]:
        arrays = self._token_ids, self._counts
        return SparseDistribution, (*arrays, self._vocab_size, self._dropped_mass)

    def __repr__(self) -> str:
        return (
            f"<SparseDistribution of {self._token_ids.size} tokens, "
            f"resolution {self._resolution}, vocabulary {self._vocab_size}>"
        )


def as_distribution(
    token_ids: Ids,
    counts: Ids,
    vocab_size: int,
    resolution: int,
    dropped_mass: float | None = None,
) -> SparseDistribution:
    """Return the distribution of frozen arrays that a core has checked."""
    q = SparseDistribution.__new__(SparseDistribution)
    q._token_ids = token_ids
    q._counts = counts
    q._vocab_size = vocab_size
    q._resolution = resolution
    q._dropped_mass = dropped_mass
    return q


def shape_of(name: str, parts: Sequence[Any], kind: type) -> tuple[int, int]:
    """Check that parts share a vocabulary and a resolution, and return both."""
    for i, part in enumerate(parts):
        checks.instance(f"{name}[{i}]", part, kind, f"a {kind.__name__}")
    shapes = sorted({(part.vocab_size, part.resolution) for part in parts})
    if len(shapes) != 1:
        raise ValueError(
            f"{name} must not be empty, and must share vocabulary and resolution, "
            f"got {shapes or 'none'}"
        )
    return shapes[0]


def position_of(q: SparseDistribution, token: int) -> int | None:
    """Return a token's position in a support; ValueError outside the vocabulary."""
    token = operator.index(token)
    if not 0 <= token < q.vocab_size:
        raise ValueError(f"token {token} lies outside the vocabulary of {q.vocab_size}")
    position = bisect_left(q.token_ids, token)  # faster than NumPy for small supports
    if position < q.token_ids.size and q.token_ids[position] == token:
        return position
    return None
