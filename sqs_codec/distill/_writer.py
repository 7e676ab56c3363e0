"""Writing a file of sequences, which an end of the process doesn't undo."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sqs_codec._base import checks
from sqs_codec._base.files import is_own, lock_file, own_folder, write_file
from sqs_codec._codec.codec import Codec
from sqs_codec._codec.rows import SparseRows
from sqs_codec.distill._header import SCHEMA, Header, damage, read_metadata

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Writer"]

ROW_GROUP = 1 << 18
"""Bytes of tokens and packets that end a row group: what is read for a sequence."""

MINUTE = 60.0
"""Seconds after which one that isn't full is kept, too."""

PARQUET: dict[str, Any] = {
    "compression": {
        "tokens.list.element": "zstd",
        "first": "zstd",
        "distributions": "zstd",
        "packet": "none",
    },
    "use_dictionary": False,
    "data_page_version": "1.0",
    "write_statistics": False,  # the least and the greatest packet say nothing
    "write_page_checksum": True,
}
"""Packets can't be made smaller."""


@dataclass
class _Group:
    """A row group in the making: the sequences in it, and how many are before it."""

    place: int = 0
    before: int = 0
    rows: list[tuple[NDArray[np.uint32], int, int, bytes]] = field(default_factory=list)
    size: int = 0  # bytes of their tokens and packets
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
    codec : Codec
        Of coding ``"entropy"``.
    model : str
        The teacher's name.
    temperature : float
        Of the teacher's distributions.
    rounding : str
        How probabilities became counts: ``"unbiased"``, ``"lattice"`` or another word.
    tail : bool
        Whether the vocabulary's last id stands for all tokens that a list left out,
        as `Codec.quantize_top_logprobs_rows` has it. It is then no token.
    tokenizer_digest : bytes
        As `sqs.vocabulary_fingerprint` gives it, or none if it isn't known.
    source : str
        Where the texts are from, and how they were cut: it tells two files in the
        making apart.

    Raises
    ------
    FileExistsError
        The file is there: it is finished, or another one.
    BlockingIOError
        Another writer is at it.
    ValueError
        What is kept of it is of another codec, model, temperature or so, which the
        message names; or the folder may be another user's work.

    Examples
    --------
    >>> import tempfile
    >>> import sqs_codec as sqs
    >>> from sqs_codec import distill
    >>> path = tempfile.mkdtemp() + "/teacher.parquet"
    >>> codec = sqs.Codec(vocab_size=8, resolution=4)
    >>> rows = sqs.SparseRows([2, 7, 5], [3, 1, 4], [0, 2, 3], 8, resolution=4)
    >>> with distill.Writer(path, codec, model="mine") as writer:
    ...     writer.write([1, 2, 5], rows)
    >>> distill.open(path)[0].rows == rows
    True
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        codec: Codec,
        *,
        model: str = "",
        temperature: float = 1.0,
        rounding: str = "unbiased",
        tail: bool = False,
        tokenizer_digest: bytes = b"",
        source: str = "",
    ) -> None:
        self.header = Header(
            codec, model, temperature, rounding, tail, tokenizer_digest, source
        )
        self._path = Path(path)
        self._folder = Path(f"{os.fspath(path)}.parts")
        self._group = _Group()
        own_folder(self._folder)
        self._lock = lock_file(self._folder / "lock")
        try:
            self._resume()
        except BaseException:
            self._leave()
            raise

    def _resume(self) -> None:
        """Go on after the row groups that are there."""
        parts, before = self._parts(), 0
        for i, part in enumerate(parts):
            with damage(part):
                if part != self._part(i):
                    raise ValueError(f"{self._part(i).name} is missing before it")
                before += self._count(part)
        if os.path.lexists(self._path):
            own = is_own(self._path)
            with damage(self._path):
                if own and self._count(self._path) >= before:
                    self._forget()  # which was interrupted
            reason = "it is finished" if own else "it is another's"
            raise FileExistsError(errno.EEXIST, reason, str(self._path))
        self._group = _Group(len(parts), before)
        if parts:
            self._reopen(parts[-1])

    def _reopen(self, part: Path) -> None:
        """Go on in the last row group unless it is full; its file stays meanwhile."""
        tokens, *columns = _read(part).columns
        ids = (row.values.to_numpy() for row in tokens)
        rows = [*zip(ids, *(column.to_pylist() for column in columns), strict=True)]
        size = sum(own.nbytes + len(packet) for own, *_, packet in rows)
        if size < ROW_GROUP:
            place, before = self._group.place - 1, self._group.before - len(rows)
            self._group = _Group(place, before, rows, size)

    def _count(self, path: Path) -> int:
        """Return how many sequences a file has, which must be of this header."""
        file = pq.read_metadata(path)
        self.header.require(read_metadata(file))
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

    def write(self, tokens: ArrayLike, rows: SparseRows, first: int = 1) -> None:
        """Add a sequence. What is refused leaves the writer as it was.

        Parameters
        ----------
        tokens : array_like of int [n]
            Up to 4 194 304.
        rows : SparseRows [1 to n - first + 1]
            Row i is the distribution of ``tokens[first + i]`` given those before it.
            The last may be of a token that would come after the end.
        first : int
            Where in `tokens` the first token is that has a distribution, 1 to n: 1 for
            a whole text, more after a prompt.

        Raises
        ------
        ValueError or TypeError
            They don't go together, or with the codec.
        """
        if self._lock.closed:
            raise ValueError(f"{self._path}: the writer is closed")
        checks.instance("rows", rows, SparseRows, "SparseRows")
        ids = self.header.check_sequence(tokens, first, len(rows))
        packet = self.header.codec.encode_sequence(rows)
        self._group.rows.append((ids, int(first), len(rows), packet))
        self._group.size += ids.nbytes + len(packet)
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
        ids, first, distributions, packets = zip(*group.rows, strict=True)
        ends = np.cumsum([0, *map(len, ids)], dtype=np.int32)
        columns = [
            pa.ListArray.from_arrays(
                pa.array(ends), pa.array(np.concatenate(ids)), type=SCHEMA[0].type
            ),
            pa.array(first, pa.uint32()),
            pa.array(distributions, pa.uint32()),
            pa.array(packets, pa.binary()),
        ]
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, self.header.schema(), **PARQUET) as writer:
            writer.write_table(pa.table(columns, schema=self.header.schema()))
        write_file(self._part(group.place), sink.getvalue())
        group.kept = time.monotonic()

    def close(self) -> None:
        """Finish the file: make it of the row groups, and put it in its place.

        Raises
        ------
        FileExistsError
            There is a file by now. The row groups are kept.
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
            with contextlib.suppress(OSError):  # the next one may be there already
                for name in ("whole", "lock", ".*.parquet.*"):  # and nobody else's
                    for rest in self._folder.glob(name):
                        rest.unlink()
                self._folder.rmdir()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.close()
            else:
                self._keep()
        finally:
            if not self._lock.closed:
                self._leave()


def _read(part: Path) -> pa.Table:
    """Return a row group that is kept."""
    with damage(part), pq.ParquetFile(part, page_checksum_verification=True) as file:
        return file.read(use_threads=False)
