"""Reading texts without what measuring takes."""

import itertools
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqs_codec import distill

PAGES = Path(__file__).parents[2] / "docs"

CONTEXTS = 5
"""That reading is timed by."""


def documentation() -> str:
    """Return this project's, as a text to measure by."""
    return "".join(page.read_text("utf-8") for page in sorted(PAGES.glob("*.md")))


def divergences(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Return KL of each of some rows of logits and another, in float64."""
    found = []
    for pair in zip(a, b, strict=True):
        x, y = (z - z.max().astype(np.float64) for z in pair)
        x, y = (z - np.log(np.exp(z).sum()) for z in (x, y))
        found.append(np.exp(x) @ (x - y))
    return np.array(found)


class Rows(distill.Task):
    """Asks for copies of a text's logits, or, without a place for them, for nothing."""

    def __init__(self, piece: distill.Piece, size: int, rows: list[Any] | None) -> None:
        super().__init__(0, *piece, size)
        self.rows = rows

    def _look(self, logits: Any, rows: slice) -> dict[str, Any]:
        if self.rows is not None:
            self.rows.append(logits.copy())
        return {}


class _One(distill.Dataset):
    """One sequence as a data set."""

    def __init__(self, data: distill.Dataset, text: distill.Sequence) -> None:
        self.header, self._texts = data.header, [text]

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Any:
        return iter(self._texts)


def factor(data: distill.Dataset, reader: distill.Reader) -> float:
    """Return the time of measuring over that of reading."""
    alone, whole = [], []
    for text in itertools.islice(data, CONTEXTS):
        piece = distill.Piece(text.tokens.tolist(), text.places.tolist())
        begin = time.perf_counter()
        reader.read([Rows(piece, reader.vocab_size, None)])
        middle = time.perf_counter()
        distill.measure(_One(data, text), reader)
        whole.append(time.perf_counter() - middle)
        alone.append(middle - begin)
    return median(x / y for x, y in zip(whole, alone, strict=True))
