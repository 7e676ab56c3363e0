"""The present round of an edge: drafted at the edge, or decoded by the cloud."""

from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from sqs_codec import Drafter, Sampling, SparseDistribution
from sqs_codec.system._base.protocol import MAX_AHEAD
from sqs_codec.system.session import _wire as wire


class RoundDrafter(Drafter):
    """A drafter that truncates logits, and whose rounds all fit a message."""

    def __init__(self, *given: Any, sampling: Sampling, **options: Any) -> None:
        super().__init__(*given, **options)
        self._sampling = sampling

    def _bits_of_large(self, q: SparseDistribution) -> NoReturn:
        assert self.budget_bits is not None
        raise ValueError(
            f"push: a distribution with {q.token_ids.size} tokens exceeds a round's "
            f"limit of {self.max_survivors} tokens or {self.budget_bits // 8} bytes; "
            f"keep fewer tokens"
        )


@dataclass
class EdgeRound:
    """A drafted round, or one that waits for its answer."""

    drafter: Drafter
    setting: int
    base: int  # tokens of the text before it
    drawn: int  # the number that chooses its random numbers; stays if it is renumbered
    stopped: bool = False  # whether its last token is a stop token
    packet: bytes | None = None  # None until it is flushed
    due: bool = False  # whether to send it
    sent: bool = False  # whether the present cloud may answer it

    @property
    def state(self) -> str:
        """The session's state during this round."""
        return "drafting" if self.packet is None else "waiting"

    def again(self) -> None:
        """Send it again, if it was flushed."""
        self.due = self.packet is not None

    def to_bytes(self, number: int) -> bytes:
        assert self.packet is not None
        self.due, self.sent = False, True
        message = wire.RoundMessage(number, self.base, self.setting, self.packet)
        return message.to_bytes()

    def drop(self) -> None:
        self.drafter.abort()

    def move(self, _: int) -> None:
        """Continue with another cloud, which verifies the same round."""
        self.sent = False


@dataclass
class EdgeGeneration:
    """A round that the cloud decodes."""

    base: int
    n: int = 0
    earlier: int = 0  # tokens from a lost cloud, which no longer count in `n`
    have: int = 0
    asked: int = 0  # how many of the `n` tokens were requested so far
    together: int = 1  # tokens per message
    until: int = 0  # after a loss, request again when tokens up to here have arrived
    due: bool = False
    state: ClassVar[str] = "generating"
    drawn: ClassVar[None] = None  # its present number chooses the random numbers

    def ask(self) -> None:
        """Request more tokens before the cloud runs out of work."""
        if self.asked < self.n and self.asked - self.have <= MAX_AHEAD // 2:
            self.asked = min(self.n, self.have + MAX_AHEAD)
            self.due = True

    def again(self) -> None:
        """Request missing tokens again."""
        self.due = True

    def to_bytes(self, number: int) -> bytes:
        """Return the message. It counts as sent."""
        self.due = False
        fields = number, self.base, self.asked, self.have, self.together
        return wire.Generate(*fields).to_bytes()

    def take(self, message: wire.Tokens) -> list[int]:
        """Return the new tokens of a message; none if earlier tokens were lost."""
        if message.offset > self.have:
            end = message.offset + len(message.tokens)
            if end >= self.until and not self.due:
                self.due = True
                # Messages within a round trip show the same gap.
                self.until = min(self.asked, end + (self.asked - self.have) // 4)
            return []
        fresh = message.tokens[self.have - message.offset :]
        self.have, self.until = self.have + len(fresh), 0
        if self.have > self.n:
            raise wire.WireError(
                f"{self.have} tokens arrived for a generation of {self.n}"
            )
        self.ask()
        return fresh

    def drop(self) -> None:
        """Do nothing: the cloud notices it from the next message."""

    def move(self, length: int) -> None:
        """Continue with another cloud, after a text of this length."""
        self.base, self.n = length, self.n - self.have
        self.earlier, self.have = self.earlier + self.have, 0
        self.asked = self.until = 0
        self.ask()
