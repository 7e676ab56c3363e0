"""Alternatives in torch and NumPy, and one read of the rows."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.speed.timing import Contestant, each, read

READ, TORCH, NUMPY = "one read", "softmax + topk", "argpartition"
TORCH_FIRST = "topk + softmax of K"


def one_read(
    rows: NDArray[np.floating], calls: int | None = None, name: str = READ
) -> Contestant:
    """Time to read every value of rows [n, V] once; `calls` is n if not given."""
    return Contestant(name, lambda: read(rows), calls or len(rows))


def argpartition(rows: Sequence[NDArray[np.floating]], k: int) -> Contestant:
    """Time logits to the places of the k largest, and nothing more."""
    return each(NUMPY, lambda row: np.argpartition(row, -k), rows)


def softmax_top_k(
    rows: Sequence[NDArray[np.floating]], k: int, temperature: float
) -> Contestant:
    """Time logits to the k largest probabilities, as a sampler finds them."""

    def select(row: torch.Tensor) -> None:
        torch.topk(torch.softmax(row / temperature, -1), k)

    return _torch(TORCH, select, rows)


def top_k_softmax(
    rows: Sequence[NDArray[np.floating]], k: int, temperature: float
) -> Contestant:
    """Time logits to the softmax of the k largest, which leaves out all others."""

    def select(row: torch.Tensor) -> None:
        torch.softmax(torch.topk(row, k)[0] / temperature, -1)

    return _torch(TORCH_FIRST, select, rows)


def _torch(
    name: str,
    select: Callable[[torch.Tensor], None],
    rows: Sequence[NDArray[np.floating]],
) -> Contestant:
    block = each(name, select, [torch.from_numpy(row) for row in rows])

    def run() -> None:
        with torch.inference_mode():
            block.run()

    return Contestant(name, run, block.calls)
