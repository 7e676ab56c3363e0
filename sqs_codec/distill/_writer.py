"""Writing a file of sequences, which an end of the process doesn't undo."""

from __future__ import annotations

import errno
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike

from sqs_codec._base import checks, files
from sqs_codec._codec.rows import SparseRows
from sqs_codec.distill import _header
from sqs_codec.distill._header import Header

ROW_GROUP = 1 << 18
"""Bytes that end a row group: what is read for a sequence."""

MINUTE = 60.0
"""Seconds after which one that isn't full is kept, too."""

IDENTITY = b"sqs_codec.identity"
"""The key of a part's identity, in its metadata; the finished file has none."""

PARQUET: dict[str, Any] = {
    "compression": {
        f"{name}.list.element": "zstd"
        for name in ("tokens", "starts", "lengths", *_header.EXTRAS)
    },
    "column_encoding": {"logprobs.list.element": "BYTE_STREAM_SPLIT"},
    "use_dictionary": False,
    "data_page_version": "1.0",
    "write_statistics": False,  # the least and the greatest packet say nothing
    "write_page_checksum": True,
}
"""Packets can't be made smaller. The high bytes of logarithms can, where they stand by
themselves."""


@dataclass
class _Group:
    """A row group in the making: the sequences in it, and how many are before it."""

    place: int = 0
    before: int = 0
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    size: int = 0  # bytes of all that
    kept: float = field(default_factory=time.monotonic)  # or begun


class Writer:
    """A file in the making: one row a sequence, tokens and the packet of their rows.

    Each row group, of some 250 kB, is kept by itself in the folder
    ``path + ".parts"`` as soon as it is full, and each minute until then, and `close`
    makes the file of them. So a writer that is made again after an end of any kind goes
    on after the last sequence that was kept: its ``len`` says how many there are.

    As a context manager it closes the file at the end, but not after an exception: then
    all sequences written are kept for a writer that goes on.

    Parameters
    ----------
    path : path-like
        The file, which isn't there until it is whole.
    header : Header
        What the file says of all its sequences.
    identity : str, optional
        A string that differs between models of the same name, such as a digest. Only a
        writer with the same identity continues the file, which doesn't keep it.

    Raises
    ------
    FileExistsError
        The file is there: it is finished, or another one.
    BlockingIOError
        Another writer is at it.
    ValueError
        What is kept of it is of another codec, model, temperature or so, which the
        message names, or of another identity; or the folder may be another user's work.

    Examples
    --------
    >>> import sqs_codec as sqs
    >>> from sqs_codec import distill
    >>> codec = sqs.Codec(vocab_size=8, resolution=4)
    >>> rows = sqs.SparseRows([2, 7, 5], [3, 1, 4], [0, 2, 3], 8, resolution=4)
    >>> header = distill.Header(codec, model="mine")
    >>> with distill.Writer("teacher.parquet", header) as writer:
    ...     writer.write([1, 2, 5], rows)
    >>> distill.load("teacher.parquet")[0].rows == rows
    True
    """

    def __init__(
        self, path: str | os.PathLike[str], header: Header, *, identity: str = ""
    ) -> None:
        checks.instance("header", header, Header, "a Header")
        checks.instance("identity", identity, str, "a string")
        self._identity = checks.utf8("identity", identity)
        self.header = header
        self._path = Path(path)
        self._folder = Path(f"{os.fspath(path)}.parts")
        self._group = _Group()
        files.own_folder(self._folder)
        self._lock = files.lock_file(self._folder / "lock")
        try:
            self._resume()
        except BaseException:
            self._leave()
            raise

    def _resume(self) -> None:
        """Go on after the row groups that are there."""
        parts, before = self._parts(), 0
        for i, part in enumerate(parts):
            with _header.damage(part):
                if part != self._part(i):
                    raise ValueError(f"{self._part(i).name} is missing before it")
                before += self._count(part)
        if os.path.lexists(self._path):
            own = files.is_own(self._path)
            with _header.damage(self._path):
                if own and self._count(self._path) >= before:
                    self._forget()  # which was interrupted
            reason = "it is finished" if own else "it is another's"
            raise FileExistsError(errno.EEXIST, reason, str(self._path))
        self._group = _Group(len(parts), before)
        if not parts:
            return
        cells = zip(*_read(parts[-1]).columns, strict=True)
        rows = [tuple(map(_header.value_of, row)) for row in cells]
        size = sum(map(_size, rows))
        if size < ROW_GROUP:  # it isn't full; its file stays meanwhile
            self._group = _Group(len(parts) - 1, before - len(rows), rows, size)

    def _count(self, path: Path) -> int:
        """Return how many sequences a file has; refuse another header or identity."""
        file = pq.read_metadata(path)
        self.header.require(_header.read_metadata(file))
        began = file.metadata.get(IDENTITY, self._identity)
        if began != self._identity:
            one, other = (x.decode(errors="replace") for x in (began, self._identity))
            raise ValueError(
                f"it was begun with another model: its identity is {one!r}, and this "
                f"one's is {other!r}. Go on with the model that began it, or remove "
                f"{self._folder} to begin again"
            )
        return int(file.num_rows)

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob("*.parquet"))

    def _part(self, i: int) -> Path:
        return self._folder / f"{i:06}.parquet"

    def __len__(self) -> int:
        """How many sequences there are, those of earlier writers counted."""
        return self._group.before + len(self._group.rows)

    def __repr__(self) -> str:
        return f"<Writer of {self._path}: {len(self)} sequences>"

    def write(
        self,
        tokens: ArrayLike,
        rows: SparseRows,
        places: ArrayLike | None = None,
        *,
        extras: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        """Add a sequence. An invalid one leaves the writer unchanged.

        Parameters
        ----------
        tokens : array_like of int [n]
            Up to 4 194 304.
        rows : SparseRows [N]
            1 to n.
        places : array_like of int [N], optional
            Ascending, below n: row i is the distribution of what follows
            ``tokens[: places[i] + 1]``, which after the last token isn't there. So they
            count as a model's logits do, and are 0 to N - 1 by default; of a chat they
            are those of its answers.
        extras : mapping of str to array_like, optional
            Those that the writer was made with, no others:

            - ``"logprobs"``: of each of ``rows.token_ids`` the logarithm of its
              probability, -2047 to 0, kept in steps of 1/16 over its count, rounded
              at random;
            - ``"token_logprobs"`` [N]: that of the token that follows in the text, in
              float16; 0 where none does;
            - ``"likeliest"`` [N]: the most probable token.
        """
        if self._lock.closed:
            raise ValueError(f"{self._path}: the writer is closed")
        checks.instance("rows", rows, SparseRows, "SparseRows")
        if places is None:
            places = np.arange(len(rows))
        ids, at = self.header.check_sequence(tokens, places, len(rows))
        own = self.header.check_extras(extras or {}, rows)
        packet = self.header.codec.encode_sequence(rows)
        if "logprobs" in own:
            # Of what is written, so that a resumed run draws the same.
            rng = np.random.default_rng([len(self), zlib.crc32(packet)])
            up = rng.random(rows.counts.size)
            own["logprobs"] = _header.in_steps(rows, own["logprobs"], up)
        cuts = np.flatnonzero(np.diff(at, prepend=-2) > 1)
        lengths = np.diff(cuts, append=at.size).astype(np.uint32)
        values = (own[name].astype(_header.EXTRAS[name]) for name in own)
        row: tuple[Any, ...] = ids, at[cuts].astype(np.uint32), lengths, packet, *values
        self._group.rows.append(row)
        self._group.size += _size(row)
        if self._group.size >= ROW_GROUP:
            self._keep()
            self._group = _Group(self._group.place + 1, len(self))
        elif time.monotonic() - self._group.kept >= MINUTE:
            self._keep()

    def _keep(self) -> None:
        """Write the row group to a file of its own, which a fuller one may replace."""
        group = self._group
        if not group.rows:
            return
        schema, cells = self.header.schema(), zip(*group.rows, strict=True)
        schema = schema.with_metadata({**schema.metadata, IDENTITY: self._identity})
        columns = [_column(own, f.type) for own, f in zip(cells, schema, strict=True)]
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, schema, **PARQUET) as writer:
            writer.write_table(pa.table(columns, schema=schema))
        files.write_file(self._part(group.place), sink.getvalue())
        group.kept = time.monotonic()

    def close(self) -> None:
        """Finish the file: make it of the row groups, and put it in its place.

        A FileExistsError says that there is a file by now. The row groups are kept.
        """
        if self._lock.closed:
            return
        self._keep()
        whole = self._folder / "whole"
        whole.unlink(missing_ok=True)
        with whole.open("xb") as file:
            with pq.ParquetWriter(file, self.header.schema(), **PARQUET) as writer:
                for part in self._parts():
                    writer.write_table(_read(part))
            file.flush()
            os.fsync(file.fileno())
        if os.path.lexists(self._path):
            raise FileExistsError(errno.EEXIST, "it came to be", str(self._path))
        os.replace(whole, self._path)
        self._forget()
        self._leave()

    def _forget(self) -> None:
        """Remove the row groups, the first one last: so those left are the first."""
        for part in reversed(self._parts()):
            part.unlink()

    def _leave(self) -> None:
        """Let another writer go on, if there is anything to go on from."""
        self._lock.close()
        if not self._parts():
            files.leave_folder(self._folder, "whole", "lock", ".*.parquet.*")

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            if error is None:
                self.close()
            else:
                self._keep()
        finally:
            if not self._lock.closed:
                self._leave()


def _read(part: Path) -> pa.Table:
    with (
        _header.damage(part),
        pq.ParquetFile(part, page_checksum_verification=True) as file,
    ):
        return file.read(use_threads=False)


def _column(cells: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if not isinstance(cells[0], np.ndarray):
        return pa.array(cells, kind)
    ends = np.cumsum([0, *map(len, cells)], dtype=np.int32)
    values = pa.array(np.concatenate(cells))
    return pa.ListArray.from_arrays(pa.array(ends), values, type=kind)


def _size(row: tuple[Any, ...]) -> int:
    return sum(memoryview(cell).nbytes for cell in row)
