"""Limits, codings and kinds of keep rule, with the values of ``sqs.h``."""

from enum import IntEnum
from typing import Literal

FORMAT_VERSION = 1
"""Goes up with every change of the bytes that a codec writes."""

MIN_VOCAB = 2
MAX_VOCAB = 1 << 20
MAX_RESOLUTION = 1 << 16
MAX_ROUND = 256
MAX_SEQUENCE = 1 << 16
MAX_ENUMERATIVE_SUPPORT = 1024
MAX_ENUMERATIVE_SQUARES = 8 << 20
"""Of a round's support sizes, summed."""
MAX_ENTROPY_SURVIVORS = 1 << 20
"""The support sizes of a round or a sequence, summed."""
MAX_SURVIVORS = MAX_ROUND * MAX_RESOLUTION
"""No packet of any coding has more."""

ROUND_LENGTH_BITS = 8

MAX_PRIOR_CLASSES = 32

SUM_TOLERANCE = 1e-3
"""How far from 1 the sum of a row of probabilities may be: room for float32 and
well-scaled float16, none for logits or for a row that was cut and not normalised."""


CodingName = Literal["bitpack", "enumerative", "entropy"]
"""How distributions become bits."""


class Coding(IntEnum):
    """Codings, with the values of ``sqs_coding``."""

    BITPACK = 0
    ENUMERATIVE = 1
    ENTROPY = 2
