"""The protocol's modes and limits of texts, rounds, hints and messages.

Every cloud must accept rounds up to these limits. If a cloud could refuse a drafted
round because of its sampled tokens, the output distribution would change.
"""

from collections.abc import Mapping
from typing import Literal, get_args

Mode = Literal["alone", "rounds", "hints"]
"""The cloud decodes alone or with hints, or it verifies rounds."""

MODES: tuple[Mode, ...] = get_args(Mode)

HELLO = 1  # the first byte of a session's first message
ROUND_HEAD = 4  # bytes of a round's message before its packet

ROUND_BYTES = 4096  # maximum bytes of a round's message
MAX_SURVIVORS = 4096  # maximum sum of a round's support sizes
MAX_DRAFT = 32  # maximum tokens of a round, for vocabularies up to 2^24 / 33

MAX_AHEAD = 64
"""Maximum tokens that a cloud decodes without a confirmation from the edge, in case the
edge has vanished."""

PROGRESS = 64  # minimum rise of a cloud's progress in tokens, to count as alive
MAX_SETTINGS = 4  # draft settings of a session
MAX_STOP = 64  # stop tokens of a session

MAX_HINTED = 16  # tokens of a branch in a hint
MAX_BRANCHES = 16  # branches of a hint
MAX_KEPT = 64  # branches that a cloud keeps per session; it drops the earliest first

MAX_MESSAGE = 65536  # bytes of a message, unless an end or its link has a lower limit
MIN_MESSAGE = 512  # smallest such limit: room for a hello, a welcome and a refusal
MAX_REASON = 500  # bytes of a refusal's reason

MAX_NESTED = 16
"""Arrays and objects in a JSON message; a hello has at most 8. Deeper nesting could
overflow Python's stack."""

PART = 512
"""Tokens to prefill in one call: enough to use the processor fully, and few enough for
others to wait for."""

HINT_THRESHOLD = 0.1
"""Minimum probability of reaching a hinted token, without measured times."""


def max_draft(vocab_size: int) -> int:
    """Return the maximum tokens of a round: 3 bytes of an answer encode the outcome."""
    return min(MAX_DRAFT, (1 << 24) // vocab_size - 1)


def more_seconds(steps: Mapping[int, float] | None) -> float | None:
    """Return the seconds that each further token adds to a forward pass.

    None for fewer than two measured sizes. Measurement noise can make it negative.
    """
    if not steps or len(steps) < 2:
        return None
    few, many = min(steps), max(steps)
    return (steps[many] - steps[few]) / (many - few)
