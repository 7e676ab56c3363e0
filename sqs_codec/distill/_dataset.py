"""Reading a file of sequences, one by one or as batches."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sqs_codec._base import checks
from sqs_codec._base.files import require_file
from sqs_codec._codec.prior import Prior
from sqs_codec._codec.rows import SparseRows
from sqs_codec.distill import _header
from sqs_codec.distill._header import ExtraName, Header
from sqs_codec.distill._pages import check_columns, check_pages

if TYPE_CHECKING:
    from sqs_codec.torch import TeacherBatch

MOST_VALUES = _header.MOST_TOKENS + (1 << 16)
"""Maximum values of a column in a row group, of eight bytes each. A group ends after
256 kB, with a sequence that adds its tokens, or a packet of at most 8.3 MiB."""


class Text(NamedTuple):
    """A text's tokens, and the teacher's distributions of them.

    Attributes
    ----------
    tokens : ndarray of uint32 [n]
    places : ndarray of int64 [N]
        Row i is the distribution of what follows ``tokens[: places[i] + 1]``.
    rows : SparseRows [N]
    temperature : float
        The distributions' temperature.
    tail : bool
        Whether the vocabulary's last id represents all tokens missing in a list.
    extras : dict of str to ndarray
        The file's extras, as for `Writer.write`.
    """

    tokens: NDArray[np.uint32]
    places: NDArray[np.int64]
    rows: SparseRows
    temperature: float
    tail: bool
    extras: dict[ExtraName, NDArray[Any]]


class Sizes(NamedTuple):
    sequences: int
    tokens: int
    distributions: int
    column_bytes: dict[str, int]
    file_bytes: int


class Dataset:
    """The sequences of a file, by index or in order; made by `load`.

    A map-style PyTorch data set, which can be pickled, forked and shared between
    threads. Reading a sequence reads its row group, about 250 kB. The last row group is
    cached, so reading in order is fast.

    Attributes
    ----------
    header : Header
        The metadata of all sequences.
    path : path-like
    """

    def __init__(
        self, path: str | os.PathLike[str], prior: Prior | None, tokenizer: Any
    ) -> None:
        # Checked first: these errors aren't the file's.
        if prior is not None:
            checks.instance("prior", prior, Prior, "a Prior")
        if tokenizer is not None and not hasattr(tokenizer, "get_vocab"):
            kind = type(tokenizer).__name__
            raise TypeError(f"tokenizer must be one, with get_vocab(), got {kind}")
        require_file(path)
        with _header.damage(path):
            self._file = pq.read_metadata(path)
            self.header = Header.from_json(_header.read_metadata(self._file), prior)
            columns = self._file.schema.to_arrow_schema()
            if not columns.equals(self.header.schema()):
                raise ValueError(f"its columns are not those of a Writer: {columns}")
            if tokenizer is not None:
                self.header.check_tokenizer(tokenizer)
            sizes = [group.num_rows for group in self._groups()]
            if min(sizes, default=0) < 0 or sum(sizes) != self._file.num_rows:
                raise ValueError(f"it has {sizes} sequences, not {self._file.num_rows}")
        self.path = path
        self._ends = np.cumsum([0, *sizes])
        self._checked: set[int] = set()
        self._last: tuple[int, pa.Table] | None = None

    def sizes(self) -> Sizes:
        """Return the file's sizes; reads almost nothing of the sequences."""
        with _header.damage(self.path):
            lengths = [
                self._table(i, ["lengths"])[0].combine_chunks().values.to_numpy()
                for i in range(self._file.num_row_groups)
            ]
        columns = enumerate(self.header.schema().names)
        return Sizes(
            len(self),
            sum(group.column(0).num_values for group in self._groups()),
            sum(int(own.sum(dtype=np.int64)) for own in lengths),
            {
                name: sum(g.column(i).total_compressed_size for g in self._groups())
                for i, name in columns
            },
            os.path.getsize(self.path),
        )

    def tokens(self) -> Iterator[NDArray[np.uint32]]:
        """Yield the tokens of each sequence, without reading distributions."""
        for group in range(self._file.num_row_groups):
            with _header.damage(self.path):
                texts = self._table(group, ["tokens"])[0]
            yield from map(_header.value_of, texts)

    def _table(self, group: int, columns: list[str]) -> pa.Table:
        """Open the file again, for threads and forks, and read a row group."""
        if group not in self._checked:
            check_columns(self.path, self._file, group)
            self._checked.add(group)
        check_pages(self.path, self._file.row_group(group), MOST_VALUES)
        with pq.ParquetFile(
            self.path, metadata=self._file, page_checksum_verification=True
        ) as file:
            return file.read_row_group(group, columns=columns, use_threads=False)

    def _groups(self) -> list[Any]:
        return [self._file.row_group(i) for i in range(self._file.num_row_groups)]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __repr__(self) -> str:
        return f"<Dataset of {len(self)} sequences>"

    def __getitem__(self, index: int) -> Text:
        return self.start(index, _header.MOST_TOKENS)

    def start(self, index: int, length: int) -> Text:
        """Return the first `length` tokens of a sequence, and what follows each.

        Other distributions are not decoded; if there are any, `extras` is empty.
        """
        checks.in_range("length", length, 0)
        row = range(len(self))[operator.index(index)]
        group = int(np.searchsorted(self._ends, row, "right")) - 1
        with _header.damage(f"{self.path}: sequence {row}"):
            place = row - int(self._ends[group])
            cells = (column[place] for column in self._read(group).columns)
            ids, starts, lengths, packet, *values = map(_header.value_of, cells)
            places, header = _places(starts, lengths, len(ids)), self.header
            n = len(places)
            tokens, places = header.check_sequence(ids, places, n)
            wanted = int(np.searchsorted(places, length))
            read, decode = max(wanted, 1), header.codec.decode_sequence
            most = read * header.codec.max_survivors
            if wanted < n:
                rows = decode(packet, max_survivors=most, length=read)
                found = tokens[:length], places[:wanted], rows[:wanted]
                return Text(*found, header.temperature, header.tail, {})
            rows = decode(packet, max_survivors=most)
            if len(rows) != n:
                raise ValueError(f"its packet has {len(rows)} distributions, not {n}")
            extras = dict(zip(header.extras, values, strict=True))
            steps = extras.get("logprobs")
            if steps is not None and steps.shape == rows.counts.shape:
                extras["logprobs"] = _header.of_steps(rows, steps)
            extras = header.check_extras(extras, rows)
        tokens = tokens[:length]
        return Text(tokens, places, rows, header.temperature, header.tail, extras)

    def _read(self, group: int) -> pa.Table:
        last = self._last
        if last is None or last[0] != group:
            last = group, self._table(group, self.header.schema().names)
            if last[1].num_rows != self._ends[group + 1] - self._ends[group]:
                raise ValueError(f"its row group has {last[1].num_rows} sequences")
            self._last = last
        return last[1]

    def __iter__(self) -> Iterator[Text]:
        return map(self.__getitem__, range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": None}


def _places(
    starts: NDArray[np.uint32], lengths: NDArray[np.uint32], tokens: int
) -> NDArray[np.int64]:
    """Return where the distributions of a sequence's runs are."""
    ends = np.cumsum(lengths, dtype=np.int64)
    if starts.size != ends.size or not 0 < ends[-1] <= tokens:
        raise ValueError(
            f"{starts.size} starts and {ends.size} lengths of {ends[-1:].sum()} "
            f"distributions are no runs of {tokens} tokens"
        )
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1])


def load(
    path: str | os.PathLike[str], *, prior: Prior | None = None, tokenizer: Any = None
) -> Dataset:
    """Load a file that a `Writer` has finished.

    Parameters
    ----------
    prior : Prior, optional
        The prior of the file's codec, unless it comes with this package.
    tokenizer : optional
        Reject the file unless it was made with this tokenizer, of transformers,
        tokenizers, or any class with ``get_vocab()``.

    Raises
    ------
    ValueError
        The file is invalid or truncated, has another prior, tokenizer or version; the
        message says which. Damage inside the file raises a ValueError when the damaged
        sequence is read.
    OSError
        The file can't be read.
    """
    return Dataset(path, prior, tokenizer)


def collate(items: Sequence[Text]) -> TeacherBatch:
    """Return sequences as a batch, as the ``collate_fn`` of a ``DataLoader`` does.

    Takes at least one sequence, of files with the same vocabulary, resolution,
    temperature and tail. Pads shorter texts on the right with token 0. Needs the extra
    ``[torch]``.
    """
    from sqs_codec.torch._distill import as_batch

    for item in items:
        checks.instance("an item", item, Text, "a Text of a file of load()")
    kinds = {
        (item.rows.resolution, item.rows.vocab_size, item.temperature, item.tail)
        for item in items
    }
    if len(kinds) != 1:
        raise ValueError(
            "expected sequences, one at least, of one resolution, vocabulary, "
            f"temperature and tail, got {sorted(kinds) or 'none'}"
        )
    lengths = np.array([len(item.tokens) for item in items])
    filled = np.arange(lengths.max()) < lengths[:, None]
    tokens = np.zeros(filled.shape, np.int64)
    tokens[filled] = np.concatenate([item.tokens for item in items])
    places = [b * filled.shape[1] + item.places for b, item in enumerate(items)]
    rows = SparseRows.concatenate(item.rows for item in items)
    arrays = rows.token_ids, rows.counts, rows.offsets
    return as_batch((tokens, filled, np.concatenate(places), *arrays), *kinds.pop())
