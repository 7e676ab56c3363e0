"""Streams of rounds that learn from each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sqs_codec._codec import Codec, Round, SparseDistribution
from sqs_codec._errors import PacketError, Status, packet_error
from sqs_codec._format import MEMORY_WORDS

__all__ = ["StreamDecoder", "StreamEncoder", "StreamError"]

NUMBERS = 128
"""A packet's first byte is its number modulo this; or, if it is self-contained, its
first four are its number with the highest bit set."""

SELF_CONTAINED = 1 << 31
HEAD_BYTES = 4


class StreamError(PacketError):
    """A packet of a stream that isn't the one to come next.

    The decoder has not changed: it still waits for the packet it waited for, or
    for one that is self-contained.
    """


def _check_codec(codec: Codec) -> None:
    if not isinstance(codec, Codec):
        raise TypeError(f"codec must be a Codec, got {type(codec).__name__}")
    if codec.coding != "entropy":
        raise ValueError(f"a stream needs coding 'entropy', got {codec.coding!r}")


class StreamEncoder:
    """Encode rounds, each in the light of those before.

    Tokens that were in recent supports are likely to come again, so rounds that
    remember them are smaller than rounds that stand alone: by a tenth in a long
    session, and hardly or not at all if rounds are short and distributions sharp,
    as the number of a packet takes a byte. In exchange the packets have to be
    decoded all and in order, by one `StreamDecoder`. The first packet, and the
    first after `restart`, stands alone. Keep a packet until the other end has
    answered: what was lost can be sent again, but not encoded again.

    Like other writers, not to be used by two threads at once.

    Parameters
    ----------
    codec : Codec
        Of coding ``"entropy"``.

    Examples
    --------
    >>> import sqs_codec as sqs
    >>> codec = sqs.Codec(vocab_size=1000, resolution=10)
    >>> q = sqs.SparseDistribution([3, 141, 592], [7, 2, 1], vocab_size=1000)
    >>> edge, cloud = sqs.StreamEncoder(codec), sqs.StreamDecoder(codec)
    >>> packets = [edge.encode_round([q], [141]) for _ in range(9)]
    >>> len(packets[-1]) < len(packets[0])
    True
    >>> all(cloud.decode_round(data).distributions == (q,) for data in packets)
    True
    """

    def __init__(self, codec: Codec) -> None:
        _check_codec(codec)
        self.codec = codec
        self._number = 0
        self.restart()

    def restart(self) -> None:
        """Make the next packet self-contained.

        To be called between rounds, when a packet may be lost or a decoder joins.
        """
        self._self_contained = True
        self._memory = np.zeros(MEMORY_WORDS, np.uint32)

    def encode_round(
        self, distributions: Sequence[SparseDistribution], tokens: Sequence[int]
    ) -> bytes:
        """Return the stream's next packet, as `Codec.encode_round` would.

        If it raises, the stream goes on as if it had not been called.
        """
        round_ = Round(tuple(distributions), tuple(tokens))
        memory = self._memory.copy()  # a copy of the encoder keeps the old one
        body = self.codec._encode_round(round_, memory)
        self._memory = memory
        number, self._number = self._number, (self._number + 1) % SELF_CONTAINED
        head = bytes([number % NUMBERS])
        if self._self_contained:
            head = (number | SELF_CONTAINED).to_bytes(HEAD_BYTES, "big")
        self._self_contained = False
        return head + body

    def _size(self, round_: Round) -> int:
        """Return the size that the next packet would have, in bytes."""
        body = self.codec._encode_round(round_, self._memory.copy())
        return (HEAD_BYTES if self._self_contained else 1) + len(body)


class StreamDecoder:
    """Decode the rounds of a `StreamEncoder`.

    Packets that are missing, late or there twice are noticed, as long as fewer
    than 128 in a row are missing. A decoder serves one encoder: for a new one, make
    a new one.

    Parameters
    ----------
    codec : Codec
        The encoder's.

    Attributes
    ----------
    missed : int
        Packets that had not come when a self-contained one took their place.

    Examples
    --------
    >>> import sqs_codec as sqs
    >>> codec = sqs.Codec(vocab_size=1000, resolution=10)
    >>> q = sqs.SparseDistribution([3, 141], [7, 3], vocab_size=1000)
    >>> edge, cloud = sqs.StreamEncoder(codec), sqs.StreamDecoder(codec)
    >>> first, lost, third = (edge.encode_round([q], [3]) for _ in range(3))
    >>> _ = cloud.decode_round(first)
    >>> cloud.decode_round(third)
    Traceback (most recent call last):
        ...
    sqs_codec._stream.StreamError: packet 2 of the stream came when 1 was due: 1 \
missing; send what is missing, or call the encoder's restart
    >>> edge.restart()
    >>> cloud.decode_round(edge.encode_round([q], [3])).tokens
    (3,)
    """

    def __init__(self, codec: Codec) -> None:
        _check_codec(codec)
        self.codec = codec
        self.missed = 0
        self._due: int | None = None
        self._memory = np.zeros(MEMORY_WORDS, np.uint32)

    def decode_round(self, data: bytes) -> Round:
        """Return the round of the stream's next packet.

        Parameters
        ----------
        data : bytes-like
            Exactly one packet: that which follows the last one decoded, or a later
            one that is self-contained, from which the stream goes on.

        Raises
        ------
        StreamError
            If packets are missing before this one, or it came before.
        PacketError
            If the packet breaks a rule of the format. The decoder waits for it
            to be sent again.
        """
        packet = memoryview(data).tobytes()
        if not packet:
            raise packet_error(Status.TRUNCATED, 0)
        if packet[0] < NUMBERS:
            number = self._number(packet[0])
            body, memory = packet[1:], self._memory.copy()
        else:
            if len(packet) < HEAD_BYTES:
                raise packet_error(Status.TRUNCATED, len(packet))
            number = int.from_bytes(packet[:HEAD_BYTES], "big") - SELF_CONTAINED
            if self._due is not None and number < self._due:
                raise StreamError(
                    f"packet {number} of the stream came when {self._due} was due: "
                    "it came before; or its encoder is new and needs a new decoder"
                )
            body, memory = packet[HEAD_BYTES:], np.zeros(MEMORY_WORDS, np.uint32)
        round_ = self.codec._decode_round(body, memory)
        if self._due is not None:
            self.missed += number - self._due
        self._due, self._memory = number + 1, memory
        return round_

    def _number(self, number: int) -> int:
        """Return the packet's number, which is the one that is due."""
        if self._due is None:
            raise StreamError(
                "the stream begins with a packet that is not self-contained; call "
                "the encoder's restart"
            )
        missing = (number - self._due) % NUMBERS
        before = NUMBERS - missing
        if missing >= NUMBERS // 2:
            raise StreamError(
                f"packet {self._due - before} of the stream came when {self._due} was "
                f"due: it came before; or {missing} are missing, and the encoder's "
                "restart has to be called"
            )
        if missing:
            raise StreamError(
                f"packet {self._due + missing} of the stream came when {self._due} was "
                f"due: {missing} missing; send what is missing, or call the encoder's "
                "restart"
            )
        return self._due
