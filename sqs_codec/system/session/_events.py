"""What comes of a message that an edge has received."""

from __future__ import annotations

from dataclasses import dataclass

from sqs_codec.system.session._limits import Limits

__all__ = ["Emitted", "Event", "Refused", "Welcomed"]


@dataclass(frozen=True)
class Welcomed:
    """The cloud has taken the session, and these are its limits."""

    limits: Limits


@dataclass(frozen=True)
class Emitted:
    """Tokens that are part of the text from now on.

    Attributes
    ----------
    tokens : tuple of int
    accepted, drafted : int
        How many of the round's drafted tokens are accepted, and how many it had. Both
        are 0 if the cloud decoded alone.
    """

    tokens: tuple[int, ...]
    accepted: int
    drafted: int


@dataclass(frozen=True)
class Refused:
    """The session is over, and why."""

    reason: str


Event = Welcomed | Emitted | Refused
