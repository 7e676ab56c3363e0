"""Checks of a Parquet file's pages before Arrow allocates memory for them."""

import io
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

NUMBER = rb"\x15([\x80-\xff]{0,4}[\0-\x7f])"

HEADER = re.compile(
    rb"\x15\0"  # a page of data, not a dictionary
    + NUMBER  # uncompressed bytes
    + NUMBER  # compressed bytes
    + rb"(?:\x15[\x80-\xff]{0,4}[\0-\x7f]\x1c|\x2c)"  # a checksum or none
    + NUMBER  # the number of values
    + rb"\x15[\0\x12]"  # PLAIN or BYTE_STREAM_SPLIT
    + rb"\x15.\x15.(?:\x1c\0)?\0\0",  # the coding of levels, and no statistics
    re.DOTALL,
)
"""``PageHeader`` of https://github.com/apache/parquet-format."""


class _Unread(io.FileIO):
    def read(self, size: int | None = -1) -> bytes:
        raise EOFError


def check_columns(path: str | os.PathLike[str], file: pq.FileMetaData, i: int) -> None:
    """Reject a wrong footer here: in Arrow it would end the process."""
    with _Unread(path) as source:
        reader = pq.ParquetFile(source, metadata=file).reader
        for place in range(file.row_group(i).num_columns):
            with suppress(EOFError):
                reader.read_row_group(i, column_indices=[place], use_threads=False)


def check_pages(path: str | os.PathLike[str], group: Any, most: int) -> None:
    """Reject pages that a `Writer` doesn't write: 4 kB can take 3 GB in Arrow."""
    with Path(path).open("rb") as file:
        for chunk in map(group.column, range(group.num_columns)):
            at, size, values = chunk.data_page_offset, 0, 0
            end = at + chunk.total_compressed_size
            while 0 <= at < end:
                file.seek(at)
                header = HEADER.match(file.read(64))
                if header is None or chunk.has_dictionary_page:
                    raise ValueError("a Writer didn't make it: write the file again")
                in_memory, in_file, count = map(_number, header.groups())
                at += header.end() + in_file
                size += in_memory
                values += count
            if max(values, size / 8, group.num_rows) > most:
                raise ValueError(
                    f"{chunk.path_in_schema} has {group.num_rows} rows with {values} "
                    f"values in {size} bytes; at most {most} of eight bytes are allowed"
                )
            if at != end or values != chunk.num_values or values < group.num_rows:
                raise ValueError("its pages contradict its footer")


def _number(data: bytes) -> int:
    """Return a number in zigzag VLQ: seven bits per byte, the lowest first."""
    number = sum((byte & 127) << 7 * i for i, byte in enumerate(data))
    if number & 1:
        raise ValueError("a page header has a negative number")
    return number >> 1
