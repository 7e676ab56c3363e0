"""Writing a file of sequences; interrupted writers can be resumed."""

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
"""Bytes after which a row group ends. Reading a sequence reads its row group."""

MINUTE = 60.0
"""Seconds after which an incomplete row group is saved, too."""

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
    "write_statistics": False,  # useless for packets
    "write_page_checksum": True,
}
"""Packets don't compress. Log-probabilities do if their high bytes are contiguous."""


@dataclass
class _Group:
    """An incomplete row group: the sequences in it, and how many precede it."""

    place: int = 0
    before: int = 0
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    size: int = 0  # bytes of the rows
    kept: float = field(default_factory=time.monotonic)  # when saved last, or begun


class Writer:
    """Writes a file with one row per sequence: its tokens and its packet.

    Row groups of about 250 kB are saved in the folder ``path + ".parts"`` when they are
    full, and every minute before that; `close` joins them. After any interruption, a
    new writer for the same path resumes after the last saved sequence; its ``len`` is
    the number of saved sequences.

    As a context manager, it closes the file at the end. After an exception it only
    saves all sequences written, for resuming.

    Parameters
    ----------
    path : path-like
        The file; it appears when it is complete.
    header : Header
        The file's metadata.
    identity : str, optional
        A string that differs between models of the same name, such as a digest. Only a
        writer with the same identity resumes. The finished file doesn't contain it.

    Raises
    ------
    FileExistsError
        The file exists: it is finished, or unrelated.
    BlockingIOError
        Another writer is writing it.
    ValueError
        The saved part has another header, which the message shows, or another identity;
        or the folder is another user's.

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
        parts, before = self._parts(), 0
        for i, part in enumerate(parts):
            with _header.damage(part):
                if part != self._part(i):
                    raise ValueError(f"{self._part(i).name}, before it, is missing")
                before += self._count(part)
        if os.path.lexists(self._path):
            own = files.is_own(self._path)
            with _header.damage(self._path):
                if own and self._count(self._path) >= before:
                    self._forget()  # an interruption came before it
            reason = "the file is finished" if own else "the file is another user's"
            raise FileExistsError(errno.EEXIST, reason, str(self._path))
        self._group = _Group(len(parts), before)
        if not parts:
            return
        cells = zip(*_read(parts[-1]).columns, strict=True)
        rows = [tuple(map(_header.value_of, row)) for row in cells]
        size = sum(map(_size, rows))
        if size < ROW_GROUP:  # continue the group; its file stays until replaced
            self._group = _Group(len(parts) - 1, before - len(rows), rows, size)

    def _count(self, path: Path) -> int:
        """Return a file's number of sequences; reject another header or identity."""
        file = pq.read_metadata(path)
        self.header.require(_header.read_metadata(file))
        began = file.metadata.get(IDENTITY, self._identity)
        if began != self._identity:
            one, other = (x.decode(errors="replace") for x in (began, self._identity))
            raise ValueError(
                f"it was begun with another model: its identity is {one!r}, but this "
                f"one's is {other!r}. Continue with the first model, or remove "
                f"{self._folder} to start again"
            )
        return int(file.num_rows)

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob("*.parquet"))

    def _part(self, i: int) -> Path:
        return self._folder / f"{i:06}.parquet"

    def __len__(self) -> int:
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
            At most 4 194 304 tokens.
        rows : SparseRows [N]
            1 to n distributions.
        places : array_like of int [N], optional
            Ascending and below n: row i is the distribution of the token after
            ``tokens[: places[i] + 1]``. Places count like a model's logits; 0 to N - 1
            by default. In a chat, they are those of the answers.
        extras : mapping of str to array_like, optional
            Exactly the extras of the header:

            - ``"logprobs"``: the log-probability of each of ``rows.token_ids``, -2047
              to 0; stored in steps of 1/16 over its count, rounded at random;
            - ``"token_logprobs"`` [N]: the log-probability of the text's next token,
              stored as float16; 0 after the last token;
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
            # Seeded with the content, so that a resumed run draws the same numbers.
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
        """Save the row group as a file, which a later save may replace."""
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
        """Join the row groups and move the file to its path.

        If the path exists, this raises FileExistsError and keeps the row groups.
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
            reason = "another file appeared at this path"
            raise FileExistsError(errno.EEXIST, reason, str(self._path))
        os.replace(whole, self._path)
        self._forget()
        self._leave()

    def _forget(self) -> None:
        """Remove the row groups from the last to the first, as resuming needs."""
        for part in reversed(self._parts()):
            part.unlink()

    def _leave(self) -> None:
        """Release the lock, and the folder if nothing is saved in it."""
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
