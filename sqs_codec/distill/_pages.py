"""What the pages of a Parquet file ask for, before memory is taken for it.

Of a few kB Arrow makes the gigabytes that a file's pages say: zeros, compressed, or a
number that is there once with how often it is meant. The file's end may say less. So
here the headers of pages are read: structs of Thrift's compact protocol, ``PageHeader``
in https://github.com/apache/parquet-format.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

__all__ = ["check_pages"]

LONGEST_HEADER = 1 << 14

NO_HEADER = "a page has another header than pages have"

BOOLS, I32, I64, BINARY, STRUCT = (1, 2), 5, 6, 8, 12
NUMBERS = (I32, I64, BINARY)
KINDS = (*BOOLS, *NUMBERS, STRUCT)
"""Kinds of fields in a header, and those that begin with a number."""

DEEPEST = 3
"""Structs in each other: the header, what it says of a page, statistics."""

KIND, SIZE, COMPRESSED_SIZE = 1, 2, 3
VALUES, ENCODING = 1, 2
"""Fields of a header, and of the struct in it."""

DATA, DICTIONARY, DATA_V2 = 0, 2, 3
STRUCTS = {DATA: 5, DICTIONARY: 7, DATA_V2: 8}
"""Kinds of pages, and the fields that hold their structs."""

PLAIN = 0
RATIO = 64
"""Values for each byte in the file, more than numbers have that say something."""


def check_pages(
    path: str | os.PathLike[str],
    group: Any,
    columns: Collection[str],
    most: int,
    *,
    plain: bool,
) -> None:
    """Refuse columns of a row group that would take more memory than they may.

    Parameters
    ----------
    path : path-like
    group : pyarrow.parquet.RowGroupMetaData
    columns : collection of str
    most : int
        Values that a column may have, of eight bytes at most.
    plain : bool
        Whether pages must be plain ones, as a `Writer` makes them. Otherwise columns
        must be of numbers; they may have more values if they take more of the file.

    Raises
    ------
    ValueError
        They would, or aren't such columns.
    """
    chunks = [group.column(i) for i in range(group.num_columns)]
    with Path(path).open("rb") as file:
        for chunk in chunks:
            if chunk.path_in_schema.partition(".")[0] in columns:
                room = most if plain else most + RATIO * chunk.total_compressed_size
                _check_chunk(file, chunk, group.num_rows, room, plain=plain)


def _check_chunk(file: Any, chunk: Any, rows: int, room: int, *, plain: bool) -> None:
    at, size, values = chunk.data_page_offset, 0, 0
    if chunk.has_dictionary_page:
        at = min(at, chunk.dictionary_page_offset or at)
    end = at + chunk.total_compressed_size
    while 0 <= at < end:
        file.seek(at)
        header, length = _struct(file.read(LONGEST_HEADER))
        kind = header.get(KIND, -1)
        page = header.get(-STRUCTS.get(kind, 0), {})
        count = page.get(VALUES, -1)
        if min(header.get(SIZE, -1), header.get(COMPRESSED_SIZE, -1), count) < 0:
            raise ValueError(NO_HEADER)
        if plain and (kind, page.get(ENCODING)) != (DATA, PLAIN):
            raise ValueError(
                "its pages aren't plain ones, as a Writer makes them: pyarrow makes "
                "such with use_dictionary=False"
            )
        at += length + header[COMPRESSED_SIZE]
        size += header[SIZE]
        values += 0 if kind == DICTIONARY else count
    if max(values, size / 8, rows) > room:
        raise ValueError(
            f"{chunk.path_in_schema} of {rows} rows has {values} values in {size} "
            f"bytes, and at most {room} of eight bytes are read"
        )
    if at != end or values != chunk.num_values or rows > values:
        raise ValueError("its pages aren't what its end says")


def _struct(data: bytes, at: int = 0, depth: int = 0) -> tuple[dict[int, Any], int]:
    """Return a struct's fields, and where it ends.

    They are by their numbers, those of structs in it by negative ones.
    """
    found: dict[int, Any] = {}
    name = 0
    try:
        while data[at]:
            step, kind = divmod(data[at], 16)
            name, at = name + step, at + 1
            if not step or kind not in KINDS or depth == DEEPEST:
                raise ValueError(NO_HEADER)
            if kind == STRUCT:
                found[-name], at = _struct(data, at, depth + 1)
            elif kind in NUMBERS:
                number, at = _number(data, at)
                if kind == BINARY:
                    at += number
                elif kind == I32 and number < 1 << 32:  # the sign is its last bit
                    found[name] = number >> 1 ^ -(number & 1)
    except IndexError:
        raise ValueError(NO_HEADER) from None
    return found, at + 1


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Return a number that bytes hold by seven bits, and where it ends."""
    number = shift = 0
    while data[at] > 127:
        number |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
    return number | data[at] << shift, at + 1
