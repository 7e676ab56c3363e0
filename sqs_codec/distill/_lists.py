"""Rows of counts as top-K lists, which trainers use."""

import numpy as np
from numpy.typing import NDArray

from sqs_codec._codec.rows import SparseRows

NOTHING = -9999.0
"""The log-probability for a probability of 0; unlike -inf, 0 times it isn't NaN."""


def top_lists(
    rows: SparseRows, k: int, *, tail: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return each row's tokens and log-probabilities, the most probable first.

    Parameters
    ----------
    rows : SparseRows [N]
    k : int
        The length of the lists. A row with resolution l has up to l tokens.
    tail : bool
        Whether the vocabulary's last id is the tail, as in `Text.tail`; it is left out.

    Returns
    -------
    token_ids : ndarray of int64 [N, k]
        Ties are in ascending order of ids. The padding is token 0.
    logprobs : ndarray of float32 [N, k]
        The padding is -9999.

    Raises
    ------
    ValueError
        A row has more than k tokens; dropping some would change what a student learns.
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
