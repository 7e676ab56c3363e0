"""Files of DistillKit: https://github.com/arcee-ai/DistillKit.

A row is a text, with a list for each token: that of the token that comes next. A list
is log-probabilities in descending order and the ids of the same places, both as bytes.
Ids are packed with as few bits each as the vocabulary needs. The log-probabilities are,
one part after the other:

1. the first ``exact_k``, as numbers of ``exact_dtype``;
2. for the other ``k - exact_k`` the coefficients, of ``term_dtype``, of functions of
   the place among them, which ``polynomial_terms`` names: powers, "sqrt" and "exp";
3. for each of ``residual_bins`` a scale of ``scale_dtype`` and ``num_elements`` whole
   numbers of ``element_bits`` each. Scaled, they add to what the functions give.

With ``delta_encoding`` all but the first are differences to the one before. Numbers are
little-endian, packed ones begin with their highest bit, and each part begins a byte.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sqs_codec._base import checks
from sqs_codec._base.files import read_file
from sqs_codec._base.format import MAX_VOCAB
from sqs_codec.distill._header import damage
from sqs_codec.distill._imports.lists import Lists, Place
from sqs_codec.distill._pages import check_columns

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]


DTYPES = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4", "float64": "<f8"}
FUNCTIONS = {"sqrt": np.sqrt, "exp": np.exp}

COMPRESSED = ("bytepacked_indices", "compressed_logprobs")
RAW = ("token_ids", "top_values")
KINDS = {
    "input_ids": pa.list_(pa.int64()),
    **dict.fromkeys(COMPRESSED, pa.list_(pa.list_(pa.uint8()))),
    "token_ids": pa.list_(pa.list_(pa.int64())),
    "top_values": pa.list_(pa.list_(pa.float64())),
}

MOST_BYTES = 1 << 16
"""Of a configuration."""

MOST_VALUES, MOST_A_BYTE = 1 << 24, 64
"""Of a column of a row group, and more of them for each byte that it has."""

ROWS = 16
"""Texts that are read at once."""

TOLERANCE = 1e-3
SCALED = "lists of a mass above 1 were scaled to it, so nothing is left for the tail"


@dataclass(frozen=True)
class Bin:
    """How some of the residuals are packed."""

    scale_dtype: str
    element_bits: int
    num_elements: int

    def __post_init__(self) -> None:
        _check_dtype("scale_dtype", self.scale_dtype)
        checks.in_range("element_bits", self.element_bits, 1, 64)
        checks.in_range("num_elements", self.num_elements, 1, MAX_VOCAB)


@dataclass(frozen=True)
class Compression:
    """How DistillKit compressed lists: its ``compression_config.yaml``.

    Fields have its names and defaults.
    """

    d: int
    k: int
    exact_k: int
    exact_dtype: str = "float32"
    polynomial_terms: tuple[int | str, ...] = ()
    term_dtype: str = "float32"
    residual_bins: tuple[Bin, ...] = ()
    delta_encoding: bool = True
    error_diffusion: bool = False  # which is nothing that a reader minds
    normalize_t: bool = False

    def __post_init__(self) -> None:
        checks.in_range("d", self.d, 2, MAX_VOCAB)
        checks.in_range("k", self.k, 1, self.d)
        checks.in_range("exact_k", self.exact_k, 0, self.k)
        _check_dtype("exact_dtype", self.exact_dtype)
        _check_dtype("term_dtype", self.term_dtype)
        for term in self.polynomial_terms:
            if term not in FUNCTIONS:
                checks.in_range("a polynomial_term", term, 0, 64)  # type: ignore[arg-type]
        for name in ("delta_encoding", "error_diffusion", "normalize_t"):
            checks.instance(name, getattr(self, name), bool, "a bool")
        packed = sum(one.num_elements for one in self.residual_bins)
        checks.in_range("residuals", packed, 0, self.k - self.exact_k)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Compression:
        """Return what a configuration of DistillKit says, in YAML or JSON."""
        import yaml

        with damage(path):
            data = read_file(path, MOST_BYTES)
            if len(data) == MOST_BYTES or b"&" in data:  # of many values for few bytes
                raise ValueError("it is too long, or has aliases: write out all values")
            try:
                config = yaml.safe_load(data)
            except (yaml.YAMLError, RecursionError) as error:
                raise ValueError(f"it is no YAML: {error}") from error
            return cls._of(config)

    @classmethod
    def _of(cls, config: Any) -> Compression:
        checks.instance("it", config, Mapping, "a mapping")
        unknown = config.keys() - {one.name for one in fields(cls)}
        missing = {"d", "k", "exact_k"} - config.keys()
        if unknown or missing:
            raise ValueError(
                f"it lacks {sorted(missing)} and has unknown {sorted(unknown)}: "
                "expected the compression_config.yaml that DistillKit writes beside "
                "its Parquet files, which says the same as its logprob_compressor"
            )
        given = {name: value for name, value in config.items() if value is not None}
        given["polynomial_terms"] = tuple(given.get("polynomial_terms", ()))
        bins = given.get("residual_bins", ())
        given["residual_bins"] = tuple(Bin(**one) for one in bins)
        return cls(**given)

    def token_ids(self, packed: Bytes) -> NDArray[np.int64]:
        """Return the ids of lists, int64 [N, k], of their bytes [N, B]."""
        parts = _Parts(packed)
        ids = parts.packed(self.k, (self.d - 1).bit_length()).astype(np.int64)
        parts.end("bytepacked_indices")
        return ids

    @np.errstate(all="ignore")  # numbers may be any
    def logprobs(self, packed: Bytes) -> Floats:
        """Return the log-probabilities of lists, [N, k], of their bytes [N, B]."""
        parts = _Parts(packed)
        exact = parts.floats(self.exact_k, self.exact_dtype)
        terms = parts.floats(len(self.polynomial_terms), self.term_dtype)
        found = np.concatenate([exact, terms @ self._functions()], axis=1)
        place = self.exact_k
        for one in self.residual_bins:
            scale = parts.floats(1, one.scale_dtype)
            values = parts.packed(one.num_elements, one.element_bits).astype(np.float64)
            if one.element_bits == 1:
                values = 2 * values - 1  # a sign
            else:
                values -= 2.0 ** (one.element_bits - 1)
            found[:, place : place + one.num_elements] += scale * values
            place += one.num_elements
        parts.end("compressed_logprobs")
        return found.cumsum(axis=1) if self.delta_encoding else found

    def _functions(self) -> Floats:
        """Return the functions at each place, [terms, k - exact_k]."""
        length = self.k - self.exact_k
        places = np.arange(length, dtype=np.float64)
        if self.normalize_t:
            places /= max(length - 1, 1)
        rows = [
            FUNCTIONS[term](places) if isinstance(term, str) else places**term
            for term in self.polynomial_terms
        ]
        return np.array(rows).reshape(len(rows), length)


def _check_dtype(name: str, value: str) -> None:
    if value not in DTYPES:
        raise ValueError(f"{name} must be one of {sorted(DTYPES)}, got {value!r}")


class _Parts:
    """Takes lists of bytes [N, B] apart, from left to right."""

    def __init__(self, data: Bytes) -> None:
        self._left = data

    def _take(self, size: int) -> Bytes:
        taken, self._left = self._left[:, :size], self._left[:, size:]
        if taken.shape[1] < size:
            raise ValueError("lists are shorter than those of the configuration")
        return np.ascontiguousarray(taken)

    def floats(self, count: int, dtype: str) -> Floats:
        """Return numbers [N, count]."""
        kind = np.dtype(DTYPES[dtype])
        found = self._take(count * kind.itemsize).view(kind)
        if dtype == "bfloat16":
            found = (found.astype(np.uint32) << 16).view(np.float32)
        return found.astype(np.float64)

    def packed(self, count: int, bits: int) -> NDArray[np.uint64]:
        """Return whole numbers [N, count] of so many bits each."""
        data = np.unpackbits(self._take((count * bits + 7) // 8), axis=1)
        split = data[:, : count * bits].reshape(-1, count, bits)
        wide = np.pad(split, ((0, 0), (0, 0), (64 - bits, 0)))
        return np.packbits(wide, axis=2).view(">u8")[:, :, 0]

    def end(self, name: str) -> None:
        """Refuse more bytes."""
        if self._left.shape[1]:
            raise ValueError(f"{name} are longer than those of the configuration")


def read_distillkit(
    path: str | os.PathLike[str], compression: Compression | None = None
) -> Iterator[Place]:
    """Read a Parquet file of DistillKit, of lists that are compressed or as they are.

    What comes out of a compression may have a mass above 1. Such a list is scaled to a
    mass of 1, as DistillKit's losses do by default.
    """
    with damage(path), pq.ParquetFile(path) as file:
        columns = _columns(file.schema_arrow.names)
        if columns == RAW:
            compression = None
        elif compression is None:
            raise ValueError("it is compressed: give DistillKit's configuration")
        row = 0
        names = ["input_ids", *columns]
        for i in range(file.num_row_groups):
            check_columns(path, file.metadata, i)
            _check_sizes(file.metadata.row_group(i), names)
        for batch in file.iter_batches(ROWS, columns=names):
            for cells in zip(*(_cast(batch, name) for name in names), strict=True):
                yield f"{path}: row {row}", _texts(cells, compression)
                row += 1


def _check_sizes(group: Any, names: list[str]) -> None:
    """Refuse a row group of few bytes that says it has many numbers."""
    for chunk in map(group.column, range(group.num_columns)):
        name = chunk.path_in_schema.partition(".")[0]
        size, values = chunk.total_compressed_size, chunk.num_values
        if name in names and values > MOST_VALUES + MOST_A_BYTE * size:
            raise ValueError(f"{name} has {values} values in {size} bytes")


def _columns(names: list[str]) -> tuple[str, str]:
    """Return where the ids and log-probabilities are."""
    for columns in (COMPRESSED, RAW):
        if {"input_ids", *columns} <= {*names}:
            return columns
    raise ValueError(
        f"expected columns input_ids, {' and '.join(COMPRESSED)}, or input_ids, "
        f"{' and '.join(RAW)}, got {', '.join(names)}"
    )


def _cast(batch: pa.RecordBatch, name: str) -> pa.Array:
    column = batch.column(name)
    try:
        return column.cast(KINDS[name])
    except pa.ArrowException as error:
        raise ValueError(
            f"{name} must be {KINDS[name]}, got {column.type}: {error}"
        ) from error


def _texts(cells: tuple[Any, ...], compression: Compression | None) -> Iterator[Lists]:
    """Return the text of a row: of cells of tokens, ids and log-probabilities."""
    tokens = _numbers(cells[0].values)
    ids, logprobs = (_lists(cell) for cell in cells[1:])
    if compression is not None:
        ids, logprobs = compression.token_ids(ids), compression.logprobs(logprobs)
    if ids.shape != logprobs.shape:
        raise ValueError(
            f"it has ids {ids.shape} and log-probabilities {logprobs.shape}"
        )
    with np.errstate(invalid="ignore"):  # numbers may be none
        mass = np.logaddexp.reduce(logprobs, axis=1, keepdims=True)
        logprobs = logprobs - np.maximum(mass, 0)
    yield Lists(tokens, 1, ids, logprobs, {SCALED: int((mass > TOLERANCE).sum())})


def _lists(cell: Any) -> NDArray[Any]:
    """Return a cell of lists of one length as an array [N, length]."""
    if cell.values is None or cell.values.null_count:
        raise ValueError("it lacks a list")
    lengths = pc.unique(pc.list_value_length(cell.values)).to_pylist()
    if len(lengths) > 1:
        raise ValueError(f"its lists must be of one length, got {lengths}")
    shape = len(cell.values), *(lengths or [0])
    return _numbers(cell.values.flatten()).reshape(shape)


def _numbers(values: Any) -> NDArray[Any]:
    if values is None or values.null_count:
        raise ValueError("it lacks a number")
    numbers: NDArray[Any] = values.to_numpy().copy()
    return numbers
