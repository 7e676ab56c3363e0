"""Quantization of top-K lists of log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sqs_codec._backend import rounder
from sqs_codec._backend.core import Ids, joined
from sqs_codec._base import checks
from sqs_codec._base.exp2 import LOG2_E, TAYLOR
from sqs_codec._codec.rows import SparseRows, as_rows

TOLERANCE = 1 / 64
"""A list may sum to 1 + TOLERANCE. Rounding to bfloat16 changes a log-probability by at
most 2^-9 of its value, and the sum by 2^-9 times the entropy in nats: 0.008 for 64
equally likely tokens, and above 0.001 in 5 % of a model's rows at T = 0.3."""


def quantize_lists(
    token_ids: ArrayLike | Sequence[ArrayLike],
    logprobs: ArrayLike | Sequence[ArrayLike],
    vocab_size: int,
    resolution: int,
) -> SparseRows:
    """See `Codec.quantize_top_logprobs_rows`."""
    rows = len(token_ids)  # type: ignore[arg-type]
    ids, row = _join("token_ids", token_ids, "iu", np.int64)
    logs, other = _join("logprobs", logprobs, "iuf", np.float64)
    if rows != len(logprobs) or not np.array_equal(row, other):  # type: ignore[arg-type]
        _refuse_shapes(token_ids, logprobs)
    listed = logs != -np.inf
    ids, logs, row = ids[listed], logs[listed], row[listed]
    order = np.lexsort((ids, row))
    ids, logs = ids[order], logs[order]
    sizes = np.bincount(row, minlength=rows)
    _check(ids, logs, row, sizes, vocab_size)
    probs = _exp2(logs * LOG2_E)
    sums = np.bincount(row, probs, rows)  # in a fixed order: by ascending ids
    for i in np.flatnonzero(sums > 1 + TOLERANCE)[:1]:
        raise ValueError(f"row {i}: the probabilities sum to {sums[i]:.6g}, above 1")
    probs /= np.maximum(sums, 1)[row]
    ids, probs = _with_tail(ids, probs, sizes, vocab_size - 1, 1.0 - sums)
    width = probs.shape[1]
    core = rounder(width, resolution)
    found = [core.quantize_probs(row, (width, 0.0), False)[1:3] for row in probs]
    kept = [own[places] for own, (places, _) in zip(ids, found, strict=True)]
    counts = [one for _, one in found]
    survivors = [one.size for one in counts]
    return as_rows(joined(kept), joined(counts), survivors, vocab_size, resolution)


def _join(
    name: str, lists: Any, kinds: str, dtype: type[np.generic]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the values of all lists, and the index of each value's list."""
    arrays = []
    for i, values in enumerate(lists):
        checks.unmasked(f"{name}[{i}]", values)
        array = np.asarray(values)
        arrays.append(array)
        if array.ndim != 1:
            raise ValueError(f"{name}[{i}] must be a list, got shape {array.shape}")
        if array.size and array.dtype.kind not in kinds:
            wanted = "integers" if kinds == "iu" else "numbers"
            raise TypeError(f"{name}[{i}] must be {wanted}, got {array.dtype}")
    row = np.repeat(np.arange(len(arrays)), [array.size for array in arrays])
    return np.concatenate([[], *arrays], dtype=dtype, casting="unsafe"), row


def _refuse_shapes(token_ids: Any, logprobs: Any) -> None:
    """Raise an error that shows where ids and log-probabilities don't match."""
    if len(token_ids) != len(logprobs):
        raise ValueError(
            "token_ids and logprobs must have the same number of rows, got "
            f"{len(token_ids)} and {len(logprobs)}"
        )
    for i, row in enumerate(zip(token_ids, logprobs, strict=True)):
        ids, logs = map(len, row)
        if ids != logs:
            raise ValueError(f"row {i} has {ids} token_ids and {logs} logprobs")


def _check(
    ids: NDArray[np.int64],
    logs: NDArray[np.float64],
    row: NDArray[np.int64],
    sizes: NDArray[np.int64],
    vocab_size: int,
) -> None:
    """Check lists that are sorted by id; an error names the first bad row."""
    for i in np.flatnonzero(sizes == 0)[:1]:
        raise ValueError(f"row {i} lists no token")
    for at in np.flatnonzero(~(logs <= TOLERANCE))[:1]:
        raise ValueError(
            f"row {row[at]}: the log-probability of token {ids[at]} must be at most "
            f"1/64, got {logs[at]}"
        )
    for at in np.flatnonzero((ids < 0) | (ids >= vocab_size - 1))[:1]:
        raise ValueError(
            f"row {row[at]}: token {ids[at]} must be in [0, {vocab_size - 1}); the "
            f"codec's last id, {vocab_size - 1}, stands for all tokens not listed"
        )
    twice = (ids[1:] == ids[:-1]) & (row[1:] == row[:-1])
    for at in np.flatnonzero(twice)[:1]:
        raise ValueError(f"row {row[at]} lists token {ids[at]} twice")


def _exp2(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 2^t for t <= 100, bit-exact on every machine, as in ``softmax.h``."""
    inside = t >= -1000
    t = np.where(inside, t, 0)
    n = np.rint(t)
    p = np.zeros(t.shape)
    for coefficient in TAYLOR:
        p = p * (t - n) + coefficient
    power = (n.astype(np.int64) + 1023 << 52).view(np.float64)
    return np.where(inside, p * power, 0)


def _with_tail(
    ids: NDArray[np.int64],
    probs: NDArray[np.float64],
    sizes: NDArray[np.int64],
    tail_id: int,
    tails: NDArray[np.floating],
) -> tuple[Ids, NDArray[np.float64]]:
    """Return lists as rows [N, K + 1], each followed by its tail and zero padding."""
    width = int(sizes.max(initial=1)) + 1
    filled = np.arange(width) < sizes[:, None]
    all_ids = np.full(filled.shape, tail_id, np.uint32)
    all_ids[filled] = ids
    all_probs = np.zeros(filled.shape)
    all_probs[filled] = probs
    all_probs[np.arange(len(sizes)), sizes] = np.maximum(tails, 0)
    return all_ids, all_probs
