"""The edge, the cloud, and the bytes between them.

Each round the edge drafts some tokens and sends one packet, `Codec`'s round; the
cloud judges them in one forward pass and answers with `DOWNLINK`. The prompt is
known to both ends beforehand, and each keeps its own copy of the text. Nothing
else crosses.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

import sqs_codec as sqs
from sqs_codec import theory
from sqs_codec._keep import count_kept, rule
from sqs_codec.demo.models import CachedModel

DOWNLINK = struct.Struct(">HI")
"""The cloud's answer, 6 bytes: how many drafted tokens it accepted, and the token
that follows them (resampled after a rejection, or one more if there was none)."""

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


class Edge:
    """The device: drafts, quantizes, samples and packs.

    Parameters
    ----------
    model : CachedModel
        The draft model.
    codec : sqs.Codec
    keep : sqs.TopK or sqs.Conformal
    temperature : float
    rng : numpy.random.Generator
        Draws the drafted tokens.
    draft_length : int
        The most tokens to draft in a round.
    budget_bits : int or None
        The most bits of a round's packet.
    stream : sqs.StreamEncoder or None
        Makes the packets, if rounds learn from each other.
    """

    def __init__(
        self,
        model: CachedModel,
        codec: sqs.Codec,
        keep: sqs.TopK | sqs.Conformal,
        *,
        temperature: float,
        rng: np.random.Generator,
        draft_length: int,
        budget_bits: int | None,
        stream: sqs.StreamEncoder | None = None,
    ) -> None:
        self._model = model
        self._keep = keep
        self._temperature = temperature
        self._drafter = sqs.Drafter(
            codec,
            keep,
            rng=rng,
            budget_bits=budget_bits,
            max_tokens=draft_length,
            stream=stream,
        )
        self._text: list[int] = []
        self._drafted: list[int] = []
        self._kept: list[int] = []

    @property
    def kept(self) -> tuple[int, ...]:
        """K, the tokens that the keep rule left, for each token of the last round."""
        return tuple(self._kept)

    def start(self, prompt: Sequence[int]) -> None:
        """Begin a new text. What the keep rule has learned stays."""
        self._text = list(prompt)
        self._model.rollback(0)

    def draft(self, limit: int, stop: Collection[int] = ()) -> bytes:
        """Draft up to `limit` tokens, at least one, and pack them for the uplink.

        Drafting also ends after a token in `stop`, where the text would end.
        """
        self._drafted, self._kept = [], []
        while len(self._drafted) < limit:
            logits = self._model.logits(self._text + self._drafted)[0]
            kept = support_kept(logits, self._keep, self._temperature)
            token = self._drafter.push(logits, temperature=self._temperature)
            if token is None:
                break
            self._drafted.append(token)
            self._kept.append(kept)
            if token in stop:
                break
        return self._drafter.finish()

    def receive(self, answer: bytes) -> list[int]:
        """Take the cloud's answer and return the tokens that it adds to the text."""
        accepted, token = DOWNLINK.unpack(answer)
        self._drafter.feedback(accepted)
        # The last drafted token was never fed to the model, so what is cached may
        # already be shorter than what is accepted.
        agreed = len(self._text) + accepted
        self._model.rollback(min(len(self._model), agreed))
        fresh = [*self._drafted[:accepted], token]
        self._text += fresh
        return fresh


class Cloud:
    """The server: unpacks, verifies and answers.

    Parameters
    ----------
    model : CachedModel
        The target model.
    codec : sqs.Codec or sqs.StreamDecoder
        Reads the edge's packets.
    temperature : float
        The text comes out distributed as the target model's at this temperature.
    rng : numpy.random.Generator
        Accepts and resamples; independent of the edge's.
    """

    def __init__(
        self,
        model: CachedModel,
        codec: sqs.Codec | sqs.StreamDecoder,
        *,
        temperature: float,
        rng: np.random.Generator,
    ) -> None:
        self._model = model
        self._codec = codec
        self._temperature = temperature
        self._rng = rng
        self._text: list[int] = []

    def start(self, prompt: Sequence[int]) -> None:
        """Begin a new text."""
        self._text = list(prompt)
        self._model.rollback(0)

    def verify(self, packet: bytes) -> bytes:
        """Judge one round's packet and return the `DOWNLINK` answer."""
        round_ = self._codec.decode_round(packet)
        drafted = list(round_.tokens)
        logits = self._model.logits(self._text + drafted, last=len(drafted) + 1)
        target_probs = softmax(logits, self._temperature)
        verdict = sqs.verify(round_, target_probs, self._rng)
        self._text += [*drafted[: verdict.accepted], verdict.token]
        self._model.rollback(len(self._text) - 1)
        return DOWNLINK.pack(verdict.accepted, verdict.token)


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
    vocab_size : int
        The codec's.
    support_size_sent : bool
        Whether the paper's scheme has to tell K, as in C-SQS.
    rounds, drafted, accepted, resampled, emitted : int
        Drafted tokens are those that cost uplink, accepted and resampled those
        that the cloud judged (after a rejection the round's other tokens are
        void), emitted those in the text.
    kept, survivors : int
        Σ K and Σ k over the drafted tokens.
    wire_bits : int
        8 bits for every byte sent uplink: distributions, drafted tokens, framing
        and padding.
    paper_bits, raw_bits, dense_bits : int
        The same distributions by the paper's formula, as raw top-K, and dense in
        fp16; none of them counts the drafted token or framing.
    """

    vocab_size: int
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

    def add(
        self, packet: bytes, round_: sqs.Round, kept: Sequence[int], accepted: int
    ) -> None:
        """Account for one round."""
        drafted = len(round_.tokens)
        self.rounds += 1
        self.drafted += drafted
        self.accepted += accepted
        self.resampled += accepted < drafted
        self.wire_bits += 8 * len(packet)
        self.dense_bits += 16 * self.vocab_size * drafted
        for q, k in zip(round_.distributions, kept, strict=True):
            self.survivors += len(q.token_ids)
            self.kept += k
            self.raw_bits += RAW_TOKEN_BITS * k
            self.paper_bits += theory.paper_bits(
                self.vocab_size,
                k,
                q.resolution,
                conformal=self.support_size_sent,
            )


@dataclass(frozen=True)
class Step:
    """What one round did.

    Attributes
    ----------
    packet, answer : bytes
        What crossed, up and down.
    accepted : tuple of int
        Drafted tokens that are now in the text.
    corrected : tuple of int
        The cloud's own token after them; empty where the text ended before it.
    """

    packet: bytes
    answer: bytes
    accepted: tuple[int, ...]
    corrected: tuple[int, ...]


def speculate(
    edge: Edge,
    cloud: Cloud,
    codec: sqs.Codec | sqs.StreamDecoder,
    prompt: Sequence[int],
    *,
    max_tokens: int,
    stop: Collection[int],
    stats: Stats,
) -> Iterator[Step]:
    """Continue a prompt, round by round.

    Parameters
    ----------
    edge, cloud : Edge, Cloud
    codec : sqs.Codec or sqs.StreamDecoder
        `stats` reads the packets with it as a bystander would; it isn't the cloud's
        own decoder.
    prompt : sequence of int
        Token ids that both ends know.
    max_tokens : int
        Where the text ends at the latest.
    stop : collection of int
        Tokens that end the text. They are emitted.
    stats : Stats
        Updated after every round.

    Yields
    ------
    Step
        One for every round, as soon as it is verified.
    """
    edge.start(prompt)
    cloud.start(prompt)
    remaining = max_tokens
    while remaining > 0:
        # A round gives one token more than the edge drafted, if all are accepted.
        packet = edge.draft(max(1, remaining - 1), stop)
        answer = cloud.verify(packet)
        fresh = edge.receive(answer)
        accepted = len(fresh) - 1
        ends = [i + 1 for i, token in enumerate(fresh) if token in stop]
        fresh = fresh[: min([remaining, *ends])]
        remaining = 0 if ends else remaining - len(fresh)
        stats.add(packet, codec.decode_round(packet), edge.kept, accepted)
        stats.emitted += len(fresh)
        yield Step(packet, answer, tuple(fresh[:accepted]), tuple(fresh[accepted:]))
