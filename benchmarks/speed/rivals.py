"""Alternatives in torch and NumPy, and one read of the rows."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.speed.timing import Contestant, each, read

READ, NUMPY, NUMPY_TWICE = "one read", "NumPy argpartition", "NumPy, two passes"
TORCH, TORCH_FIRST, TORCH_TWICE = (
    f"torch {how}" for how in ("softmax + topk", "topk + softmax of K", "two passes")
)

GROUPS = 64
"""Groups per row for two passes; it divides V, and is at least K."""


def one_read(
    rows: NDArray[np.floating], calls: int | None = None, name: str = READ
) -> Contestant:
    """Time to read every value of rows [n, V] once; `calls` is n if not given."""
    return Contestant(name, lambda: read(rows), calls or len(rows))


def numpy_twice(row: NDArray[np.floating], k: int) -> NDArray[np.intp]:
    """Return the places of the k largest.

    The k-th largest maximum of a group bounds the k-th largest value from below.
    """
    maxima = row.reshape(GROUPS, -1).max(0)
    at = np.flatnonzero(row >= np.partition(maxima, -k)[-k])
    return at[np.argpartition(row[at], -k)[-k:]]


def torch_twice(row: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k largest values and their places, found in the best groups."""
    groups = row.view(GROUPS, -1)
    best = torch.topk(groups.amax(0), k, sorted=False)[1]
    values, at = torch.topk(groups[:, best].view(-1), k)
    return values, at // k * groups.shape[1] + best[at % k]


def others(
    rows: Sequence[NDArray[np.floating]], k: int, temperature: float
) -> list[Contestant]:
    """Time logits to the k most probable tokens; torch also returns probabilities."""
    ways: dict[str, Callable[[torch.Tensor], object]] = {
        TORCH: lambda row: torch.topk(torch.softmax(row / temperature, -1), k),
        TORCH_FIRST: lambda row: torch.softmax(torch.topk(row, k)[0] / temperature, -1),
        TORCH_TWICE: lambda row: torch.softmax(
            torch_twice(row, k)[0] / temperature, -1
        ),
    }
    tensors = [torch.from_numpy(row) for row in rows]
    return [
        *(_inferring(each(name, way, tensors)) for name, way in ways.items()),
        each(NUMPY, lambda row: np.argpartition(row, -k), rows),
        each(NUMPY_TWICE, lambda row: numpy_twice(row, k), rows),
    ]


def _inferring(block: Contestant) -> Contestant:
    def run() -> None:
        with torch.inference_mode():
            block.run()

    return Contestant(block.name, run, block.calls)
