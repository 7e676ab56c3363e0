"""What the numbers of a session derive from: its seed, and nothing that a peer says.

Two families come of one seed, each independent of the other: the draws of rounds, one
sequence for each round's number, and the numbers that both ends share, one for each
position of the text and token (``docs/theory.md``).
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from sqs_codec._base import checks
from sqs_codec.system.session import _wire as wire

MOST_SEED = (1 << 64) - 1


def draws(seed: bytes, number: int, count: int) -> NDArray[np.float64]:
    """Return a round's numbers, which its session's seed and `number` decide."""
    key = blake2b(number.to_bytes(8, "big"), key=seed, digest_size=16).digest()
    philox = np.random.Philox(key=int.from_bytes(key, "big"))
    return np.random.Generator(philox).random(count)


def race_key(seed: bytes, epoch: int) -> bytes:
    """Return the key of the shared numbers; `epoch` counts replacements of the text."""
    data = epoch.to_bytes(8, "big")
    return blake2b(data, key=seed, person=b"sqs race", digest_size=16).digest()


def seed_of(number: int, prompt: Sequence[int]) -> bytes:
    """Return the seed of a session whose text can be had again.

    One number gives other prompts other seeds: their texts aren't correlated, and
    nobody can write a prompt for numbers that he knows.

    Parameters
    ----------
    number : int
        Of the user's choice, from 0 to 2**64 - 1.
    prompt : sequence of int

    Examples
    --------
    >>> seed_of(7, [3, 1, 4]).hex()
    '9677541da57dfc7f58ff7051241e8ce2'
    """
    number = checks.in_range("seed", number, 0, MOST_SEED)
    tokens = checks.uint32("prompt", np.asarray(prompt, np.int64)).astype("<u4")
    key, size = number.to_bytes(8, "big"), wire.SEED_BYTES
    made = blake2b(tokens.tobytes(), key=key, person=b"sqs seed", digest_size=size)
    return made.digest()
