"""Statuses of the core and the exceptions they become."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["PacketError", "Status"]


class PacketError(ValueError):
    """A packet that breaks a rule of the format; the message names the rule."""


class Status(IntEnum):
    """What a backend answers, with the values of ``sqs_status`` in ``sqs.h``."""

    OK = 0
    TRUNCATED = 1
    TRAILING_BYTES = 2
    PADDING = 3
    SUPPORT_SIZE = 4
    RANK = 5
    TOKEN_ID = 6
    TOKEN_ORDER = 7
    COUNTS = 8
    TOKEN_POSITION = 9
    ROUND_SUPPORT = 10
    BAD_CODEC = 11
    BAD_DISTRIBUTION = 12
    LARGE_SUPPORT = 13
    BAD_ROUND = 14
    BAD_KEEP = 15
    BAD_FIT = 16
    BAD_TEMPERATURE = 17
    NO_SPACE = 18
    NOT_FINITE = 19
    ALL_MASKED = 20
    NEGATIVE = 21
    SUM = 22


BROKEN_RULES = {
    Status.TRUNCATED: "the packet ends inside a field",
    Status.TRAILING_BYTES: "bytes follow the packet's last field",
    Status.PADDING: "the last byte is not what an encoder ends with",
    Status.SUPPORT_SIZE: "the support is larger than the codec allows",
    Status.RANK: "the rank names no distribution",
    Status.TOKEN_ID: "a token id lies outside the vocabulary",
    Status.TOKEN_ORDER: "the token ids do not ascend",
    Status.COUNTS: "a count exceeds what the resolution leaves it",
    Status.TOKEN_POSITION: "a drafted token lies outside its support",
    Status.ROUND_SUPPORT: "a round's supports are too large together",
}
"""One message for each rule of ``docs/format.md`` that a packet can break."""


def packet_error(status: int, size: int) -> PacketError:
    """Describe the rule that a packet of `size` bytes breaks."""
    return PacketError(f"packet of {size} bytes: {BROKEN_RULES[Status(status)]}")
