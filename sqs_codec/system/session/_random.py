"""The random numbers of a session. They depend on its seed, never on a peer's data.

One seed gives two independent families: a sequence for each round's number, and the
shared random numbers, one per position and token (``docs/theory.md``).
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def draws(seed: bytes, number: int, count: int) -> NDArray[np.float64]:
    """Return random numbers in [0, 1) for the round with this number."""
    key = blake2b(number.to_bytes(8, "big"), key=seed, digest_size=16).digest()
    philox = np.random.Philox(key=int.from_bytes(key, "big"))
    return np.random.Generator(philox).random(count)


def shared_key(seed: bytes, epoch: int) -> bytes:
    """Return the key of shared random numbers; `epoch` counts replaced texts."""
    data = epoch.to_bytes(8, "big")
    return blake2b(data, key=seed, person=b"sqs race", digest_size=16).digest()
