"""What the pages of a file ask for, before Arrow takes the memory."""

import io
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

NUMBER = rb"\x15([\x80-\xff]{0,4}[\0-\x7f])"

HEADER = re.compile(
    rb"\x15\0"  # of values, not of a dictionary
    + NUMBER  # its bytes
    + NUMBER  # those in the file
    + rb"(?:\x15[\x80-\xff]{0,4}[\0-\x7f]\x1c|\x2c)"  # a checksum or none
    + NUMBER  # how many values
    + rb"\x15[\0\x12]"  # which stand there as they are, or byte by byte
    + rb"\x15.\x15.(?:\x1c\0)?\0\0",  # how levels are coded, and no statistics
    re.DOTALL,
)
"""Of a page: ``PageHeader`` of https://github.com/apache/parquet-format."""


class _Unread(io.FileIO):
    def read(self, size: int | None = -1) -> bytes:
        raise EOFError


def check_columns(path: str | os.PathLike[str], file: pq.FileMetaData, i: int) -> None:
    """Refuse columns that the file's end describes wrongly: Arrow ends the process."""
    with _Unread(path) as source:
        reader = pq.ParquetFile(source, metadata=file).reader
        for place in range(file.row_group(i).num_columns):
            with suppress(EOFError):
                reader.read_row_group(i, column_indices=[place], use_threads=False)


def check_pages(path: str | os.PathLike[str], group: Any, most: int) -> None:
    """Refuse pages that no `Writer` makes: 4 kB of them can take Arrow 3 GB."""
    with Path(path).open("rb") as file:
        for chunk in map(group.column, range(group.num_columns)):
            at, size, values = chunk.data_page_offset, 0, 0
            end = at + chunk.total_compressed_size
            while 0 <= at < end:
                file.seek(at)
                header = HEADER.match(file.read(64))
                if header is None or chunk.has_dictionary_page:
                    raise ValueError("no Writer made its pages: write the file again")
                in_memory, in_file, count = map(_number, header.groups())
                at += header.end() + in_file
                size += in_memory
                values += count
            if max(values, size / 8, group.num_rows) > most:
                raise ValueError(
                    f"{chunk.path_in_schema} of {group.num_rows} rows has {values} "
                    f"values of {size} bytes, and may have {most} of eight bytes each"
                )
            if at != end or values != chunk.num_values or values < group.num_rows:
                raise ValueError("its pages aren't what its end says")


def _number(data: bytes) -> int:
    """Return a number of seven bits a byte, the lowest first; the last is its sign."""
    number = sum((byte & 127) << 7 * i for i, byte in enumerate(data))
    if number & 1:
        raise ValueError("a page's header has a number below 0")
    return number >> 1
