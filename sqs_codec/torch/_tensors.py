"""Checks and conversions of tensors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from sqs_codec._base import checks
from sqs_codec._base.exp2 import TAYLOR
from sqs_codec._codec.sampling import Sampling
from sqs_codec._codec.truncation import is_cut

T = TypeVar("T")

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def is_on_host(rows: torch.Tensor) -> bool:
    """Return whether the C core can read the rows."""
    return rows.device.type == "cpu"


def as_array(rows: torch.Tensor) -> NDArray[Any]:
    """Return rows as arrays for a core, without a copy if possible."""
    if rows.dtype == torch.bfloat16:  # NumPy lacks bfloat16; cores take uint16
        return checks.contiguous_rows(rows.view(torch.int16).numpy().view(np.uint16))
    return checks.contiguous_rows(rows.numpy())


def exponentials(
    rows: torch.Tensor, scale: torch.Tensor | float, dtype: torch.dtype
) -> torch.Tensor:
    """Return softmax(rows * scale), scaled so that the largest value is 1."""
    x = rows.to(dtype)
    return (x - x.amax(-1, keepdim=True)).mul_(scale).exp_()


def exp2(t: torch.Tensor) -> torch.Tensor:
    """Overwrite t, in [-126, 127], with 2**t, bit-exact with the core."""
    is_single = t.dtype == torch.float32
    n = t.round()
    f = t.sub_(n)
    terms = TAYLOR[-8:] if is_single else TAYLOR
    p = torch.full_like(f, terms[0])
    for coefficient in terms[1:]:
        p.mul_(f).add_(coefficient)
    power = n.int() + 127 << 23 if is_single else n.long() + 1023 << 52
    return p.mul_(power.view(t.dtype))


def scale_of(temperature: float, dtype: torch.dtype) -> float:
    """Return 1 / temperature, or 1 for 0; times 0 or -inf, it is never NaN."""
    limits = torch.finfo(dtype)
    return min(max(1 / (temperature or 1.0), limits.tiny), limits.max)


def of_rows(
    counts: Sequence[int], value: Any, name: str, check: Callable[[Any], T]
) -> list[T]:
    """Return a value for each row; rounds have `counts` rows and share their value."""
    values = value if isinstance(value, Sequence) else [value] * len(counts)
    if len(values) != len(counts):
        raise ValueError(
            f"{name} must be one value, or one for each of {len(counts)} rounds, got "
            f"{len(values)}"
        )
    pairs = zip(counts, map(check, values), strict=True)
    return [value for count, value in pairs for _ in range(count)]


def truncated(rows: torch.Tensor, samplings: Sequence[Sampling]) -> torch.Tensor:
    """Return logits [n, V] with -inf for the tokens that each row's sampling excludes.

    Ties are those of `gumbel_draw`. Sums are added in another order: within about 1e-13
    of a limit, one token more or less may stay.
    """

    def largest(rows: torch.Tensor, k: int) -> torch.Tensor:
        return rows.topk(k, 1).values

    truncating = defaultdict(list)
    for row, sampling in enumerate(samplings):
        if sampling._truncates:
            truncating[sampling].append(row)
    if not truncating:
        return rows
    no_probabilities(rows)  # -inf would hide them
    kept = rows.clone()
    for sampling, having in truncating.items():
        index = torch.tensor(having).to(rows.device, non_blocking=True)
        part, take = rows[index], torch.take_along_dim
        cut = is_cut(part, torch, take, partial(largest, part), sampling)
        kept[index] = part.masked_fill(cut, -torch.inf)
    return kept


def detached(name: str, logits: torch.Tensor) -> torch.Tensor:
    """Return logits without gradients, on a device with float64."""
    if not isinstance(logits, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(logits).__name__}")
    if logits.dtype not in DTYPES:
        raise TypeError(
            f"{name} must be float16, bfloat16, float32 or float64, got {logits.dtype}"
        )
    if logits.layout is not torch.strided or logits.is_meta:
        kind = "a meta tensor" if logits.is_meta else f"a {logits.layout} one"
        raise TypeError(f"{name} must be a dense tensor with values, got {kind}")
    values = logits.detach().resolve_neg()
    return values.cpu() if values.device.type == "mps" else values


def device_of(generator: torch.Generator | None) -> torch.device:
    """Return a generator's device; None is the CPU's default generator."""
    if generator is None:
        return torch.device("cpu")
    checks.instance("generator", generator, torch.Generator, "a torch.Generator")
    return generator.device


def no_probabilities(rows: torch.Tensor) -> None:
    """Warn if the first row is on the host and looks like probabilities."""
    if is_on_host(rows) and len(rows):
        ends = rows[0, :: rows.shape[1] - 1].tolist()  # twice as fast as an array
        if min(ends) >= 0 and max(ends) < 1:
            checks.no_probabilities(as_array(rows[:1])[0])


def check_maxima(
    rows: torch.Tensor, maxima: NDArray[np.floating], name_row: Callable[[int], str]
) -> None:
    """Raise an error for the first row with a bad maximum, without waiting again."""
    bad = np.flatnonzero(~np.isfinite(maxima))
    if bad.size == 0:
        if len(rows) and 0 < maxima[0] < 1:
            no_probabilities(rows[:1].cpu())
        return
    name, largest = name_row(int(bad[0])), maxima[bad[0]]
    if largest == -np.inf:
        raise ValueError(f"{name}: every token is masked (-inf)")
    raise ValueError(f"{name}: contains {largest}; values must be finite or -inf")
