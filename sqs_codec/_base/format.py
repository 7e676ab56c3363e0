"""Limits, codings and kinds of keep rule, with the values of ``sqs.h``."""

from enum import IntEnum
from typing import Literal

FORMAT_VERSION = 1
"""Increases with every change of the bytes that a codec writes."""

MIN_VOCAB = 2
MAX_VOCAB = 1 << 20
MAX_RESOLUTION = 1 << 16
MAX_ROUND = 256
MAX_SEQUENCE = 1 << 16
MAX_ENUMERATIVE_SUPPORT = 1024
MAX_ENUMERATIVE_SQUARES = 8 << 20
"""Limit on the sum of the squares of a round's support sizes."""
MAX_ENTROPY_SURVIVORS = 1 << 20
"""Limit on the sum of the support sizes of a round or a sequence."""
MAX_SURVIVORS = MAX_ROUND * MAX_RESOLUTION
"""Limit on the survivors of a packet of any coding."""

ROUND_LENGTH_BITS = 8

MAX_PRIOR_CLASSES = 32

SUM_TOLERANCE = 1e-3
"""Largest distance from 1 of a row's sum of probabilities. It allows for float32 and
well-scaled float16, and detects logits and truncated rows that aren't normalized."""


CodingName = Literal["bitpack", "enumerative", "entropy"]
"""The name of a `Coding`."""


class Coding(IntEnum):
    """Codings, with the values of ``sqs_coding``."""

    BITPACK = 0
    ENUMERATIVE = 1
    ENTROPY = 2
