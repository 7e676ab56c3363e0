"""Exceptions: for status codes of the core, and for missing packages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqs_codec._base.format import SUM_TOLERANCE


class PacketError(ValueError):
    """A packet that breaks a rule of the format; the message names the rule."""


class Status(IntEnum):
    """A backend's status codes, with the values of ``sqs_status`` in ``sqs.h``."""

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
    BAD_PRIOR = 15
    BAD_KEEP = 16
    BAD_TEMPERATURE = 17
    BAD_DTYPE = 18
    BAD_ARGUMENT = 19
    NO_SPACE = 20
    OVER_LIMIT = 21
    NOT_FINITE = 22
    ALL_MASKED = 23
    NEGATIVE = 24
    SUM = 25


BROKEN_RULES = {
    Status.TRUNCATED: "the packet ends inside a field",
    Status.TRAILING_BYTES: "bytes follow the packet's last field",
    Status.PADDING: "the last byte is not the one that an encoder writes",
    Status.SUPPORT_SIZE: "the support is larger than the codec allows",
    Status.RANK: "the rank is too large",
    Status.TOKEN_ID: "a token id lies outside the vocabulary",
    Status.TOKEN_ORDER: "the token ids do not ascend",
    Status.COUNTS: "the counts exceed the resolution",
    Status.TOKEN_POSITION: "a drafted token lies outside its support",
    Status.ROUND_SUPPORT: "the sum of the support sizes is too large",
}
"""One message for each rule of ``docs/format.md`` that a packet can break."""


def packet_error(
    status: int, size: int, most: int | None = None, name: str = "packet"
) -> PacketError:
    """Return the error of a packet; `most` is the receiver's limit on survivors."""
    if status == Status.OVER_LIMIT:
        reason = f"it has more survivors than max_survivors = {most}"
    else:
        reason = BROKEN_RULES[Status(status)]
    return PacketError(f"{name} of {size} bytes: {reason}")


def row_error(name: str, row: NDArray[Any], status: int) -> ValueError:
    """Return the error of a row that a core rejected; only logits may hold -inf."""
    if row.dtype == np.uint16:  # bfloat16
        row = (row.astype(np.uint32) << 16).view(np.float32)
    if status == Status.ALL_MASKED:
        return ValueError(f"{name}: every token is masked (-inf)")
    if status == Status.SUM:
        with np.errstate(over="ignore"):
            total = float(row.sum(dtype=np.float64))
        return ValueError(
            f"{name} must sum to 1 within {SUM_TOLERANCE}, got {total:.6g}"
            + _if_logits(name)
        )
    if status not in (Status.NOT_FINITE, Status.NEGATIVE):
        raise AssertionError(f"{name}: unexpected status {Status(status).name}")
    bad = row < 0 if status == Status.NEGATIVE else ~np.isfinite(row)
    are_logits = name.startswith("logits")
    if are_logits:
        bad &= row != -np.inf
    at = int(np.flatnonzero(bad)[0])
    allowed = "finite or -inf" if are_logits else "finite and not negative"
    hint = "" if are_logits or not row[at] < 0 else _if_logits(name)
    return ValueError(f"{name}[{at}] is {row[at]}; values must be {allowed}{hint}")


def _if_logits(name: str) -> str:
    """Return advice for callers who passed logits instead of probabilities."""
    if name.startswith("target_probs"):
        return "; if they are logits, take their softmax"
    return "; if they are logits, Codec.quantize takes them"


def install(extras: str) -> str:
    """Return the command that installs extras. The package isn't on PyPI yet.

    >>> install("serve,demo")
    "pip install '.[serve,demo]'  # in a clone of sqs-codec"
    """
    return f"pip install '.[{extras}]'  # in a clone of sqs-codec"


@contextmanager
def needing(module: str, extras: str) -> Iterator[None]:
    """Tell how to install a dependency of a module if its import fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise ImportError(f"{module} needs {package}: {install(extras)}") from error
