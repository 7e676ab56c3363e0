"""What others said, as a terminal may show it."""

from __future__ import annotations

import unicodedata

__all__ = ["shown"]

MOST = 1000

TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""What has text shown in another order than it is read in, as Unicode names it."""


def shown(text: str, most: int | None = MOST, *, lines: bool = False) -> str:
    """Return text, with what a terminal would obey spelled, cut to so many characters.

    With `lines` newlines and tabs stay.

    Examples
    --------
    >>> print(shown(f"2 lines,{chr(10)}and {chr(27)}[2J"))
    2 lines,<0a>and <1b>[2J
    """
    if most is not None and len(text) > most:
        text = f"{text[:most]}..."
    kept = "\n\t" if lines else ""
    return "".join(f"<{ord(c):02x}>" if c not in kept and _acts(c) else c for c in text)


def _acts(character: str) -> bool:
    return (
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(character) in TURNING
    )
