"""Making a file from texts with a `Reader`."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from sqs_codec._base import checks
from sqs_codec._base.format import MAX_SEQUENCE
from sqs_codec._codec.codec import Codec
from sqs_codec.distill._header import ExtraName, Header
from sqs_codec.distill._tasks import Counting, Reader, Tokenizer, read_all
from sqs_codec.distill._writer import Writer

log = logging.getLogger(__name__)


class Piece(NamedTuple):
    """Tokens of one forward pass, and the places of the wanted distributions."""

    tokens: Sequence[int]
    places: Sequence[int]


def make(
    path: str | os.PathLike[str],
    codec: Codec,
    reader: Reader,
    texts: Iterable[str | tuple[Sequence[int], Sequence[int]]],
    *,
    model: str = "",
    temperature: float = 1.0,
    max_length: int | None = None,
    seed: int = 0,
    source: str = "",
    identity: str = "",
    extras: tuple[ExtraName, ...] = (),
) -> None:
    """Run a teacher on texts and write the file; resume after an interruption.

    Parameters
    ----------
    codec : Codec
        With the reader's vocabulary.
    texts : iterable of str or of (tokens, places)
        Consumed as they are read, so that a progress bar around them works. Tokens are
        used unchanged, up to `max_length`, with a distribution at each place; a warning
        logs the number of places beyond.
    model, temperature, source, extras
        As for `Header`; `make` adds the seed and the length to the source.
    identity
        As for `Writer`: another model of the same name can't continue the file.
    max_length : int, optional
        Tokens per piece, at most, into which texts are cut. By default the reader's
        limit, up to 2048. Each piece begins with the reader's BOS if the text does. The
        lengths of a text's last two pieces differ by at most one token.
    seed : int
        The seed of the rounding, below 2^32: larger ones repeat random numbers.

    Raises
    ------
    OSError or ValueError
        As `Writer`; or `max_length` exceeds the reader's limit, or there is no text.
    """
    most = min(reader.max_tokens, MAX_SEQUENCE)
    if max_length is None:
        max_length = min(most, 2048)
    seed = checks.in_range("seed", seed, 0, 2**32 - 1)
    if (size := reader.tokenizer.vocab_size) != codec.vocab_size:
        own = f"the codec {codec.vocab_size}"
        raise ValueError(f"the reader has a vocabulary of {size}, {own}")
    if isinstance(texts, str):
        raise TypeError("texts must be several, got one string")
    least = 1 if reader.tokenizer.bos is None else 2
    length = checks.in_range("max_length", max_length, least, most)
    header = Header(
        codec,
        model=model,
        temperature=temperature,
        tokenizer_fingerprint=reader.tokenizer.fingerprint,
        # The rule is that of `cut`, and of how readers tokenize texts.
        source=f"{source}; seed {seed}; up to {length} tokens, cut by rule 2",
        extras=extras,
    )

    def task_of(i: int, piece: Piece, batch: int) -> Counting:
        header.check_sequence(*piece, len(piece.places))
        return Counting(i, *piece, header, np.random.default_rng([seed, i]), batch)

    with Writer(path, header, identity=identity) as writer:
        pieces = _pieces(texts, reader.tokenizer, length)
        for task in read_all(reader, pieces, task_of, len(writer)):
            rows, told = task.answer
            if rows is None or task.index < len(writer):
                continue  # it is there, and was read again with others
            writer.write(task.tokens, rows, task.places, extras=told)
        if not len(writer):
            raise ValueError(f"nothing to keep is in {source or 'the texts'}")


def contexts(reader: Reader, text: str, size: int = 512) -> list[Piece]:
    """Cut a text into contexts like llama-perplexity, which uses half of each.

    If the model has a BOS, it replaces the first token of each context of `size`
    tokens. Places are ``size // 2`` to ``size - 2``. An incomplete last context is
    dropped. Special tokens in the text are tokenized as plain text.
    """
    size = checks.in_range("size", size, 4, min(reader.max_tokens, MAX_SEQUENCE))
    tokens, bos = reader.tokenizer.encode(text, special=False), reader.tokenizer.bos
    if len(tokens) < size:
        raise ValueError(f"it has {len(tokens)} tokens, and a context has {size}")
    places = range(size // 2, size - 1)
    first = [] if bos is None else [bos]
    return [
        Piece([*first, *tokens[start + len(first) : start + size]], places)
        for start in range(0, len(tokens) - size + 1, size)
    ]


def _pieces(
    texts: Iterable[str | tuple[Sequence[int], Sequence[int]]],
    tokenizer: Tokenizer,
    length: int,
) -> Iterator[Piece]:
    beyond = 0
    for text in texts:
        if isinstance(text, str):
            tokens = tokenizer.encode(text) if text else ()
            for piece in cut(tokens, length, tokenizer.bos):
                yield Piece(piece, range(len(piece)))
        else:
            tokens, wanted = text
            places = [place for place in wanted if place < length]
            beyond += len(wanted) - len(places)
            if places:
                yield Piece(tokens[:length], places)
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
