"""From texts to a file, by whatever reads them."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby, pairwise, tee
from typing import NamedTuple, TypeVar

import numpy as np

from sqs_codec._base import checks
from sqs_codec._base.format import MAX_SEQUENCE
from sqs_codec._codec.codec import Codec
from sqs_codec.distill._header import Header, NumberName
from sqs_codec.distill._tasks import Counting, Reader, done
from sqs_codec.distill._writer import Writer

Tokens = TypeVar("Tokens", bound="Piece")
log = logging.getLogger(__name__)


class Piece(NamedTuple):
    """Tokens that are read as a whole, and where distributions of them are wanted."""

    tokens: Sequence[int]
    places: Sequence[int]


def make(
    path: str | os.PathLike[str],
    codec: Codec,
    reader: Reader,
    texts: Iterable[str | Piece],
    *,
    temperature: float = 1.0,
    max_length: int | None = None,
    seed: int = 0,
    source: str = "",
    identity: str = "",
    numbers: tuple[NumberName, ...] = (),
) -> None:
    """Let a teacher read texts, and write the file; go on where it was interrupted.

    Parameters
    ----------
    path : path-like
    codec : Codec
        Of the reader's vocabulary.
    reader : Reader
    texts : iterable of str or Piece
        Asked for as they are read, so that a bar around them shows how far it is.
        A piece is read as it is, up to `max_length`; how many places were beyond is
        logged as a warning.
    temperature, source
        As for `Header`; the seed and the length are added to the source.
    identity
        As for `Writer`: another model of the reader's name doesn't continue the file.
    numbers : tuple of NumberName, optional
        As for `Header`: what the file is to have besides.
    max_length : int, optional
        Texts are cut into pieces of so many tokens. By default as many as the reader
        can read, up to 2048. Each piece begins with the reader's BOS if the text does.
        The lengths of a text's last two pieces differ by one token at most.
    seed : int
        Of the rounding to counts, below 2^32, as larger ones repeat random numbers.

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
    seed = checks.in_range("seed", seed, 0, 2**32 - 1)
    least = 1 if reader.bos is None else 2
    length = checks.in_range("max_length", max_length, least, most)
    header = Header(
        codec,
        model=reader.name,
        temperature=temperature,
        tokenizer_fingerprint=reader.tokenizer_fingerprint,
        # The rule is that of `cut`, and of how readers tokenize texts.
        source=f"{source}; seed {seed}; up to {length} tokens, cut by rule 2",
        numbers=numbers,
    )
    with Writer(path, header, identity=identity) as writer:
        pieces = windows(_pieces(texts, reader, length), reader.at_once)
        batches = (
            [
                Counting(i, *piece, header, np.random.default_rng([seed, i]))
                for i, piece in enumerate(window, first)
            ]  # all, as what is read together decides last bits
            for first, window in pieces
            if first + len(window) > len(writer)
        )
        for tasks in done(reader, batches):
            for task in tasks[len(writer) - tasks[0].index :]:
                rows, told = task.rows()
                writer.write(task.tokens, rows, task.places, numbers=told)
        if not len(writer):
            raise ValueError(f"nothing to keep is in {source or 'the texts'}")


def contexts(reader: Reader, text: str, size: int = 512) -> list[Piece]:
    """Cut a text as llama-perplexity does, which has its rows of half of each piece.

    A context of `size` tokens begins with the one that the model wants at a text's
    beginning, if it does, in place of its own first token. Places are those from
    ``size // 2`` to ``size - 2``. What remains at the end is left out. Special tokens
    that the text spells are text like the rest.
    """
    size = checks.in_range("size", size, 4, min(reader.max_tokens, MAX_SEQUENCE))
    tokens = reader.tokenize(text, special=False)
    if len(tokens) < size:
        raise ValueError(f"it has {len(tokens)} tokens, and a context has {size}")
    places = range(size // 2, size - 1)
    first = [] if reader.bos is None else [reader.bos]
    return [
        Piece([*first, *tokens[start + len(first) : start + size]], places)
        for start in range(0, len(tokens) - size + 1, size)
    ]


def _pieces(
    texts: Iterable[str | Piece], reader: Reader, length: int
) -> Iterator[Piece]:
    beyond = 0
    for text in texts:
        if isinstance(text, Piece):
            places = [place for place in text.places if place < length]
            beyond += len(text.places) - len(places)
            if places:
                yield Piece(text.tokens[:length], places)
            continue
        for piece in cut(reader.tokenize(text) if text else (), length, reader.bos):
            yield Piece(piece, range(len(piece)))
    if beyond:
        log.warning("%d rows are left out: they are beyond %d tokens", beyond, length)


def cut(tokens: Sequence[int], length: int, bos: int | None) -> Iterator[list[int]]:
    """Yield a text's pieces, each with its BOS if it has one, the last two balanced."""
    if not len(tokens):
        return
    first = [*tokens[:1]] if tokens[0] == bos else []
    size, room = len(tokens), length - len(first)
    starts = [*range(len(first), size, room)] or [size]
    if len(starts) > 1:
        starts[-1] = (starts[-2] + size + 1) // 2
    for start, end in pairwise([*starts, size]):
        yield [*first, *tokens[start:end]]


def windows(pieces: Iterable[Tokens], size: int) -> Iterator[tuple[int, list[Tokens]]]:
    """Yield the pieces that begin in each `size` tokens, and how many are before."""
    pieces, others = tee(pieces)
    starts = accumulate((len(piece.tokens) for piece in others), initial=0)
    first = 0
    pairs = zip(pieces, starts, strict=False)
    for _, own in groupby(pairs, lambda pair: pair[1] // size):
        window = [piece for piece, _ in own]
        yield first, window
        first += len(window)
