"""Limits of the format, with the values of ``sqs.h``."""

from __future__ import annotations

from enum import IntEnum

MIN_VOCAB = 2
MAX_VOCAB = 1 << 20
MAX_RESOLUTION = 1 << 16
MAX_ROUND = 256
MAX_ENUMERATIVE_SUPPORT = 1024
MAX_ENUMERATIVE_SQUARES = 8 << 20
"""Of a round's support sizes, summed."""

ROUND_LENGTH_BITS = 8

SUM_TOLERANCE = 1e-3
"""How far from 1 the sum of a row of probabilities may be."""


class Coding(IntEnum):
    """Codings, with the values of ``sqs_coding``."""

    BITPACK = 0
    ENUMERATIVE = 1
