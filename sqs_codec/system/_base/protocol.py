"""The protocol's modes and limits, for all rooms: texts, rounds, hints and messages.

The limits of a round belong to the protocol: no cloud takes less. If one did, a draft
that was made for another would have to be given up there for what it drew, and the text
would follow another law.
"""

from collections.abc import Mapping
from typing import Literal, get_args

Mode = Literal["alone", "rounds", "hints"]
"""How tokens come: the cloud decodes alone or with hints, or it verifies rounds."""

MODES: tuple[Mode, ...] = get_args(Mode)

HELLO = 1  # the first byte of a session's first message
ROUND_HEAD = 4  # bytes of a round's message before its packet

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

MAX_MESSAGE = 65536  # bytes of a message, unless an end or its link says less
MIN_MESSAGE = 512  # what every end takes: room for a hello, a welcome and a refusal
MAX_REASON = 500  # bytes of a refusal's words

MAX_NESTED = 16
"""Arrays and objects in a message of JSON, of which a hello has 8 at most; what is
nested deeply could be too much for Python's stack."""

PART = 512
"""Tokens of texts that are read in one call: more than take a processor's time, and few
enough to wait for."""

HINT_THRESHOLD = 0.1
"""What the chance of reaching a row has to be at least, if nothing else is known."""


def max_draft(vocab_size: int) -> int:
    """Return how many tokens a round may have: an answer's 3 bytes count them."""
    return min(MAX_DRAFT, (1 << 24) // vocab_size - 1)


def more_seconds(steps: Mapping[int, float] | None) -> float | None:
    """Return what each further token of a pass takes, by the seconds of some numbers.

    None if fewer than two are known. Measured times may be noise: it may be negative.
    """
    if not steps or len(steps) < 2:
        return None
    few, many = min(steps), max(steps)
    return (steps[many] - steps[few]) / (many - few)
