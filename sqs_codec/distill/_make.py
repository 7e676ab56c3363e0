"""From texts to a file, by whatever reads them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, groupby, tee
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sqs_codec._base import checks
from sqs_codec._base.format import MAX_SEQUENCE
from sqs_codec._codec.codec import Codec
from sqs_codec._codec.rows import SparseRows
from sqs_codec.distill._header import Header, NumberName
from sqs_codec.distill._writer import Writer

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Reader", "make"]

WINDOW = 2048
"""Tokens of texts that are given to be read together, and are lost together."""


class Reader(Protocol):
    """What reads texts and tells of its distributions, wherever its logits are.

    It has the model's name for a file, how many tokens there are and, of a text, it can
    read, and `sqs.vocabulary_fingerprint` of the tokenizer, or none.
    """

    name: str
    vocab_size: int
    tokenizer_fingerprint: bytes
    max_tokens: int

    def tokenize(self, text: str) -> Sequence[int]:
        """Return the tokens of a text."""

    def read(
        self,
        texts: Sequence[Sequence[int]],
        header: Header,
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[tuple[SparseRows, Mapping[str, ArrayLike]]]:
        """Return of each text the distributions after its tokens, and their numbers.

        Rounded as the header says, each text by its own generator, and such as
        `Writer.write` takes, the numbers those of the header. The logits needn't leave
        where they are.
        """


def make(
    path: str | os.PathLike[str],
    codec: Codec,
    reader: Reader,
    texts: Iterable[str],
    *,
    temperature: float = 1.0,
    max_length: int | None = None,
    seed: int = 0,
    source: str = "",
    numbers: tuple[NumberName, ...] = (),
) -> None:
    """Let a teacher read texts, and write the file; go on where it was interrupted.

    Parameters
    ----------
    path : path-like
    codec : Codec
        Of the reader's vocabulary.
    reader : Reader
    texts : iterable of str
        Asked for as they are read, so that a bar around them shows how far it is.
    temperature, source
        As for `Header`; the seed and the length are added to the source.
    numbers : tuple of NumberName, optional
        As for `Header`: what the reader is to tell besides. `ModelReader` tells none.
    max_length : int, optional
        Texts are cut into pieces of so many tokens. By default as many as the reader
        can read, up to 2048.
    seed : int
        Of the rounding to counts.

    Raises
    ------
    ValueError
        The reader can't read so many tokens, or there is no text.
    OSError or ValueError
        As `Writer`.
    """
    most = min(reader.max_tokens, MAX_SEQUENCE)
    if max_length is None:
        max_length = min(most, 2048)
    length = checks.in_range("max_length", max_length, 1, most)
    header = Header(
        codec,
        model=reader.name,
        temperature=temperature,
        tokenizer_fingerprint=reader.tokenizer_fingerprint,
        source=f"{source}; seed {seed}; up to {length} tokens",
        numbers=numbers,
    )
    with Writer(path, header) as writer:
        end = 0
        for window in windows(_pieces(texts, reader, length)):
            first, end = end, end + len(window)
            if end > len(writer):  # all, as what is read together decides last bits
                rngs = [np.random.default_rng([seed, i]) for i in range(first, end)]
                told = reader.read(window, writer.header, rngs)
                for i in range(len(writer) - first, len(window)):
                    writer.write(window[i], told[i][0], numbers=told[i][1])
        if not len(writer):
            raise ValueError(f"nothing to keep is in {source or 'the texts'}")


def _pieces(
    texts: Iterable[str], reader: Reader, length: int
) -> Iterator[Sequence[int]]:
    for text in texts:
        ids = reader.tokenize(text) if text else ()
        for start in range(0, len(ids), length):
            yield ids[start : start + length]


def windows(texts: Iterable[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Yield texts by the `WINDOW` tokens that they begin in: the first, the next ..."""
    texts, others = tee(texts)
    pairs = zip(texts, accumulate(map(len, others), initial=0), strict=False)
    for _, window in groupby(pairs, lambda pair: pair[1] // WINDOW):
        yield [tokens for tokens, _ in window]
