"""What a text that can be had again has for a seed."""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from sqs_codec._base import checks

MOST_SEED = (1 << 64) - 1  # 8 bytes of BLAKE2's key


def seed_of(number: int, prompt: Sequence[int]) -> bytes:
    """Return the seed of a session whose text can be had again.

    One number gives other prompts other seeds: their texts aren't correlated, and
    nobody can write a prompt for numbers that he knows.

    Parameters
    ----------
    number : int
        Of the user's choice, from 0 to 2**64 - 1.

    Examples
    --------
    >>> seed_of(7, [3, 1, 4]).hex()
    '9677541da57dfc7f58ff7051241e8ce2'
    """
    number = checks.in_range("seed", number, 0, MOST_SEED)
    tokens = checks.uint32("prompt", np.asarray(prompt, np.int64)).astype("<u4")
    key = number.to_bytes(8, "big")
    made = blake2b(tokens.tobytes(), key=key, person=b"sqs seed", digest_size=16)
    return made.digest()
