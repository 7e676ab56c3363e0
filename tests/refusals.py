"""What a call refuses, in a line."""

from collections.abc import Callable
from typing import Any

import pytest

Errors = type[BaseException] | tuple[type[BaseException], ...]


def refuses(
    words: str,
    call: Callable[..., Any],
    *given: Any,
    error: Errors = ValueError,
    **options: Any,
) -> None:
    """Check that a call raises an error whose message has the words."""
    with pytest.raises(error, match=words):
        call(*given, **options)
