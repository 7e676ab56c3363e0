"""Priors: how frequent the ids of a tokenizer are, as both ends agree on it.

A prior is the content of a file, whose layout `docs/format.md` describes:

    "sqsprior"  8 bytes
    version     1 byte, 1
    C           1 byte: the number of classes, 1 to 32
    V           4 bytes, little-endian: the size of the vocabulary
    chances     C + 1 rows of C bytes: how likely each class is at the start, and
                after a distribution of each class
    weights     C rows of 256 bytes: a code for what each kind of id weighs
    kinds       V bytes: the kind of each id
    check       4 bytes, little-endian: the CRC-32 of all that is before
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sqs_codec import _checks as checks
from sqs_codec._distribution import SparseDistribution
from sqs_codec._format import (
    MAX_PRIOR_CLASSES,
    MAX_VOCAB,
    MIN_VOCAB,
    MOST_PRIOR_WEIGHT,
    PRIOR_KINDS,
    prior_weight,
)

if TYPE_CHECKING:
    import os
    from importlib.resources.abc import Traversable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Prior"]

MAGIC = b"sqsprior"
VERSION = 1
HEADER = len(MAGIC) + 6
ENDING = ".sqsprior"

CODE_WEIGHTS = np.array([prior_weight(code) for code in range(256)], np.int64)
"""What the codes of weights stand for, an eighth of an octave apart or less."""


def _size(classes: int, vocab_size: int) -> int:
    """Return the size of a file in bytes."""
    tables = (classes + 1) * classes + classes * PRIOR_KINDS
    return HEADER + tables + vocab_size + 4


MOST_BYTES = _size(MAX_PRIOR_CLASSES, MAX_VOCAB)


def _check_header(data: bytes) -> str | None:
    """Say what is wrong with the header, as far as there is one."""
    if not MAGIC.startswith(data[:8]):
        return f"it does not begin with {MAGIC.decode()!r}"
    if len(data) > 8 and data[8] != VERSION:
        return f"its version is {data[8]}, and this release reads version {VERSION}"
    if len(data) > 9 and not 1 <= data[9] <= MAX_PRIOR_CLASSES:
        return f"it has {data[9]} classes; 1 to {MAX_PRIOR_CLASSES} are allowed"
    vocab_size = int.from_bytes(data[10:HEADER], "little")
    if len(data) >= HEADER and not MIN_VOCAB <= vocab_size <= MAX_VOCAB:
        return (
            f"its vocabulary has {vocab_size} ids; {MIN_VOCAB} to {MAX_VOCAB} are "
            "allowed"
        )
    return None


def _check_frame(data: bytes) -> str | None:
    """Say what is wrong with a file, but for what its tables hold."""
    problem = _check_header(data)
    if problem:
        return problem
    if len(data) < HEADER:
        return f"it ends inside its header, after {len(data)} bytes"
    expected = _size(data[9], int.from_bytes(data[10:HEADER], "little"))
    if len(data) != expected:
        size = len(data) if len(data) <= MOST_BYTES else f"over {MOST_BYTES}"
        return f"it should have {expected} bytes, and has {size}"
    if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        return "its check doesn't fit: it was damaged"
    return None


class Prior:
    """How frequent the ids of a tokenizer are, which saves bits if both ends know it.

    A prior knows several classes of contexts, such as that a word begins, that one
    goes on or that the text is Chinese, and what each id weighs in each of them. It
    is made for one tokenizer. A `Codec` that is given one takes fewer bits for the
    ids of what the prior was made for, and hardly more for anything else.

    Immutable, hashable and picklable; equal if all bytes are. `builtin`, `load`, `fit`,
    `from_counts` and `from_bytes` make one.

    Attributes
    ----------
    vocab_size : int
    classes : int
        1 to 32.
    digest : bytes
        8 bytes that name the prior: BLAKE2b of its file.

    Examples
    --------
    >>> prior = Prior.builtin("smollm2")
    >>> prior.vocab_size, prior.classes
    (49152, 32)
    >>> Prior()
    Traceback (most recent call last):
        ...
    TypeError: a Prior comes from Prior.builtin, load, fit, from_counts or from_bytes
    """

    vocab_size: int
    classes: int
    _data: bytes
    _chances: NDArray[np.uint8]
    """[C + 1, C]; this and those below are views of the bytes, so read-only."""
    _weights: NDArray[np.uint8]
    """[C, 256], of codes."""
    _kinds: NDArray[np.uint8]
    """[V]."""

    def __new__(cls) -> Prior:
        """Refuse to make a prior of nothing."""
        raise TypeError(
            "a Prior comes from Prior.builtin, load, fit, from_counts or from_bytes"
        )

    @classmethod
    def _read(cls, data: bytes, source: str) -> Prior:
        """Return the prior of a file's bytes; errors say where these are from."""
        problem = _check_frame(data)
        if problem:
            raise ValueError(f"{source} is not a prior: {problem}")
        prior = super().__new__(cls)
        classes, vocab_size = data[9], int.from_bytes(data[10:HEADER], "little")
        tables = np.frombuffer(data, np.uint8)[HEADER:-4]
        chances, weights, kinds = np.split(
            tables, [(classes + 1) * classes, tables.size - vocab_size]
        )
        prior.__dict__.update(
            vocab_size=vocab_size,
            classes=classes,
            _data=data,
            _chances=chances.reshape(classes + 1, classes),
            _weights=weights.reshape(classes, PRIOR_KINDS),
            _kinds=kinds,
        )
        problem = prior._check_tables()
        if problem:
            raise ValueError(f"{source} is not a prior: {problem}")
        return prior

    def _check_tables(self) -> str | None:
        """Say what is wrong with the chances or the weights."""
        if not self._chances.all():
            row, column = np.argwhere(self._chances == 0)[0]
            return f"chances[{row}][{column}] is 0; all must be at least 1"
        sums = CODE_WEIGHTS[self._weights] @ np.bincount(
            self._kinds, minlength=PRIOR_KINDS
        )
        if sums.max() > MOST_PRIOR_WEIGHT:
            c = int(sums.argmax())
            return f"the ids of class {c} weigh {sums[c]}; at most 2^31 is allowed"
        return None

    @classmethod
    def _pack(
        cls,
        chances: NDArray[np.uint8],
        weights: NDArray[np.uint8],
        kinds: NDArray[np.uint8],
    ) -> Prior:
        """Return the prior of its tables: [C + 1, C], [C, 256] and [V]."""
        classes = len(weights)
        tables = chances, weights, kinds
        shapes = (classes + 1, classes), (classes, PRIOR_KINDS), (len(kinds),)
        assert tuple(table.shape for table in tables) == shapes
        assert all(table.dtype == np.uint8 for table in tables)
        header = MAGIC + bytes([VERSION, classes]) + len(kinds).to_bytes(4, "little")
        data = header + b"".join(table.tobytes() for table in tables)
        return cls._read(data + zlib.crc32(data).to_bytes(4, "little"), "what was made")

    # Where priors come from, and where they go

    @classmethod
    def from_counts(cls, counts: ArrayLike) -> Prior:
        """Return a prior of one class: how often each id is in a text.

        Any text of the kind that is going to be written will do; a hundred thousand
        tokens are enough to gain most. How much is kept back for ids that the text
        doesn't have is chosen by its own tokens: each in turn is predicted from all
        the others.

        Parameters
        ----------
        counts : array_like of int [vocab_size]
            Not negative; at least one above 0.

        Examples
        --------
        >>> text = [5, 3, 5, 7, 5, 3]
        >>> prior = Prior.from_counts(np.bincount(text, minlength=10))
        >>> prior.vocab_size, prior.classes
        (10, 1)
        """
        from sqs_codec._fit import fit_counts

        return cls._pack(*fit_counts(_check_counts(counts)))

    @classmethod
    def fit(
        cls,
        distributions: Iterable[SparseDistribution],
        counts: ArrayLike | None = None,
        *,
        classes: int | None = None,
    ) -> Prior:
        """Return a prior for distributions like those given.

        They tell which ids are likely in the same context, which the counts of a
        text don't. Ten thousand gain a good part of what there is to gain, and a
        hundred thousand nearly all; they take a minute.

        Parameters
        ----------
        distributions : iterable of SparseDistribution
            What the draft model gave, in the order of the text. Take the keep rule,
            the resolution and the temperatures that will be used.
        counts : array_like of int [vocab_size], optional
            How often each id is in a text, for ids that the distributions lack.
        classes : int, optional
            How many classes of contexts to tell apart, 1 to 32. If None, and for
            all other choices, those are taken that give the fewest bits for every
            fifth run of the distributions after fitting to the others.

        Raises
        ------
        ValueError
            If there are no distributions, or they have different vocabularies.
        """
        from sqs_codec._fit import Supports, fit_supports

        supports, vocab_size = [], 0
        for q in distributions:
            checks.instance("distributions", q, SparseDistribution, "distributions")
            if vocab_size not in (0, q.vocab_size):
                raise ValueError(
                    f"the distributions have vocabularies of {vocab_size} and "
                    f"{q.vocab_size}; a prior is for one"
                )
            vocab_size = q.vocab_size
            supports.append(q.token_ids)
        if not supports:
            raise ValueError("there are no distributions to fit a prior to")
        text = None if counts is None else _check_counts(counts, vocab_size)
        if classes is not None:
            classes = checks.in_range("classes", classes, 1, MAX_PRIOR_CLASSES)
        return cls._pack(*fit_supports(Supports(supports), vocab_size, text, classes))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Prior:
        """Return the prior of a file.

        Raises
        ------
        ValueError
            If it isn't the file of a prior, or was damaged.
        OSError
            If it can't be read.

        Examples
        --------
        >>> Prior.load("/dev/null")
        Traceback (most recent call last):
            ...
        ValueError: /dev/null is not a prior: it ends inside its header, after 0 bytes
        """
        with Path(path).open("rb") as file:
            data = file.read(MOST_BYTES + 1)  # so that a file of any size is no harm
        return cls._read(data, str(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the prior's file, over one that is there."""
        Path(path).write_bytes(self._data)

    @classmethod
    def from_bytes(cls, data: bytes) -> Prior:
        """Return the prior of a file's bytes, which may come from anywhere.

        Parameters
        ----------
        data : bytes-like

        Raises
        ------
        ValueError
            If these aren't the bytes of a prior's file, or were damaged.

        Examples
        --------
        >>> Prior.from_bytes(b"sqsprior")
        Traceback (most recent call last):
            ...
        ValueError: the data is not a prior: it ends inside its header, after 8 bytes
        """
        return cls._read(checks.packet(data), "the data")

    def to_bytes(self) -> bytes:
        """Return the bytes of the prior's file."""
        return self._data

    @classmethod
    def builtin(cls, name: str) -> Prior:
        """Return a prior that comes with this package.

        Raises
        ------
        ValueError
            If there is none of this name; the message lists those that are there.
        """
        checks.instance("name", name, str, "a string")
        files = _builtin_files()
        if name not in files:
            raise ValueError(f"name must be one of {sorted(files)}, got {name!r}")
        return cls._read(files[name].read_bytes(), name + ENDING)

    @classmethod
    def _find_builtin(cls, digest: str) -> Prior | None:
        """Return the prior with this digest, in hex, if it comes with this package."""
        priors = map(cls.builtin, _builtin_files())
        return next((p for p in priors if p.digest.hex() == digest), None)

    # What makes it a value

    @cached_property
    def digest(self) -> bytes:
        """8 bytes that name the prior: BLAKE2b of its file."""
        import hashlib  # takes long to import, and most programs have no prior

        return hashlib.blake2b(self._data, digest_size=8).digest()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Prior can't change: cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Prior can't change: cannot delete {name!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Prior):
            return NotImplemented
        return self._data == other._data

    def __hash__(self) -> int:
        return hash(self._data)

    def __copy__(self) -> Prior:
        return self

    def __deepcopy__(self, memo: object) -> Prior:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Prior.from_bytes, (self._data,)

    def __repr__(self) -> str:
        return (
            f"<Prior {self.digest.hex()}: vocab_size={self.vocab_size}, "
            f"classes={self.classes}>"
        )


def _check_counts(
    counts: ArrayLike, vocab_size: int | None = None
) -> NDArray[np.float64]:
    """Return the counts of a text, checked."""
    given = np.asarray(counts)
    if not np.issubdtype(given.dtype, np.integer):
        raise TypeError(f"counts must be integers, got {given.dtype}")
    low, high = (vocab_size, vocab_size) if vocab_size else (MIN_VOCAB, MAX_VOCAB)
    if given.ndim != 1 or not low <= given.size <= high:
        wanted = f"[{vocab_size}]" if vocab_size else f"[{low} to {high}]"
        raise ValueError(f"counts must have shape {wanted}, got {list(given.shape)}")
    if given.min() < 0:
        raise ValueError(f"counts[{given.argmin()}] is negative: {given.min()}")
    if not given.any():
        raise ValueError("all counts are 0: there is no text")
    return given.astype(np.float64)


def _builtin_files() -> dict[str, Traversable]:
    """Return the files of the priors that come with this package, by name."""
    from importlib.resources import files  # takes long to import, and is seldom used

    folder = files("sqs_codec") / "priors"
    found = folder.iterdir() if folder.is_dir() else ()
    return {
        file.name[: -len(ENDING)]: file for file in found if file.name.endswith(ENDING)
    }
