"""Unbiased quantization of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from sqs_codec._backend import frozen
from sqs_codec._base import checks
from sqs_codec._base.exp2 import LOG2_E, UNITS
from sqs_codec._codec.codec import Codec, Draw, row_name
from sqs_codec._codec.distribution import SparseDistribution
from sqs_codec._codec.rows import SparseRows, as_rows
from sqs_codec.torch._quantize import row_of, rows_of
from sqs_codec.torch._tensors import (
    as_array,
    check_maxima,
    device_of,
    exp2,
    is_on_host,
)

AT_ONCE = 1 << 23
"""Logits per chunk; their weights take about 32 bytes each."""


def quantize_unbiased(
    codec: Codec,
    logits: torch.Tensor,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> SparseDistribution:
    """Quantize one row [vocab_size], as `quantize_unbiased_rows`."""
    row = row_of(codec, logits)
    return round_rows(codec, row, temperature, partial(_draw, generator))[0]


def quantize_unbiased_rows(
    codec: Codec,
    logits: torch.Tensor,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> SparseRows:
    """Round ``softmax(logits / temperature)`` at random, without bias.

    With the same random numbers, the counts are those of
    `Codec.quantize_unbiased_rows`, to the bit, on any device. From an accelerator, two
    numbers and `resolution` ids per row move; this waits twice per 8 million logits.

    Parameters
    ----------
    codec, logits, temperature
        As for `quantize_rows`, with its errors.
    generator : torch.Generator, optional
        Called once for a random int64 per row, on the generator's device. If None, the
        CPU's default generator, which `torch.manual_seed` seeds.

    Examples
    --------
    >>> source, codec = torch.Generator().manual_seed(1), Codec(5, resolution=10)
    >>> logits = torch.tensor([[0, 3, 2, 0, 0], [1, 0, 0, 1, 1]]).bfloat16()
    >>> quantize_unbiased_rows(codec, logits, generator=source).to_dense()
    array([[0. , 0.7, 0.2, 0.1, 0. ],
           [0.3, 0.1, 0.1, 0.3, 0.2]], dtype=float32)
    """
    return round_rows(codec, logits, temperature, partial(_draw, generator))


def _draw(generator: torch.Generator | None, n: int) -> NDArray[np.uint64]:
    words = torch.empty(n, dtype=torch.int64, device=device_of(generator))
    return words.random_(-(1 << 63), None, generator=generator).cpu().numpy().view("u8")


def round_rows(
    codec: Codec, logits: torch.Tensor, temperature: float, draw: Draw
) -> SparseRows:
    """Round rows with the random numbers of `draw`; also used for teacher files."""
    rows, shape = rows_of(codec, logits)
    if is_on_host(rows):
        ready = checks.Rows(as_array(rows), shape)
        return codec._round(ready, temperature, draw)
    temperature = checks.temperature(temperature)
    numbers = draw(len(rows)).tolist()
    step = max(1, AT_ONCE // codec.vocab_size)
    found = [np.empty((0, codec.resolution), np.int32)]
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        names = [row_name(start + i, shape) for i in range(len(part))]
        ids = _marked(part, temperature, codec.resolution, numbers[start:], names)
        found.append(ids.cpu().numpy())
    return _count(np.concatenate(found), codec.vocab_size)


def _marked(
    rows: torch.Tensor,
    temperature: float,
    resolution: int,
    numbers: Sequence[int],
    names: Sequence[str],
) -> torch.Tensor:
    """Return the tokens under each row's marks, int32 [n, resolution]."""
    maxima = rows.amax(1, keepdim=True)
    ends = _weights(rows, maxima, temperature).cumsum(1)
    moved = torch.stack([maxima[:, 0].double().view(torch.int64), ends[:, -1]])
    bits, totals = moved.cpu().numpy()
    check_maxima(rows, bits.view(np.float64), lambda row: names[row])
    if temperature == 0:
        return rows.argmax(1, keepdim=True).int().expand(-1, resolution)
    pairs = zip(numbers, totals.tolist(), strict=False)
    columns = np.array([(*divmod(t, resolution), n * t >> 64) for n, t in pairs])
    apart, rest, offset = torch.from_numpy(columns.T[:, :, None]).to(rows.device)
    j = torch.arange(1, resolution + 1, device=rows.device)
    down = torch.div(offset - j * rest, resolution, rounding_mode="floor")
    return torch.searchsorted(ends, j * apart - down, out_int32=True)


def _weights(
    rows: torch.Tensor, maxima: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return unnormalized probabilities as int64, bit-exact with the core."""
    scale = min(LOG2_E / (temperature or 1.0), float(np.finfo(np.float32).max))
    wide = torch.promote_types(rows.dtype, torch.float32)
    t = (rows.to(wide) - maxima.to(wide)).float().mul_(float(np.float32(scale)))
    inside = t >= -100
    p = exp2(t.clamp_(min=-101)).masked_fill_(~inside, 0)
    return p.double().mul_(UNITS).round_().long()


def _count(ids: NDArray[np.int32], vocab_size: int) -> SparseRows:
    """Count each id in each row; equal ids are neighbors."""
    is_first = np.ones(ids.shape, np.bool_)
    is_first[:, 1:] = ids[:, 1:] != ids[:, :-1]
    places = np.flatnonzero(is_first)
    counts = np.diff(places, append=ids.size)
    kept = frozen(ids.ravel()[places].astype(np.uint32))
    counts = frozen(counts.astype(np.uint32))
    return as_rows(kept, counts, is_first.sum(1), vocab_size, ids.shape[1])
