"""Checks of arguments.

Each check takes an argument's name and value, and returns the value in the form that
the package expects. Its TypeError or ValueError shows the expected and actual value.
"""

from __future__ import annotations

import math
import operator
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sqs_codec._base.format import MAX_VOCAB, MIN_VOCAB, SUM_TOLERANCE

FLOATS = tuple(map(np.dtype, (np.float32, np.float16, np.float64)))


def instance(
    name: str, value: object, kind: type | tuple[type, ...], expected: str
) -> None:
    """Check a value's class, which errors call `expected`."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {expected}, got {type(value).__name__}")


def one_of(name: str, value: object, literal: Any) -> Any:
    """Return the value if it is one of a ``Literal``'s."""
    words = get_args(literal)
    if value not in words:
        raise ValueError(f"{name} must be one of {[*words]}, got {value!r}")
    return words[words.index(value)]


def generator(value: object) -> None:
    if not isinstance(value, np.random.Generator):
        kind = type(value)
        got = kind.__name__
        if got == "Generator":  # probably torch's
            got = f"{kind.__module__}.{got}"
        raise TypeError(
            f"rng must be a numpy.random.Generator, got {got}; "
            "numpy.random.default_rng() makes one"
        )


def integer(name: str, value: int) -> int:
    """Return a Python integer, which can't overflow."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def in_range(name: str, value: int, least: int, most: int | None = None) -> int:
    """Return an integer that is in [least, most], or at least `least`."""
    number = value if type(value) is int else integer(name, value)
    if number < least or (most is not None and number > most):
        wanted = f"at least {least}" if most is None else f"in [{least}, {most}]"
        raise ValueError(f"{name} must be {wanted}, got {number}")
    return number


def vocabulary(value: int, name: str = "vocab_size") -> int:
    return in_range(name, value, MIN_VOCAB, MAX_VOCAB)


def integers(name: str, values: Sequence[int]) -> list[int]:
    try:
        return [*map(operator.index, values)]
    except TypeError:
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise TypeError(
                f"{name} must be a sequence of integers, got {values!r}"
            ) from None
        return [integer(f"{name}[{i}]", value) for i, value in enumerate(values)]


def finite(name: str, value: float, least: float, most: float) -> float:
    """Return a finite float that is in [least, most]; either may be infinite."""
    number = value if type(value) is float else _number(name, value)
    if not (math.isfinite(number) and least <= number <= most):
        bounds = f" and in [{least:g}, {most:g}]" if math.isfinite(least) else ""
        bounds = bounds or (f" and at most {most:g}" if math.isfinite(most) else "")
        raise ValueError(f"{name} must be finite{bounds}, got {number}")
    return number


def utf8(name: str, value: str) -> bytes:
    """Encode a text; ValueError for surrogates, Python's form of undecodable bytes."""
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} must be text in UTF-8") from error


def temperature(value: float) -> float:
    number = value if type(value) is float else _number("temperature", value)
    if not 0 <= number < math.inf:
        raise ValueError(f"temperature must be finite and at least 0, got {number}")
    return number


def _number(name: str, value: float) -> float:
    if isinstance(value, str | bytes | bytearray):  # float() would parse them
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None


def packet(data: bytes, name: str = "") -> bytes:
    """Return the bytes of a buffer; `name` begins the error."""
    try:
        return memoryview(data).tobytes()
    except TypeError:
        kind = type(data).__name__
        raise TypeError(f"{name}expected bytes, got {kind}") from None


def uint32(name: str, values: ArrayLike) -> NDArray[np.uint32]:
    """Copy integers to a new uint32 [k]."""
    unmasked(name, values)
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {array.shape}")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < 1 << 32:
        raise ValueError(f"{name} must fit 32 bits without sign")
    return array.astype(np.uint32)


def numbers(name: str, values: ArrayLike, n: int, dtype: type) -> NDArray[Any]:
    """Return a contiguous array of n numbers, from a caller or a generator."""
    unmasked(name, values)
    array = np.asarray(values)
    if array.shape != (n,):
        raise ValueError(
            f"{name} must have shape ({n},) (a number for each row), got {array.shape}"
        )
    if array.dtype != dtype:
        raise TypeError(f"{name} must be {np.dtype(dtype)}, got {array.dtype}")
    return np.ascontiguousarray(array)


def row(name: str, values: ArrayLike | Rows, vocab_size: int) -> NDArray[Any]:
    """Return a contiguous row [V] of floats, without a copy if possible."""
    if isinstance(values, Rows):
        return values.values
    array = _floats(name, values)
    if array.shape != (vocab_size,):
        raise ValueError(f"{name} must have shape ({vocab_size},), got {array.shape}")
    if array.strides[0] == array.itemsize and array.flags.aligned:
        return array
    return np.require(array, requirements=["C_CONTIGUOUS", "ALIGNED"])


class Rows(NamedTuple):
    """Checked rows [B, V], or one row, and the shape that errors show."""

    values: NDArray[Any]
    shape: Sequence[int]


def rows(name: str, values: ArrayLike | Rows, vocab_size: int) -> Rows:
    """Return rows [B, V] of floats; an adapter's `Rows` pass unchanged."""
    if isinstance(values, Rows):
        return values
    array = _floats(name, values)
    if array.ndim != 2 or array.shape[1] != vocab_size:
        raise ValueError(f"{name} must have shape (B, {vocab_size}), got {array.shape}")
    return Rows(contiguous_rows(array), array.shape[:1])


def contiguous_rows(array: NDArray[Any]) -> NDArray[Any]:
    """Return rows [B, V] with contiguous values, without a copy if possible."""
    between, within = array.strides
    steps, rest = divmod(between, array.itemsize)
    if within == array.itemsize and steps >= 0 and not rest and array.flags.aligned:
        return array
    return np.require(array, requirements=["C_CONTIGUOUS", "ALIGNED"])


def look_like_probabilities(row: NDArray[Any]) -> bool:
    """Return whether logits look like probabilities, neither uniform nor one-hot."""
    if row.dtype == np.uint16:  # bfloat16
        row = (row.astype(np.uint32) << 16).view(np.float32)
    return bool(
        0 <= row.min() < row.max() < 1
        and abs(row.sum(dtype=np.float64) - 1) <= SUM_TOLERANCE
    )


def no_probabilities(row: NDArray[Any]) -> None:
    """Warn the package's caller if a row of logits looks like probabilities."""
    one = 0x3F80 if row.dtype.kind == "u" else 1  # bfloat16
    is_small = 0 <= row.item(0) < one and 0 <= row.item(-1) < one
    if is_small and look_like_probabilities(row):
        level, frame = 2, sys._getframe().f_back
        while frame and str(frame.f_globals.get("__name__")).startswith("sqs_codec."):
            level, frame = level + 1, frame.f_back
        warnings.warn(
            "these logits look like probabilities: none is negative, and they sum to "
            "1. Pass logits, or use Codec.quantize_probs",
            stacklevel=level,
        )


def unmasked(name: str, values: object) -> None:
    """Reject masked arrays: the mask would be ignored."""
    ma = sys.modules.get("numpy.ma")  # imported if a masked array exists
    if ma is not None and isinstance(values, ma.MaskedArray):
        raise TypeError(
            f"{name} must be an ndarray, got a MaskedArray, whose mask would be "
            "ignored: fill it, logits with -inf"
        )


def _floats(name: str, values: ArrayLike) -> NDArray[np.floating]:
    """Return an array of floats in the machine's byte order."""
    if type(values) is not np.ndarray:
        unmasked(name, values)
    try:
        array = np.asarray(values)
    except (TypeError, RuntimeError) as error:  # such as a tensor on a GPU
        raise TypeError(
            f"{name} must be an array: {error}; convert a tensor with "
            "detach().float().cpu().numpy(), or import sqs_codec.torch, which takes "
            "tensors, as Drafter.push then does"
        ) from None
    if array.dtype in FLOATS:
        return array
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype not in FLOATS:
        got = array.dtype
        raise TypeError(f"{name} must be float16, float32 or float64, got {got}")
    return array
