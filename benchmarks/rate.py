"""Bits of a distribution by every scheme, on the shipped drafts: ``sqs bench rate``.

    python -m benchmarks.rate --json rate.json --plot rate.png

The rows are those of the categories that no table of the entropy coding was fitted
to, and the target's of the same positions. Takes all options of ``sqs bench rate``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.drafts import VOCAB_SIZE, Rows, load_drafts, load_targets
from benchmarks.fit_model import held_out
from sqs_codec import cli
from sqs_codec.bench.sources import Session, Source


@dataclass(frozen=True)
class Answer:
    """The rows of one prompt, made when they are asked for."""

    rows: Rows
    indices: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> NDArray[np.float32]:
        return self.rows.row(int(self.indices[index]))


def shipped() -> Source:
    """Return the shipped rows that nothing was fitted to, a session per prompt."""
    drafts, targets = load_drafts(), load_targets()
    kept = held_out(drafts)
    places = [
        np.flatnonzero(drafts.prompt == n) for n in np.unique(drafts.prompt[kept])
    ]
    names = ", ".join(sorted(set(drafts.category[kept].tolist())))
    return Source(
        "SmolLM2-135M-Instruct and itself without 2 layers; the shipped drafts of "
        f"categories nothing was fitted to: {names}",
        VOCAB_SIZE,
        tuple(Session(Answer(drafts, at), Answer(targets, at)) for at in places),
    )


if __name__ == "__main__":
    sys.exit(cli.main(["bench", "rate", *sys.argv[1:]]))
