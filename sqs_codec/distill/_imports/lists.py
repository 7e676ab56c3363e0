"""What is read out of any of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray


class Lists(NamedTuple):
    """The listed part of a text's distributions."""

    tokens: Sequence[int] | NDArray[Any]
    first: int
    """List i is of ``tokens[first + i]`` given those before it."""
    token_ids: Sequence[Sequence[int]] | NDArray[Any]
    logprobs: Sequence[Sequence[float]] | NDArray[Any]
    notes: Mapping[str, int]
    """What a user should know of the text, and how often it is so."""


Place = tuple[str, Iterator[Lists]]
"""Where in a file something stands, in words, and the texts that it is, read when asked
for: then a ValueError says what is wrong with it, and not where."""
