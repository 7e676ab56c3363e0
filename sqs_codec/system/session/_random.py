"""The random numbers of a session, from its seed and from nothing that a peer says.

Two independent families come from one seed: the draws of rounds, one sequence for each
round's number, and the shared random numbers, one for each position of the text and
token (``docs/theory.md``).
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def draws(seed: bytes, number: int, count: int) -> NDArray[np.float64]:
    """Return random numbers in [0, 1) for the round of this number."""
    key = blake2b(number.to_bytes(8, "big"), key=seed, digest_size=16).digest()
    philox = np.random.Philox(key=int.from_bytes(key, "big"))
    return np.random.Generator(philox).random(count)


def shared_key(seed: bytes, epoch: int) -> bytes:
    """Return the key of shared random numbers; `epoch` counts texts replaced."""
    data = epoch.to_bytes(8, "big")
    return blake2b(data, key=seed, person=b"sqs race", digest_size=16).digest()
