"""What both ends do with texts."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqs_codec._base import checks

__all__ = ["check_text", "check_tokens", "until_stop"]


def check_tokens(name: str, tokens: Sequence[int], vocab_size: int) -> list[int]:
    """Return tokens of a vocabulary."""
    found = checks.integers(name, tokens)
    if found and not 0 <= min(found) <= max(found) < vocab_size:
        for i, token in enumerate(found):
            checks.in_range(f"{name}[{i}]", token, 0, vocab_size - 1)
    return found


def check_text(text: Sequence[int], vocab_size: int) -> list[int]:
    """Return a text, which has a token at least."""
    found = check_tokens("text", text, vocab_size)
    if not found:
        raise ValueError("text must have at least one token, got none")
    return found


def until_stop(tokens: list[int], stop: Collection[int]) -> list[int]:
    """Return tokens up to the first stop token, which is the last one then."""
    ends = [i + 1 for i, token in enumerate(tokens) if token in stop]
    return tokens[: ends[0]] if ends else tokens
