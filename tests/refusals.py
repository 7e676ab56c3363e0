"""Checks of refused calls and commands, in a line each."""

from collections.abc import Callable
from importlib import import_module
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
    """Check that a call raises an error with these words in its message."""
    with pytest.raises(error, match=words):
        call(*given, **options)


def fails(capsys: pytest.CaptureFixture[str], words: str, *command: object) -> str:
    """Check that a command ends with a line of its own that has the words.

    Returns all that it said.
    """
    capsys.readouterr()
    given = [*map(str, command)]
    main = import_module("sqs_codec.cli.main").main  # the codec's tests need none
    assert main(given) == 1
    out, said = capsys.readouterr()
    assert out == ""
    last = said.splitlines()[-1]
    assert last.startswith(f"sqs {given[0]}")
    assert words in last, said
    return said
