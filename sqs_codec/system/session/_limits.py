"""What a cloud takes from one session."""

from dataclasses import dataclass

from sqs_codec._base import checks
from sqs_codec.system._base.protocol import MAX_MESSAGE, ROUND_BYTES


@dataclass(frozen=True)
class Limits:
    """What a cloud takes from one session.

    Attributes
    ----------
    max_text : int
        Tokens of a text, the prompt included.
    max_message : int
        Bytes of a message, at least the 4 096 that a round may have.
    """

    max_text: int = 4096
    max_message: int = MAX_MESSAGE

    def __post_init__(self) -> None:
        for name, least in (("max_text", 2), ("max_message", ROUND_BYTES)):
            value = checks.in_range(name, getattr(self, name), least)
            object.__setattr__(self, name, value)
