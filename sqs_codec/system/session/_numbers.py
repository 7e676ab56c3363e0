"""What the numbers of a session derive from: its seed, and nothing that a peer says.

Two families come of one seed, each independent of the other: the draws of rounds, one
sequence for each round's number, and the numbers that both ends share, one for each
position of the text and token (``docs/theory.md``).
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def draws(seed: bytes, number: int, count: int) -> NDArray[np.float64]:
    """Return a round's numbers, which its session's seed and `number` decide."""
    key = blake2b(number.to_bytes(8, "big"), key=seed, digest_size=16).digest()
    philox = np.random.Philox(key=int.from_bytes(key, "big"))
    return np.random.Generator(philox).random(count)


def race_key(seed: bytes, epoch: int) -> bytes:
    """Return the key of the shared numbers; `epoch` counts replacements of the text."""
    data = epoch.to_bytes(8, "big")
    return blake2b(data, key=seed, person=b"sqs race", digest_size=16).digest()
