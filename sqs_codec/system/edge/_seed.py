"""Seeds of reproducible completions."""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from sqs_codec._base import checks


def seed_of(number: int, prompt: Sequence[int]) -> bytes:
    """Return the session's seed for a number and a prompt.

    The seed depends on the prompt too. So completions of different prompts aren't
    correlated, and nobody can write a prompt for random numbers that are known.

    >>> seed_of(7, [3, 1, 4]).hex()
    '9677541da57dfc7f58ff7051241e8ce2'
    """
    number = checks.in_range("seed", number, 0, (1 << 64) - 1)
    tokens = checks.uint32("prompt", np.asarray(prompt, np.int64)).astype("<u4")
    key = number.to_bytes(8, "big")
    made = blake2b(tokens.tobytes(), key=key, person=b"sqs seed", digest_size=16)
    return made.digest()
