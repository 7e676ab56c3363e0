"""Streams of rounds that learn from each other."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

from sqs_codec._base import checks
from sqs_codec._base.errors import PacketError, Status, packet_error
from sqs_codec._base.format import MEMORY_HEAD, MEMORY_TOKENS, MEMORY_WORDS
from sqs_codec._codec.codec import Codec
from sqs_codec._codec.distribution import SparseDistribution
from sqs_codec._codec.round import Round, make_round

if TYPE_CHECKING:
    from sqs_codec._backend.core import Ids

__all__ = ["StreamDecoder", "StreamEncoder", "StreamError"]

SELF_CONTAINED = 0
"""The head of a packet that is coded with an empty memory."""

HEADS = 255
"""How many heads the other packets can have. One in so many wrong memories is not
noticed."""


class StreamError(PacketError):
    """A packet of a stream that was coded with another memory than the decoder's.

    The decoder has not changed: it waits for the same packet as before, or for one
    that is self-contained.
    """


def _empty_memory() -> Ids:
    return np.zeros(MEMORY_WORDS, np.uint32)


def _head(memory: Ids) -> int:
    """Return the first byte of a packet that is coded with a memory.

    A checksum of the memory's state: how many supports it has seen, the last class
    of a prior, then its ids, then their weights.
    """
    words = memory.astype("<u4", copy=False)
    size = int(memory[0])
    crc = zlib.crc32(words[1 : MEMORY_HEAD + size].data)
    weights = words[MEMORY_HEAD + MEMORY_TOKENS :]
    crc = zlib.crc32(weights[:size].data, crc)
    return 1 + crc % HEADS


class _Stream:
    """What both ends of a stream have."""

    def __init__(self, codec: Codec) -> None:
        checks.instance("codec", codec, Codec, "a Codec")
        if codec.coding != "entropy":
            raise ValueError(f"a stream needs coding 'entropy', got {codec.coding!r}")
        self.codec = codec
        self._memory: Ids | None = None  # None before a self-contained packet

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.codec}>"


class StreamEncoder(_Stream):
    """Encode rounds that learn from those before.

    Tokens that were in recent supports are likely to come again, so rounds that
    remember them are smaller than rounds that stand alone: by a tenth in a long
    session, and hardly or not at all if rounds are short and distributions sharp,
    as a packet's head takes a byte. In exchange one `StreamDecoder` has to decode
    all packets, each once, and in order. The first packet, and the
    first after `restart`, is self-contained: it can be decoded without those
    before it.

    The transport or session that carries the packets has to see to order, loss,
    repetition and authenticity. Keep a packet until the other end has answered: a
    lost packet can be sent again, but its round can't be encoded again.

    Only one thread at a time may use an encoder. If an interrupt such as Ctrl-C
    ends `encode_round` or `restart`, call `restart`: the encoder may remember a
    packet that nobody got.

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

    def restart(self) -> None:
        """Make the next packet self-contained.

        To be called between rounds, when a packet may be lost or a decoder joins.
        """
        self._memory = None

    @overload
    def encode_round(self, distributions: Round, /) -> bytes: ...
    @overload
    def encode_round(
        self, distributions: Sequence[SparseDistribution], tokens: Sequence[int]
    ) -> bytes: ...
    def encode_round(
        self,
        distributions: Round | Sequence[SparseDistribution],
        tokens: Sequence[int] | None = None,
    ) -> bytes:
        """Return the stream's next packet; parameters as for `Codec.encode_round`.

        If it raises ValueError or TypeError, the stream goes on as if it had not
        been called.
        """
        round_ = make_round(distributions, tokens)
        if self._memory is None:
            head, memory = SELF_CONTAINED, _empty_memory()
        else:
            head, memory = _head(self._memory), self._memory.copy()
        body = self.codec._encode_round(round_, memory)
        self._memory = memory  # never written again, so that copies may share it
        return bytes([head]) + body


class StreamDecoder(_Stream):
    """Decode the rounds of a `StreamEncoder`.

    Every packet either gives the round that the encoder was given, or raises, except
    in one case. If packets are missing, out of order or repeated, a packet may have
    been coded with another memory than the decoder has. A check of 8 bits notices
    that; one in 255 of such packets passes, and gives another round or a
    `PacketError`.

    The decoder does not promise that rounds come in order and once. It decodes a
    self-contained packet whenever that comes, and a repeated packet if the memory
    has not changed meanwhile. Nor does it tell a forged packet from a real one: after
    a forged one it refuses what follows, until the encoder restarts. Order,
    repetition and authenticity are for the session above to see to.

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
    sqs_codec._codec.stream.StreamError: the packet was coded with another memory than \
this decoder's: packets are missing, came before or are out of order; send what is \
missing, or call the encoder's restart
    >>> edge.restart()
    >>> cloud.decode_round(edge.encode_round([q], [3])).tokens
    (3,)
    """

    def decode_round(self, data: bytes, *, max_survivors: int | None = None) -> Round:
        """Return the round of the stream's next packet.

        Parameters
        ----------
        data : bytes-like
            Exactly one packet: that which follows the last one decoded, or one that
            is self-contained, from which the stream goes on.
        max_survivors : int, optional
            As for `Codec.decode_round`.

        Raises
        ------
        StreamError
            If the packet was coded with another memory than the decoder has.
        PacketError
            If the packet breaks a rule of the format or is larger than allowed.
            The decoder has not changed.
        """
        packet = checks.packet(data)
        if not packet:
            raise packet_error(Status.TRUNCATED, 0)
        if packet[0] == SELF_CONTAINED:
            memory = _empty_memory()
        elif self._memory is None:
            raise StreamError(
                "the stream begins with a packet that is not self-contained; call "
                "the encoder's restart"
            )
        elif packet[0] == _head(self._memory):
            memory = self._memory.copy()
        else:
            raise StreamError(
                "the packet was coded with another memory than this decoder's: packets "
                "are missing, came before or are out of order; send what is missing, "
                "or call the encoder's restart"
            )
        round_ = self.codec._decode_round(packet[1:], memory, max_survivors)
        self._memory = memory
        return round_
