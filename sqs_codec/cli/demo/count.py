"""What crosses between the two ends of the demo, counted by a bystander.

The ends are those of any session (`sqs_codec.session`); a `Tap` on the link keeps the
packets, and a `Watched` draft model notes what the keep rule leaves, which never
crosses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

import sqs_codec as sqs
from sqs_codec import theory
from sqs_codec._codec.keep import count_kept, rule
from sqs_codec.edge import Step
from sqs_codec.hf._models import CachedModel
from sqs_codec.session import Link

HEADER_BYTES = 4
"""What a session puts before a round's packet."""

RAW_TOKEN_BITS = 16 + 32
"""Raw top-K: an fp16 probability and an int32 id for each token kept."""


def softmax(logits: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Probabilities of each row of logits; at temperature 0 all on the argmax.

    Parameters
    ----------
    logits : array_like, shape [..., V]
    temperature : float
        At least 0. Ties at 0 go to the lower token id.

    Returns
    -------
    ndarray of float64, shape [..., V]

    Examples
    --------
    >>> softmax([0.0, 1.0, 1.0], temperature=0).tolist()
    [0.0, 1.0, 0.0]
    """
    x = np.asarray(logits, dtype=np.float64)
    if temperature == 0:
        probs = np.zeros_like(x)
        np.put_along_axis(probs, x.argmax(-1)[..., None], 1.0, axis=-1)
        return probs
    x = np.exp((x - x.max(-1, keepdims=True)) / temperature)
    return np.asarray(x / x.sum(-1, keepdims=True))


class Tap:
    """A link that keeps the packets of the rounds that are sent over it.

    Parameters
    ----------
    link : Link
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._packets: list[bytes] = []

    @property
    def reliable(self) -> bool:
        """The link's."""
        return self._link.reliable

    @property
    def max_message(self) -> int:
        """The link's."""
        return self._link.max_message

    @property
    def sent(self) -> int:
        """The link's."""
        return self._link.sent

    @property
    def received(self) -> int:
        """The link's."""
        return self._link.received

    @property
    def overhead(self) -> int:
        """The link's."""
        return self._link.overhead

    def send(self, message: bytes) -> None:
        """Send a message, and keep its packet if it is a round."""
        if message[0] >= 0x80:
            self._packets.append(message[HEADER_BYTES:])
        self._link.send(message)

    def receive(self, timeout: float | None) -> bytes | None:
        """Return the next message."""
        return self._link.receive(timeout)

    def close(self) -> None:
        """Close the link."""
        self._link.close()

    def take(self) -> list[bytes]:
        """Return the packets since the last call."""
        packets, self._packets = self._packets, []
        return packets


class Watched:
    """A draft model that notes K, what the keep rule leaves of each row.

    Parameters
    ----------
    model : CachedModel
    keep : TopK or Conformal
        As it is when a row is asked for.
    temperature : float
    """

    def __init__(
        self, model: CachedModel, keep: sqs.TopK | sqs.Conformal, temperature: float
    ) -> None:
        self._model = model
        self._keep = keep
        self._temperature = temperature
        self._kept: list[int] = []

    def logits(self, tokens: Sequence[int], last: int = 1) -> NDArray[np.float32]:
        """Return the model's logits."""
        rows = self._model.logits(tokens, last)
        self._kept.append(support_kept(rows[-1], self._keep, self._temperature))
        return rows

    def take(self) -> list[int]:
        """Return K of each row since the last call."""
        kept, self._kept = self._kept, []
        return kept


def support_kept(
    logits: ArrayLike, keep: sqs.TopK | sqs.Conformal, temperature: float
) -> int:
    """K, the tokens a keep rule leaves before quantization drops most of them.

    The codec never needs this number, because it sends only the tokens whose
    count is not zero. The paper's formula charges for all K.

    Parameters
    ----------
    logits : array_like, shape [V]
    keep : sqs.TopK or sqs.Conformal
    temperature : float
        At 0 the distribution is a single token and so is what is kept.
    """
    if temperature == 0:
        return 1
    descending = -np.sort(-softmax(logits, temperature))
    unmasked = np.isfinite(logits).sum()
    return int(count_kept(*rule(keep), descending, unmasked))


@dataclass
class Stats:
    """Sums over the rounds of one keep rule; every rate derives from them.

    Attributes
    ----------
    codec : Codec
        Reads the packets.
    support_size_sent : bool
        Whether the paper's scheme has to tell K, as in C-SQS.
    rounds, drafted, accepted, resampled, emitted : int
        Drafted tokens are those that cost uplink, accepted and resampled those
        that the cloud judged (after a rejection the round's other tokens are
        void), emitted those in the text. The last token of a text that reaches its
        length is the cloud's alone.
    kept, survivors : int
        Σ K and Σ k over the drafted tokens.
    wire_bits : int
        8 bits for every byte of the rounds' messages: headers, distributions,
        drafted tokens, framing and padding.
    paper_bits, raw_bits, dense_bits : int
        The same distributions by the paper's formula, as raw top-K, and dense in
        fp16; none of them counts the drafted token or framing.
    """

    codec: sqs.Codec
    support_size_sent: bool
    rounds: int = 0
    drafted: int = 0
    accepted: int = 0
    resampled: int = 0
    emitted: int = 0
    kept: int = 0
    survivors: int = 0
    wire_bits: int = 0
    paper_bits: int = 0
    raw_bits: int = 0
    dense_bits: int = 0

    @property
    def acceptance_rate(self) -> float:
        """Accepted tokens per token that the cloud judged."""
        return self.accepted / max(1, self.accepted + self.resampled)

    @property
    def resampling_rate(self) -> float:
        """Resampled tokens per token of the text."""
        return self.resampled / max(1, self.emitted)

    @property
    def bits_per_drafted(self) -> float:
        """Bits on the wire per drafted token."""
        return self.wire_bits / max(1, self.drafted)

    def add(self, step: Step, packets: Sequence[bytes], kept: Sequence[int]) -> None:
        """Account for a step.

        Parameters
        ----------
        step : Step
        packets : sequence of bytes
            Of the step's round; none where the cloud decoded alone.
        kept : sequence of int
            K of each distribution.
        """
        self.emitted += len(step.tokens)
        for packet in packets:
            self.wire_bits += 8 * (HEADER_BYTES + len(packet))
        if not packets:
            return
        self.rounds += 1
        self.drafted += step.drafted
        self.accepted += step.accepted
        self.resampled += step.accepted < step.drafted
        self.dense_bits += 16 * self.codec.vocab_size * step.drafted
        found = [q for p in packets for q in self.codec.decode_round(p).distributions]
        # After a stop token comes a row of which nothing is drafted.
        for q, k in zip(found, kept, strict=False):
            self.survivors += len(q.token_ids)
            self.kept += k
            self.raw_bits += RAW_TOKEN_BITS * k
            self.paper_bits += theory.paper_bits(
                self.codec.vocab_size, k, q.resolution, conformal=self.support_size_sent
            )
