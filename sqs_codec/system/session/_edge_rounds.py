"""What an edge has in the works: a round that it drafts, or that the cloud decodes."""

from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from sqs_codec import Drafter, Sampling, SparseDistribution
from sqs_codec.system._base.protocol import MAX_AHEAD
from sqs_codec.system.session import _wire as wire


class RoundDrafter(Drafter):
    """A drafter of rounds that all fit a message, from logits that it truncates."""

    def __init__(self, *given: Any, sampling: Sampling, **options: Any) -> None:
        super().__init__(*given, **options)
        self._sampling = sampling

    def _bits_of_large(self, q: SparseDistribution) -> NoReturn:
        assert self.budget_bits is not None
        raise ValueError(
            f"push: a round may have {self.max_survivors} tokens in its supports and "
            f"{self.budget_bits // 8} bytes, and this distribution of "
            f"{q.token_ids.size} tokens exceeds that by itself; keep fewer tokens"
        )


@dataclass
class EdgeRound:
    """A round that is drafted, or waits for its answer."""

    drafter: Drafter
    setting: int
    base: int  # tokens of the text before it
    drawn: int  # the number by which it is drawn, whichever number it has
    stopped: bool = False  # whether the last of them ends the text
    packet: bytes | None = None  # there once it is whole
    due: bool = False  # whether it is to be sent
    sent: bool = False  # to the present cloud, so that there may be an answer

    @property
    def state(self) -> str:
        """The session's while it has this."""
        return "drafting" if self.packet is None else "waiting"

    def again(self) -> None:
        """Send it again, if it is whole."""
        self.due = self.packet is not None

    def to_bytes(self, number: int) -> bytes:
        """Return its message, which counts as sent."""
        assert self.packet is not None
        self.due, self.sent = False, True
        message = wire.RoundMessage(number, self.base, self.setting, self.packet)
        return message.to_bytes()

    def drop(self) -> None:
        """Give it up."""
        self.drafter.abort()

    def move(self, _: int) -> None:
        """Go on with another cloud, which is to verify the same."""
        self.sent = False


@dataclass
class EdgeGeneration:
    """A round that the cloud decodes alone."""

    base: int
    n: int = 0
    earlier: int = 0  # how many tokens came before a cloud was lost, and count no more
    have: int = 0
    asked: int = 0  # how many of the `n` the cloud was asked for so far
    together: int = 1  # how many a message is to have
    until: int = 0  # lost tokens are asked for again once those up to here have come
    due: bool = False
    state: ClassVar[str] = "generating"
    drawn: ClassVar[None] = None  # by its number; the cloud before has used another's

    def ask(self) -> None:
        """Ask for more of its tokens, if the cloud will soon have no more to decode."""
        if self.asked < self.n and self.asked - self.have <= MAX_AHEAD // 2:
            self.asked = min(self.n, self.have + MAX_AHEAD)
            self.due = True

    def again(self) -> None:
        """Ask again for what hasn't come."""
        self.due = True

    def to_bytes(self, number: int) -> bytes:
        """Return its message, which counts as sent."""
        self.due = False
        fields = number, self.base, self.asked, self.have, self.together
        return wire.Generate(*fields).to_bytes()

    def take(self, message: wire.Tokens) -> list[int]:
        """Return what is new of its tokens; nothing if some before it were lost."""
        if message.offset > self.have:
            end = message.offset + len(message.tokens)
            if end >= self.until and not self.due:
                self.due = True
                # What comes within a round trip shows the same gap.
                self.until = min(self.asked, end + (self.asked - self.have) // 4)
            return []
        fresh = message.tokens[self.have - message.offset :]
        self.have, self.until = self.have + len(fresh), 0
        if self.have > self.n:
            raise wire.WireError(
                f"{self.have} tokens came for a generation of {self.n}"
            )
        self.ask()
        return fresh

    def drop(self) -> None:
        """Give it up."""

    def move(self, length: int) -> None:
        """Go on with another cloud, which decodes what follows a text so long."""
        self.base, self.n = length, self.n - self.have
        self.earlier, self.have = self.earlier + self.have, 0
        self.asked = self.until = 0
        self.ask()
