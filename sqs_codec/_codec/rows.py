"""Many distributions in three arrays."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from sqs_codec._backend.core import Ids, frozen, joined
from sqs_codec._base import checks
from sqs_codec._base.format import MAX_RESOLUTION
from sqs_codec._codec.distribution import SparseDistribution, as_distribution, shape_of


class SparseRows(Sequence[SparseDistribution]):
    """Distributions with the same vocabulary and resolution, as arrays. Immutable.

    The arrays form a sparse matrix in CSR format: row i has the tokens
    ``token_ids[offsets[i]:offsets[i + 1]]`` and the counts with the same indices. As a
    sequence it contains a `SparseDistribution` per row; a slice is a `SparseRows`.

    Parameters
    ----------
    token_ids : array_like of int [n]
        Strictly ascending in each row, below `vocab_size`.
    counts : array_like of int [n]
        All at least 1. Each row sums to `resolution`.
    offsets : array_like of int [N + 1]
        From 0 to n, strictly ascending.

    Examples
    --------
    >>> rows = SparseRows([2, 7, 5], [3, 1, 4], [0, 2, 3], vocab_size=8, resolution=4)
    >>> len(rows), rows[1]
    (2, <SparseDistribution of 1 tokens, resolution 4, vocabulary 8>)
    >>> rows.to_dense()
    array([[0.  , 0.  , 0.75, 0.  , 0.  , 0.  , 0.  , 0.25],
           [0.  , 0.  , 0.  , 0.  , 0.  , 1.  , 0.  , 0.  ]], dtype=float32)
    """

    __slots__ = ("_counts", "_offsets", "_resolution", "_token_ids", "_vocab_size")

    _token_ids: Ids
    _counts: Ids
    _offsets: NDArray[np.int64]
    _vocab_size: int
    _resolution: int

    def __init__(
        self,
        token_ids: ArrayLike,
        counts: ArrayLike,
        offsets: ArrayLike,
        vocab_size: int,
        resolution: int,
    ) -> None:
        self._token_ids = frozen(checks.uint32("token_ids", token_ids))
        self._counts = frozen(checks.uint32("counts", counts))
        self._offsets = frozen(checks.uint32("offsets", offsets).astype(np.int64))
        self._vocab_size = checks.vocabulary(vocab_size)
        self._resolution = checks.in_range("resolution", resolution, 1, MAX_RESOLUTION)
        self._check()

    def _check(self) -> None:
        ids, counts, ends = self._token_ids, self._counts, self._offsets
        if not ends.size or ends[0] or ends[-1] != ids.size or ids.size != counts.size:
            raise ValueError(
                "offsets must go from 0 to the number of token_ids and of counts, "
                f"{ids.size} and {counts.size}, got "
                f"{ends.size} from {ends.min(initial=0)} to {ends.max(initial=0)}"
            )
        _refuse(ends[1:] <= ends[:-1], "is empty")
        starts = ends[:-1]
        if not len(starts):
            return
        ascends = np.ones(ids.size, np.bool_)
        ascends[1:] = ids[1:] > ids[:-1]
        ascends[starts] = True
        last = ids[ends[1:] - 1]
        by_row = np.logical_and.reduceat
        _refuse(~by_row(ascends, starts), "has token_ids that don't ascend")
        _refuse(
            last >= self._vocab_size,
            f"has a token id outside the vocabulary of {self._vocab_size}",
        )
        _refuse(~by_row(counts > 0, starts), "has a count of 0")
        sums = np.add.reduceat(counts, starts, dtype=np.uint64)
        _refuse(
            sums != self._resolution,
            f"has counts that don't sum to the resolution of {self._resolution}",
        )

    @classmethod
    def stack(cls, distributions: Sequence[SparseDistribution]) -> SparseRows:
        """Return distributions as rows; at least one is needed."""
        if isinstance(distributions, SparseRows):
            return distributions
        rows = [*distributions]
        shape = shape_of("distributions", rows, SparseDistribution)
        return _join(rows, [q.token_ids.size for q in rows], *shape)

    @classmethod
    def concatenate(cls, parts: Iterable[SparseRows]) -> SparseRows:
        """Return the rows of all parts; at least one is needed.

        Examples
        --------
        >>> rows = SparseRows([2, 7, 5], [3, 1, 4], [0, 2, 3], 8, 4)
        >>> SparseRows.concatenate([rows[1:], rows]).counts
        array([4, 3, 1, 4], dtype=uint32)
        """
        rows = [*parts]
        shape = shape_of("parts", rows, SparseRows)
        return _join(rows, np.concatenate([np.diff(p.offsets) for p in rows]), *shape)

    @property
    def token_ids(self) -> NDArray[np.uint32]:
        """The tokens of all rows, concatenated, uint32 [n], read-only."""
        return self._token_ids

    @property
    def counts(self) -> NDArray[np.uint32]:
        """The counts of `token_ids`, uint32 [n], read-only."""
        return self._counts

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where each row begins, and the end of the last, int64 [N + 1], read-only."""
        return self._offsets

    @property
    def vocab_size(self) -> int:
        """The size of the vocabulary."""
        return self._vocab_size

    @property
    def resolution(self) -> int:
        """The sum of each row's counts."""
        return self._resolution

    def to_dense(self, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Return the probabilities of the whole vocabulary, float [N, vocab_size]."""
        dense = np.zeros((len(self), self._vocab_size), dtype)
        if dense.dtype.kind != "f":
            raise TypeError(f"dtype must be a floating-point type, got {dense.dtype}")
        row = np.repeat(np.arange(len(self)), np.diff(self._offsets))
        dense[row, self._token_ids] = self._counts / np.float64(self._resolution)
        return dense

    def __len__(self) -> int:
        return self._offsets.size - 1

    @overload
    def __getitem__(self, index: int) -> SparseDistribution: ...
    @overload
    def __getitem__(self, index: slice) -> SparseRows: ...
    def __getitem__(self, index: int | slice) -> SparseDistribution | SparseRows:
        if isinstance(index, slice):
            return self._slice(range(len(self))[index])
        row = range(len(self))[operator.index(index)]
        start, end = self._offsets[row : row + 2]
        ids, counts = self._token_ids[start:end], self._counts[start:end]
        return as_distribution(ids, counts, self._vocab_size, self._resolution)

    def _slice(self, rows: range) -> SparseRows:
        """Return a slice; a contiguous one takes constant time per array."""
        shape = self._vocab_size, self._resolution
        if rows.step != 1:
            parts = [self[row] for row in rows]
            return _join(parts, [q.token_ids.size for q in parts], *shape)
        ends = self._offsets[rows.start : rows.start + len(rows) + 1]
        cut = slice(ends[0], ends[-1])
        return as_rows(self._token_ids[cut], self._counts[cut], np.diff(ends), *shape)

    def __iter__(self) -> Iterator[SparseDistribution]:
        return map(self.__getitem__, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SparseRows):
            return NotImplemented
        return (
            (self._vocab_size, self._resolution)
            == (other._vocab_size, other._resolution)
            and np.array_equal(self._offsets, other._offsets)
            and np.array_equal(self._token_ids, other._token_ids)
            and np.array_equal(self._counts, other._counts)
        )

    def __hash__(self) -> int:
        arrays = self._offsets, self._token_ids, self._counts
        shape = self._vocab_size, self._resolution
        return hash((*shape, *(array.tobytes() for array in arrays)))

    def __reduce__(self) -> tuple[Any, ...]:
        arrays = self._token_ids, self._counts, self._offsets
        return SparseRows, (*arrays, self._vocab_size, self._resolution)

    def __repr__(self) -> str:
        return (
            f"<SparseRows of {len(self)} distributions, resolution "
            f"{self._resolution}, vocabulary {self._vocab_size}>"
        )


def as_rows(
    token_ids: Ids, counts: Ids, sizes: ArrayLike, vocab_size: int, resolution: int
) -> SparseRows:
    """Return rows of frozen arrays that a core has checked; `sizes` are the rows'."""
    rows = SparseRows.__new__(SparseRows)
    rows._token_ids = token_ids
    rows._counts = counts
    rows._offsets = frozen(np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]))
    rows._vocab_size = vocab_size
    rows._resolution = resolution
    return rows


def _join(
    parts: Sequence[SparseDistribution | SparseRows], sizes: ArrayLike, *shape: int
) -> SparseRows:
    """Return the rows of all parts; `sizes` are the rows'."""
    ids = joined([part.token_ids for part in parts])
    return as_rows(ids, joined([part.counts for part in parts]), sizes, *shape)


def _refuse(bad: NDArray[np.bool_], what: str) -> None:
    """Raise an error that names the first bad row."""
    if bad.any():
        raise ValueError(f"row {int(bad.argmax())} {what}")
