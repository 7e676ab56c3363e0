"""Texts: checks for both ends, and how an edge sends one to a cloud."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from sqs_codec._base import checks
from sqs_codec.system._base.protocol import PROGRESS
from sqs_codec.system.session import _wire as wire

HEAD = 60  # maximum bytes before a part's tokens: 5 bytes and six varints
WINDOW = 8  # maximum parts in flight, and parts that a cloud keeps out of order
SLOW = 4  # parts in flight at first and after losses: the initial window of RFC 3390


def check_tokens(name: str, tokens: Sequence[int], vocab_size: int) -> list[int]:
    """Return tokens after checking that they belong to the vocabulary."""
    found = checks.integers(name, tokens)
    if found and not 0 <= min(found) <= max(found) < vocab_size:
        for i, token in enumerate(found):
            checks.in_range(f"{name}[{i}]", token, 0, vocab_size - 1)
    return found


def check_text(text: Sequence[int], vocab_size: int) -> list[int]:
    found = check_tokens("text", text, vocab_size)
    if not found:
        raise ValueError("text must have at least one token, got none")
    return found


def until_stop(tokens: list[int], stop: Collection[int]) -> list[int]:
    """Return the tokens up to and including the first stop token."""
    ends = [i + 1 for i, token in enumerate(tokens) if token in stop]
    return tokens[: ends[0]] if ends else tokens


class _Outgoing:
    """A text being sent in parts of `max_message` bytes; lost parts are repeated.

    The window halves after losses and grows by one part per window, as in TCP.
    """

    def __init__(self, text: wire.Context, vocab_size: int, max_message: int) -> None:
        self._text = text
        self._vocab_size = vocab_size
        self._size = (max_message - HEAD) // wire.token_bytes(vocab_size)
        self._acked = self._next = text.shared
        self._window = float(SLOW)  # maximum parts in flight
        self._flight = 0  # parts in flight
        self._again = False  # whether to repeat the part at `_acked`
        self._doubt = 0  # HAVEs without progress to expect before it counts as lost
        self._mark = 0  # where the losses end that last halved the window
        self._sent = False  # whether all parts were sent

    @property
    def follows(self) -> bool:
        """Whether the round may follow at once: the text was sent in one message."""
        return self._sent and self._text.total - self._text.shared <= self._size

    def data_to_send(self) -> list[bytes]:
        """Return the parts to send now. They count as sent."""
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
        """Send all unconfirmed parts again."""
        self._next, self._sent = self._acked, False
        self._flight = self._doubt = self._mark = 0

    def take(self, have: wire.Have) -> bool:
        """Process a confirmation; tell whether the cloud has the whole text."""
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
    """The edge's number of the present round, and what the cloud has of its text."""

    def __init__(self, vocab_size: int, max_message: int) -> None:
        self._vocab_size, self._max_message = vocab_size, max_message
        self.number = 0
        self.held = False  # whether to ask the cloud to hold the session's place
        self._heard = 0  # the last number that the cloud has confirmed
        self._safe = 0  # length of the beginning that the cloud has in any case
        self._outgoing: _Outgoing | None = None
        self.progress = 0  # the largest count in a HAVE about this text

    @property
    def follows(self) -> bool:
        """Whether the round may be sent.

        A text of several messages has to arrive first. And if 64 rounds were dropped
        since the cloud's last message, the round waits: an old answer could be mistaken
        for its own, as only 7 bits of the numbers are sent.
        """
        near = self.number - self._heard < wire.NUMBERS // 2
        return self._outgoing is None or (self._outgoing.follows and near)

    def skip(self) -> None:
        """Skip a number, so that the cloud can't accept a round whose text it lacks.

        If the cloud has answered the dropped round, it expects the next number.
        """
        self.number += 2

    def move(self, number: int) -> None:
        """Continue with another cloud, which lacks the text and expects `number`."""
        self._safe = 0
        self.number = max(self.number, number - 1)
        self.skip()

    def share(self, length: int) -> None:
        """Record how long the common beginning of old and new text is."""
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

        `drawn` chooses the round's random numbers; None stands for its own number.
        """
        numbers = self.number, self.number if drawn is None else drawn, epoch
        size = len(tokens)
        place = min(self._safe, size), 0, size
        text = wire.Context(welcome.instance, *numbers, *place, [*tokens], self.held)
        most = min(self._max_message, welcome.limits.max_message)
        self._outgoing = _Outgoing(text, self._vocab_size, most)

    def data_to_send(self) -> list[bytes]:
        return [] if self._outgoing is None else self._outgoing.data_to_send()

    def go_back(self) -> None:
        if self._outgoing is not None:
            self._outgoing.go_back()

    def take(self, have: wire.Have, length: int) -> None:
        """Process a confirmation about the text, which has `length` tokens."""
        outgoing, count = self._outgoing, have.count
        rises = self.progress + PROGRESS <= count <= 2 * length
        if rises and have.number == self.number:
            self.progress = count
        if outgoing is not None and outgoing.take(have):
            self._safe = max(self._safe, min(count, length))
            self._heard = self.number
            self.arrived()

    def arrived(self) -> None:
        """Record that the cloud has the text."""
        self._outgoing = None

    def answered(self, length: int, *, done: bool) -> None:
        """Record an answer: the text has `length` tokens, the round may be `done`."""
        self.arrived()
        self._safe, self.progress = length, 0
        self.number += done
        self._heard = self.number
