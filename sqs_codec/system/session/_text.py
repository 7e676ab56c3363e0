"""What both ends do with texts, and how one goes to a cloud."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from sqs_codec._base import checks
from sqs_codec.system._base.protocol import PROGRESS
from sqs_codec.system.session import _wire as wire

HEAD = 60  # bytes of a part's message before its tokens, at most: 5 and six varints
WINDOW = 8  # parts that a cloud takes beyond those that came in order
SLOW = 4  # parts on their way at first, and after losses: the first window of RFC 3390


def check_tokens(name: str, tokens: Sequence[int], vocab_size: int) -> list[int]:
    """Return tokens of a vocabulary."""
    found = checks.integers(name, tokens)
    if found and not 0 <= min(found) <= max(found) < vocab_size:
        for i, token in enumerate(found):
            checks.in_range(f"{name}[{i}]", token, 0, vocab_size - 1)
    return found


def check_text(text: Sequence[int], vocab_size: int) -> list[int]:
    """Return a text, which has a token at least."""
    found = check_tokens("text", text, vocab_size)
    if not found:
        raise ValueError("text must have at least one token, got none")
    return found


def until_stop(tokens: list[int], stop: Collection[int]) -> list[int]:
    """Return tokens up to the first stop token, which is the last one then."""
    ends = [i + 1 for i, token in enumerate(tokens) if token in stop]
    return tokens[: ends[0]] if ends else tokens


class _Outgoing:
    """A text on its way; lost parts are sent again.

    It is given as one message from its start, and goes in parts of `max_message` bytes.
    The window halves where parts are lost and grows by one part per window, as TCP's.
    """

    def __init__(self, text: wire.Context, vocab_size: int, max_message: int) -> None:
        self._text = text
        self._vocab_size = vocab_size
        self._size = (max_message - HEAD) // wire.token_bytes(vocab_size)
        self._acked = self._next = text.shared
        self._window = float(SLOW)  # parts that may be on their way at once
        self._flight = 0  # parts on their way
        self._again = False  # whether the part at `_acked` is sent again
        self._doubt = 0  # HAVEs without progress until it counts as lost once more
        self._mark = 0  # the end of the losses that the window was last halved for
        self._sent = False  # whether all of it was sent

    @property
    def follows(self) -> bool:
        """Whether its round may follow at once: it is a single message, and sent."""
        return self._sent and self._text.total - self._text.shared <= self._size

    def data_to_send(self) -> list[bytes]:
        """Return the parts that may be sent now. They count as sent then."""
        total = self._text.total
        again, self._again = [self._acked] * self._again, False
        if self._sent and not again:
            return []
        room = max(int(self._window) - self._flight, 0) * self._size
        end = min(total, self._acked + WINDOW * self._size, self._next + room)
        fresh = range(self._next, end, self._size)
        starts = [total] if self._text.shared == total else [*again, *fresh]
        self._flight += len(fresh)
        self._next = max(self._next, end)
        self._sent = self._next == total
        return [self._part(start, min(start + self._size, end)) for start in starts]

    def _part(self, start: int, end: int) -> bytes:
        part = replace(self._text, start=start, tokens=self._text.tokens[start:end])
        return part.to_bytes(self._vocab_size)

    def go_back(self) -> None:
        """Send again what the cloud isn't known to have."""
        self._next, self._sent = self._acked, False
        self._flight = self._doubt = self._mark = 0

    def take(self, have: wire.Have) -> bool:
        """Take how many tokens the cloud has of this text; say if it has all."""
        if (have.instance, have.number) != (self._text.instance, self._text.number):
            return False
        count, total = have.count, self._text.total
        self._flight = max(self._flight - 1, 0)
        lost = False
        if self._acked < count < total:
            lost, more = count < self._mark, (count - self._acked) / self._size
            self._acked, self._next = count, max(self._next, count)
            self._flight = min(self._flight, -((count - self._next) // self._size))
            if not lost:
                self._doubt = 0
                self._window = min(self._window + more / self._window, WINDOW)
        elif count == self._acked < self._next:
            self._doubt -= 1
            lost = self._doubt <= 0
        if lost:
            self._again, self._doubt = True, -((self._acked - self._next) // self._size)
            if count >= self._mark:
                self._mark = self._next
                self._window = max(self._window / 2, SLOW)
        return count >= total


class TextSync:
    """At which number an edge is, and what the cloud has of the text before its round.

    A message has `max_message` bytes on the edge's link.
    """

    def __init__(self, vocab_size: int, max_message: int) -> None:
        self._vocab_size, self._max_message = vocab_size, max_message
        self.number = 0
        self.held = False  # whether texts hold the session's place
        self._heard = 0  # the last number that the cloud is known to be at
        self._safe = 0  # tokens that any text the cloud may have begins with
        self._outgoing: _Outgoing | None = None
        self.progress = 0  # the most that the cloud has said in HAVE, of this text

    @property
    def follows(self) -> bool:
        """Whether the round may be sent.

        Not before a text that takes several messages has come whole. And not if 64
        rounds were given up since the cloud was heard: an answer to an earlier one
        could be taken for one to this, as 7 bits of their numbers are the same.
        """
        near = self.number - self._heard < wire.NUMBERS // 2
        return self._outgoing is None or (self._outgoing.follows and near)

    def skip(self) -> None:
        """Give the next round a number that skips one.

        The cloud may have answered the one before, and then waits for the next: it
        must not take a round whose text it missed.
        """
        self.number += 2

    def move(self, number: int) -> None:
        """Go on with another cloud, which lacks the text and waits for a number."""
        self._safe = 0
        self.number = max(self.number, number - 1)
        self.skip()

    def share(self, length: int) -> None:
        """Take that another text begins with no more than this of the one before."""
        self._safe = min(self._safe, length)
        self.progress = 0

    def send(
        self,
        tokens: Sequence[int],
        drawn: int | None,
        epoch: int,
        welcome: wire.Welcome,
    ) -> None:
        """Begin to send the text before the round.

        That is drawn by `drawn`, or by its own number if None.
        """
        numbers = self.number, self.number if drawn is None else drawn, epoch
        size = len(tokens)
        place = min(self._safe, size), 0, size
        text = wire.Context(welcome.instance, *numbers, *place, [*tokens], self.held)
        most = min(self._max_message, welcome.limits.max_message)
        self._outgoing = _Outgoing(text, self._vocab_size, most)

    def data_to_send(self) -> list[bytes]:
        """Return the parts of the text that may be sent now."""
        return [] if self._outgoing is None else self._outgoing.data_to_send()

    def go_back(self) -> None:
        """Send again what the cloud isn't known to have."""
        if self._outgoing is not None:
            self._outgoing.go_back()

    def take(self, have: wire.Have, length: int) -> None:
        """Take what the cloud has, or has read, of the text, which is that long."""
        outgoing, count = self._outgoing, have.count
        rises = self.progress + PROGRESS <= count <= 2 * length
        if rises and have.number == self.number:
            self.progress = count
        if outgoing is not None and outgoing.take(have):
            self._safe = max(self._safe, min(count, length))
            self._heard = self.number
            self.arrived()

    def arrived(self) -> None:
        """Take that the cloud has the text."""
        self._outgoing = None

    def answered(self, length: int, *, done: bool) -> None:
        """Take an answer, with which text is that long, and perhaps the round over."""
        self.arrived()
        self._safe, self.progress = length, 0
        self.number += done
        self._heard = self.number
