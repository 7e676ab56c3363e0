"""Priors: frequencies of a tokenizer's ids, shared by both ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from sqs_codec._base import checks
from sqs_codec._base.files import read_file, write_file
from sqs_codec._base.format import MAX_PRIOR_CLASSES, MAX_VOCAB, MIN_VOCAB
from sqs_codec._base.lazy import lazy
from sqs_codec._base.prior_file import MOST_BYTES, Tables
from sqs_codec._codec.distribution import SparseDistribution

if TYPE_CHECKING:
    import os
    from importlib.resources.abc import Traversable

    from numpy.typing import ArrayLike, NDArray


PriorName = Literal["gemma3", "gpt2", "llama3", "qwen3", "smollm2"]
"""Priors that come with the package."""

ENDING = ".sqsprior"


class Prior:
    """Frequencies of a tokenizer's ids. They save bits if both ends have them.

    A prior has several classes of contexts, such as the start of a word, its middle, or
    Chinese text. Each id has a weight in each class. It belongs to one tokenizer. A
    `Codec` with a prior takes fewer bits for text like that which the prior was fitted
    to. Other text may take more bits than without a prior, but never many more than
    with coding ``"enumerative"``.

    Immutable, hashable and picklable; equal if all bytes are. Made with `builtin`,
    `load`, `fit`, `from_counts` or `from_bytes`.

    Attributes
    ----------
    classes : int
        1 to 32.
    digest : bytes
        8 bytes that identify the prior: BLAKE2b of its file.

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
    _tables: Tables

    def __new__(cls) -> Prior:
        raise TypeError(
            "a Prior comes from Prior.builtin, load, fit, from_counts or from_bytes"
        )

    @classmethod
    def _read(cls, data: bytes, source: str) -> Prior:
        """Return the prior of a file's bytes; errors name the `source`."""
        try:
            tables = Tables.read(data)
        except ValueError as error:
            raise ValueError(f"{source} is not a prior: {error}") from None
        prior = super().__new__(cls)
        sizes = {"vocab_size": len(tables.kinds), "classes": len(tables.weights)}
        prior.__dict__.update(sizes, _data=data, _tables=tables)
        return prior

    # Making and saving

    @classmethod
    def fit(
        cls,
        distributions: Iterable[SparseDistribution],
        counts: ArrayLike | None = None,
        *,
        classes: int | None = None,
    ) -> Prior:
        """Fit a prior to distributions, and optionally to the ids of a text.

        Unlike a text's counts, distributions show which ids are probable in the same
        context. 10,000 distributions give most of the gain, 100,000 nearly all; they
        take about a minute, or three with a vocabulary of 262 144 ids.

        Parameters
        ----------
        distributions : iterable of SparseDistribution
            Distributions of the draft model, in the order of the text, made with the
            keep rule, resolution and temperatures of the later use.
        counts : array_like of int [vocab_size], optional
            As for `from_counts`, for ids that the distributions lack. Without any
            distributions, the result is that of `from_counts`.
        classes : int, optional
            The number of classes, 1 to 32. If None, `fit` chooses the number with the
            fewest bits for held-out distributions, every fifth run. It always chooses
            the smoothing in this way.

        Raises
        ------
        ValueError
            If there is no data, or the vocabularies differ.

        Examples
        --------
        >>> drafts = [SparseDistribution([i % 9, 9], [3, 1], 10) for i in range(50)]
        >>> prior = Prior.fit(drafts, classes=2)
        >>> prior.vocab_size, prior.classes
        (10, 2)
        """
        from sqs_codec._codec import prior_fit

        supports, vocab_size = [], 0
        for q in distributions:
            checks.instance("distributions", q, SparseDistribution, "distributions")
            if vocab_size not in (0, q.vocab_size):
                raise ValueError(
                    f"all distributions must have one vocabulary, got {vocab_size} "
                    f"and {q.vocab_size}"
                )
            vocab_size = q.vocab_size
            supports.append(q.token_ids)
        if not supports and counts is None:
            raise ValueError("expected distributions or counts, got neither")
        text = None
        if counts is not None:
            text = prior_fit.smooth_counts(_check_counts(counts, vocab_size))
        if classes is not None:
            most = MAX_PRIOR_CLASSES if supports else 1  # counts have no contexts
            classes = checks.in_range("classes", classes, 1, most)
        if supports:
            given = prior_fit.Supports(supports)
            tables = prior_fit.fit_supports(given, vocab_size, text, classes)
        else:
            assert text is not None
            tables = prior_fit.one_class(text)
        return cls.from_bytes(tables.write())

    @classmethod
    def from_counts(cls, counts: ArrayLike) -> Prior:
        """Return a prior with one class, from the counts of a text's ids.

        The smoothing is the one that best predicts each token from the others.

        Parameters
        ----------
        counts : array_like of int [vocab_size]
            How often each id occurs in a representative text; 100,000 tokens give most
            of the gain. Non-negative, and not all 0.

        Examples
        --------
        >>> text = [5, 3, 5, 7, 5, 3]
        >>> prior = Prior.from_counts(np.bincount(text, minlength=10))
        >>> prior.vocab_size, prior.classes
        (10, 1)
        """
        return cls.fit((), counts)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Prior:
        """Return the prior of a file; ValueError if the file is invalid or damaged."""
        return cls._read(read_file(path, MOST_BYTES + 1), str(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write or replace the prior's file; on failure the old file stays.

        A ValueError says that the path isn't a regular file.
        """
        write_file(path, self._data)

    @classmethod
    def from_bytes(cls, data: bytes) -> Prior:
        """Return the prior of a file's bytes; untrusted data is safe."""
        return cls._read(checks.packet(data), "the data")

    def to_bytes(self) -> bytes:
        """Return the bytes of the prior's file."""
        return self._data

    @classmethod
    def builtin(cls, name: PriorName) -> Prior:
        """Return a prior that comes with this package."""
        checks.instance("name", name, str, "a string")
        files = _builtin_files()
        if name not in files:
            raise ValueError(f"name must be one of {sorted(files)}, got {name!r}")
        return cls._read(files[name].read_bytes(), name + ENDING)

    def with_tail(self) -> Prior:
        """Return the prior with one more id, for `Codec.quantize_top_logprobs_rows`.

        The new last id gets the largest weight of each class. Both ends get equal
        results from equal priors; pass the result to `Codec.from_config` as `prior`.

        Examples
        --------
        >>> prior = Prior.builtin("smollm2").with_tail()
        >>> prior
        <Prior be7edad8fd062b22: vocab_size=49153, classes=32>
        """
        if self.vocab_size == MAX_VOCAB:
            raise ValueError(f"the vocabulary already has {MAX_VOCAB} ids, the limit")
        return Prior.from_bytes(self._tables.with_tail().write())

    # Value semantics

    @lazy
    def digest(self) -> bytes:
        """8 bytes that identify the prior: BLAKE2b of its file."""
        import hashlib  # slow to import, and most programs have no prior

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

    def __reduce__(self) -> tuple[Any, ...]:
        return Prior.from_bytes, (self._data,)

    def __repr__(self) -> str:
        return (
            f"<Prior {self.digest.hex()}: vocab_size={self.vocab_size}, "
            f"classes={self.classes}>"
        )


def agreed_prior(digest: str | None, given: Prior | None) -> Prior | None:
    """Return the given or built-in prior that has the digest of a config."""
    if given is not None:
        checks.instance("prior", given, Prior, "a Prior")
    if digest is None:
        if given is not None:
            raise ValueError(
                f"the config has no prior, but one was given: {given.digest.hex()}"
            )
        return None
    checks.instance("the config's prior", digest, str, "a string or None")
    prior = given or next((p for p in builtins() if p.digest.hex() == digest), None)
    if prior is None:
        raise ValueError(
            f"the config needs the prior {digest!r:.80}, which doesn't come with "
            "sqs_codec: load it from its file, and pass it as prior="
        )
    if (got := prior.digest.hex()) != digest:
        raise ValueError(f"the config needs the prior {digest}, got {got}")
    return prior


def _check_counts(
    counts: ArrayLike, vocab_size: int | None = None
) -> NDArray[np.float64]:
    checks.unmasked("counts", counts)
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
        raise ValueError("all counts are 0: count the ids of a text")
    return given.astype(np.float64)


def builtins() -> Iterator[Prior]:
    """Yield the priors that come with this package."""
    return map(Prior.builtin, _builtin_files())


def _builtin_files() -> dict[PriorName, Traversable]:
    from importlib.resources import files  # slow to import, and rarely used

    folder = files("sqs_codec") / "priors"
    return {name: folder / f"{name}{ENDING}" for name in get_args(PriorName)}
