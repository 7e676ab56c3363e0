"""What an endpoint tells its server of a connection."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

__all__ = ["Visit"]


@dataclass
class Visit:
    """A connection, as one that waits for a place sees it.

    Attributes
    ----------
    known : bool
        Whether its client has shown the key, if one is wanted.
    busy : bool
        Whether a text is written for it.
    since : float
        When it came, showed the key, or had read an answer last.
    """

    known: bool = False
    busy: bool = False
    since: float = field(default_factory=time.monotonic)
