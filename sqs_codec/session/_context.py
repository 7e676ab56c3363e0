"""A text on its way to a cloud."""

from __future__ import annotations

from collections.abc import Sequence

from sqs_codec.session import _wire as wire

__all__ = ["Outgoing"]

HEAD = 50
"""Bytes of a part's message before its tokens, at most: 5 and five varints."""
WINDOW = 8
"""Parts that may be on their way at once."""


class Outgoing:
    """A text on its way; what is lost is sent again from where the cloud stands.

    Parameters
    ----------
    instance : bytes
        The cloud that it is for.
    number, drawn : int
        Of the round that follows it, and by which that is drawn.
    shared : int
        How many tokens of it the cloud has.
    tokens : sequence of int
        All of them.
    vocab_size : int
    max_message : int
        Bytes of a message.
    """

    def __init__(
        self,
        instance: bytes,
        number: int,
        drawn: int,
        shared: int,
        tokens: Sequence[int],
        *,
        vocab_size: int,
        max_message: int,
    ) -> None:
        self._instance = instance
        self._number, self._drawn, self._shared = number, drawn, shared
        self._tokens = [*tokens]
        self._vocab_size = vocab_size
        self._size = (max_message - HEAD) // wire.token_bytes(vocab_size)
        self._acked = self._next = shared
        self._went_back = -1  # to where last, so that each loss takes it back once
        self._sent = False  # whether all of it was sent
        self.there = False
        """Whether the cloud has all of it."""

    @property
    def follows(self) -> bool:
        """Whether its round may follow at once: it is a single message, and sent."""
        return self._sent and len(self._tokens) - self._shared <= self._size

    def data_to_send(self) -> list[bytes]:
        """Return the parts that may be sent now. They count as sent then."""
        total = len(self._tokens)
        if self.there or self._sent:
            return []
        end = min(total, self._acked + WINDOW * self._size)
        starts = range(self._next, end, self._size)
        if self._shared == total:
            starts = range(total, total + 1)
        self._next = max(self._next, end)
        self._sent = self._next == total
        return [self._part(start, min(start + self._size, end)) for start in starts]

    def _part(self, start: int, end: int) -> bytes:
        return wire.Context(
            self._instance,
            self._number,
            self._drawn,
            self._shared,
            start,
            len(self._tokens),
            self._tokens[start:end],
        ).to_bytes(self._vocab_size)

    def go_back(self) -> None:
        """Send again what the cloud isn't known to have."""
        self._next, self._sent = self._acked, False

    def take(self, have: wire.Have) -> None:
        """Take how many tokens the cloud has, if it is of this text."""
        if (have.instance, have.number) != (self._instance, self._number):
            return
        count, total = have.count, len(self._tokens)
        if count == total:
            self.there = True
        elif count == self._acked < self._next and count != self._went_back:
            self._went_back = count
            self.go_back()  # what follows it was lost
        elif self._acked < count < total:
            self._acked = count
            self._next = max(self._next, count)
