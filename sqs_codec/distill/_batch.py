"""Sequences of a file as a batch for a student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sqs_codec._base import checks
from sqs_codec._codec.rows import SparseRows
from sqs_codec.distill._dataset import Text

if TYPE_CHECKING:
    from sqs_codec.torch import TeacherBatch


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
