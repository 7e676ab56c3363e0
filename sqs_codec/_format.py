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
MAX_ENTROPY_SURVIVORS = 1 << 20
"""A round's support sizes, summed."""

ROUND_LENGTH_BITS = 8

VARIABLE = 0
"""A resolution that each distribution chooses and sends."""

MEMORY_TOKENS = 512
MEMORY_WORDS = 3 + 2 * MEMORY_TOKENS
"""uint32 values in ``sqs_memory``; all zero is an empty one."""

TAIL_BYTES = 2
TAIL_UNITS = 1 << 8 * TAIL_BYTES
"""A tail mass counts in units of one in so many."""

SUM_TOLERANCE = 1e-3
"""How far from 1 the sum of a row of probabilities may be."""


class Coding(IntEnum):
    """Codings, with the values of ``sqs_coding``."""

    BITPACK = 0
    ENUMERATIVE = 1
    ENTROPY = 2
