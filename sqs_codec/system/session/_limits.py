"""What a session may have: of texts, rounds, hints and messages.

The limits of a round belong to the protocol: no cloud takes less. If one did, a draft
that was made for another would have to be given up there for what it drew, and the text
would follow another law.
"""

from dataclasses import dataclass

from sqs_codec._base import checks

ROUND_BYTES = 4096  # of a round's message at most
MAX_SURVIVORS = 4096  # tokens in the supports of a round's distributions, summed

MAX_DRAFT = 32
"""Drafted tokens of a round in a vocabulary of up to 2^24 / 33 tokens."""

MAX_AHEAD = 64
"""Tokens that a cloud decodes alone before it hears that the edge has got some; no more
are decoded for an edge that has vanished."""

PROGRESS = 64  # tokens by which a cloud's progress must rise to count: the least part
MAX_SETTINGS = 4  # ways to draft of a session
MAX_STOP = 64  # tokens that end a text

MAX_HINTED = 16  # tokens of a branch in a hint
MAX_BRANCHES = 16  # of a hint
MAX_KEPT = 64  # branches that a cloud holds of a session; the earliest go first

MAX_MESSAGE = (
    65536  # bytes that a message may have, unless an end or its link says less
)
MIN_MESSAGE = 512  # what every end takes: room for a hello, a welcome and a refusal
MAX_REASON = 500  # bytes of a refusal's words

MAX_NESTED = 16
"""Arrays and objects in a message of JSON, of which a hello has 8 at most; what is
nested deeply could be too much for Python's stack."""


def max_draft(vocab_size: int) -> int:
    """Return how many tokens a round may have: an answer's 3 bytes count them."""
    return min(MAX_DRAFT, (1 << 24) // vocab_size - 1)


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
