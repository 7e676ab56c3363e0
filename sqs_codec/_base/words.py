"""Text from other machines, made safe for a terminal."""

import re

MOST = 1000

ACTS = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line ends, bidirectional controls and surrogates."""


def shown(text: str, most: int | None = MOST, *, lines: bool = False) -> str:
    """Return text with control characters spelled out, cut to `most` characters.

    With `lines`, newlines and tabs stay.

    >>> print(shown(f"2 lines,{chr(10)}and {chr(27)}[2J"))
    2 lines,<0a>and <1b>[2J
    """
    if most is not None and len(text) > most:
        text = f"{text[:most]}..."
    kept = "\n\t" if lines else ""
    return ACTS.sub(lambda m: m[0] if m[0] in kept else f"<{ord(m[0]):02x}>", text)
