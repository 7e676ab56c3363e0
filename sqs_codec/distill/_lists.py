"""Rows of counts as the lists of likeliest tokens that trainers take."""

import numpy as np
from numpy.typing import NDArray

from sqs_codec._codec.rows import SparseRows

NOTHING = -9999.0
"""A logarithm that stands for a probability of 0: 0 times it is 0, not NaN."""


def top_lists(
    rows: SparseRows, k: int, *, tail: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the tokens of each row and their log-probabilities, likeliest first.

    Parameters
    ----------
    rows : SparseRows [N]
    k : int
        How many a list has. A row of l counts has up to l tokens.
    tail : bool
        Whether the vocabulary's last id is no token, as `Text.tail` says; it is
        left out.

    Returns
    -------
    token_ids : ndarray of int64 [N, k]
        Of equally likely ones the lower id is first. Places that are left have token 0.
    logprobs : ndarray of float32 [N, k]
        There with -9999.

    Raises
    ------
    ValueError
        A row has more than k tokens, and without some of them a student would learn
        something else.
    """
    kept = rows.token_ids < rows.vocab_size - tail
    row = np.repeat(np.arange(len(rows)), np.diff(rows.offsets))[kept]
    ids, counts = rows.token_ids[kept], rows.counts[kept]
    order = np.lexsort((ids, -counts.astype(np.int64), row))
    sizes = np.bincount(row, minlength=len(rows))
    if (most := int(sizes.max(initial=0))) > k:
        raise ValueError(
            f"row {int(sizes.argmax())} has {most} tokens, and lists were to have {k}: "
            f"{rows.resolution} are enough for all"
        )
    place = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    token_ids = np.zeros((len(rows), k), np.int64)
    logprobs = np.full((len(rows), k), NOTHING, np.float32)
    token_ids[row, place] = ids[order]
    logprobs[row, place] = np.log(counts[order] / rows.resolution)
    return token_ids, logprobs
