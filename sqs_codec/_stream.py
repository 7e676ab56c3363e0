"""Streams of rounds that learn from each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sqs_codec._codec import Codec, Round, SparseDistribution
from sqs_codec._errors import PacketError, Status, packet_error
from sqs_codec._format import MEMORY_WORDS

__all__ = ["StreamDecoder", "StreamEncoder", "StreamError"]

SELF_CONTAINED = 0x80
NUMBERS = 0x80
"""A packet's first byte is its number, modulo this, and that flag."""


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
    remember them are smaller than rounds that stand alone. In exchange the
    packets have to be decoded all and in order, by a `StreamDecoder`; each is
    numbered, so that anything else is noticed. The first packet, and the first
    after `restart`, stands alone.

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
        flag = SELF_CONTAINED if self._self_contained else 0
        head = bytes([flag | self._number])
        self._self_contained = False
        self._number = (self._number + 1) % NUMBERS
        return head + body

    def _size(self, round_: Round) -> int:
        """Return the size of the next packet in bytes, without making it."""
        return 1 + len(self.codec._encode_round(round_, self._memory.copy()))


class StreamDecoder:
    """Decode the rounds of a `StreamEncoder`.

    Parameters
    ----------
    codec : Codec
        The encoder's.

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
        self._due: int | None = None
        self._memory = np.zeros(MEMORY_WORDS, np.uint32)
        self._last = b""

    def decode_round(self, data: bytes) -> Round:
        """Return the round of the stream's next packet.

        Parameters
        ----------
        data : bytes-like
            Exactly one packet: that which follows the last one decoded, or a
            self-contained one, from which the stream goes on.

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
        number = packet[0] % NUMBERS
        memory = self._memory.copy()
        if packet[0] & SELF_CONTAINED:
            if packet == self._last:
                raise StreamError(f"packet {number} of the stream came twice")
            memory = np.zeros(MEMORY_WORDS, np.uint32)
        else:
            self._check_number(number)
        round_ = self.codec._decode_round(packet[1:], memory)
        self._memory, self._last = memory, packet
        self._due = (number + 1) % NUMBERS
        return round_

    def _check_number(self, number: int) -> None:
        if self._due is None:
            raise StreamError(
                f"the stream begins with packet {number}, which is not "
                "self-contained; call the encoder's restart"
            )
        missing = (number - self._due) % NUMBERS
        came = f"packet {number} of the stream came when {self._due} was due: "
        if missing >= NUMBERS // 2:
            raise StreamError(came + "it came before or is late; ignore it")
        if missing:
            raise StreamError(
                came + f"{missing} missing; send what is missing, or call the "
                "encoder's restart"
            )
